"""Tokens drawn from logits, from the op's arguments through bindings and kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.bindings.comparing import assert_refused_alike


def given(rows: int, vocabulary: int, dtype: torch.dtype = torch.float32) -> list[Any]:
    """All that the op takes, each row having other parameters."""
    random = torch.Generator().manual_seed(1)

    def some(*values: float) -> torch.Tensor:
        return torch.tensor([values[row % len(values)] for row in range(rows)])

    listed = torch.stack([torch.randperm(vocabulary, generator=random)[:7] for _ in range(rows)]).int()
    words = torch.randint(-(2**31), 2**31, (rows, -(-vocabulary // 32)), generator=random).int()
    return [
        (torch.randn(rows, vocabulary, generator=random) * 3).to(dtype),
        *(some(1.0, 0.6, 0.0), some(0, 20, 3).int(), some(0.9, 1.0, 0.5), some(0.0, 0.02)),
        *(some(1.2, 1.0), some(0.3, 0.0), some(0.1, -0.1, 0.0)),
        *(listed, (listed % 3).int(), some(listed.shape[1], 2).int(), words | 3),
        *(torch.arange(rows) * 2**40 + 3, torch.arange(rows) - 2),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("vocabulary", [7, 123, 3000])
def test_bindings_draw_what_the_reference_draws(bindings: Any, vocabulary: int, dtype: torch.dtype) -> None:
    arguments = given(40, vocabulary, dtype)
    for absent in ((), range(1, 8), (8, 9, 10), (11,), (9, 10)):
        some = [None if i in absent else of for i, of in enumerate(arguments)]
        ours, reference = bindings.sample(*some), torch.ops.datahall.sample(*some)
        assert torch.equal(ours[0], reference[0])
        torch.testing.assert_close(ours[1], reference[1], rtol=1e-6, atol=2e-6)


def test_no_rows(bindings: Any) -> None:
    logits, seeds = torch.empty(0, 9), torch.empty(0, dtype=torch.int64)
    tokens, logs = bindings.sample(logits, *([None] * 11), seeds, seeds)
    assert (tokens.dtype, tokens.shape) == (torch.int64, (0,))
    assert (logs.dtype, logs.shape) == (torch.float32, (0,))


WRONG: dict[str, tuple[int, Any]] = {
    "whole numbers": (0, torch.ones(2, 64).int()),
    "one dimension": (0, torch.ones(64)),
    "no vocabulary": (0, torch.ones(2, 0)),
    "too many tokens": (0, torch.ones(1, 2**19 + 1)),
    "strided logits": (0, torch.ones(64, 2).t()),
    "half temperature": (1, torch.ones(2).half()),
    "long temperature": (1, torch.ones(3)),
    "top_k that is no number of tokens": (2, torch.ones(2)),
    "long top_p": (3, torch.ones(2, 1)),
    "strided min_p": (4, torch.ones(4)[::2]),
    "double repetition": (5, torch.ones(2).double()),
    "long presence": (6, torch.ones(1)),
    "whole frequency": (7, torch.ones(2).int()),
    "long tokens": (8, torch.ones(2, 7).long()),
    "few lists": (8, torch.ones(1, 7).int()),
    "one list": (8, torch.ones(7).int()),
    "no list": (8, None),
    "other counts": (9, torch.ones(2, 6).int()),
    "long counts": (9, torch.ones(2, 7).long()),
    "long lengths": (10, torch.ones(2).long()),
    "few words": (11, torch.ones(2, 1).int()),
    "bits by themselves": (11, torch.ones(2, 64).bool()),
    "whole seeds": (12, torch.ones(2).int()),
    "few offsets": (13, torch.ones(1).long()),
}


@pytest.mark.parametrize("name", WRONG)
def test_bindings_refuse_in_the_words_of_the_reference(bindings: Any, name: str) -> None:
    at, wrong = WRONG[name]
    arguments = given(2, 64)
    arguments[at] = wrong
    assert_refused_alike(bindings, "sample", tuple(arguments))
