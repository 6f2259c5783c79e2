"""Products with weights of few bits, from the op's arguments through bindings and kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datahall_kernels.weight_only.functions import quantise
from tests.kernels.bindings.comparing import assert_refused_alike


def made(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("shape", "outputs", "group"),
    [((3, 200), 17, 64), ((2, 5, 576), 33, 1000), ((123,), 5, 32), ((0, 64), 3, 64), ((1, 64), 0, 64)],
    ids=str,
)
def test_bindings_give_what_the_reference_gives(
    bindings: Any, shape: tuple[int, ...], outputs: int, group: int, dtype: torch.dtype, bits: int
) -> None:
    weight = quantise(made(outputs, shape[-1], seed=2), bits=bits, group=group)
    for bias in (None, made(outputs, dtype=dtype, seed=3)):
        given = (made(*shape, dtype=dtype), weight.codes, weight.scales, bias, weight.group, bits)
        ours, reference = bindings.weight_only(*given), torch.ops.datahall.weight_only(*given)
        assert (ours.shape, ours.dtype) == (reference.shape, reference.dtype)
        rtol = 1e-4 if dtype is torch.float32 else 2**-7
        torch.testing.assert_close(ours, reference, rtol=rtol, atol=rtol)


X = torch.ones(2, 64)
CODES, SCALES = torch.zeros(3, 64, dtype=torch.uint8), torch.ones(3, 2)
WRONG = {
    "whole numbers": (X.int(), CODES, SCALES, None, 32, 8),
    "no width": (torch.ones(2, 0), CODES, SCALES, None, 32, 8),
    "strided x": (torch.ones(64, 2).t(), CODES, SCALES, None, 32, 8),
    "three bits": (X, CODES, SCALES, None, 32, 3),
    "odd group": (X, CODES, SCALES, None, 33, 8),
    "no group": (X, CODES, SCALES, None, 0, 8),
    "codes with a sign": (X, CODES.to(torch.int8), SCALES, None, 32, 8),
    "codes of four bits": (X, CODES, SCALES, None, 32, 4),
    "codes of one dimension": (X, CODES[0], SCALES, None, 32, 8),
    "strided codes": (X, CODES.repeat(1, 2)[:, ::2], SCALES, None, 32, 8),
    "half scales": (X, CODES, SCALES.half(), None, 32, 8),
    "few scales": (X, CODES, SCALES[:, :1], None, 32, 8),
    "other bias": (X, CODES, SCALES, torch.ones(3).half(), 32, 8),
    "short bias": (X, CODES, SCALES, torch.ones(2), 32, 8),
}


@pytest.mark.parametrize("name", WRONG)
def test_bindings_refuse_in_the_words_of_the_reference(bindings: Any, name: str) -> None:
    assert_refused_alike(bindings, "weight_only", WRONG[name])
