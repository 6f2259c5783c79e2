"""AdamW's bindings and kernels: results are the reference's, and bad arguments are refused in its words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.bindings.comparing import assert_refused_alike
from tests.kernels.ops.test_adamw import arguments

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# More tensors than the table's kernel takes at a time.
MANY = 60


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize("clipped", [False, True])
def test_bindings_give_what_the_reference_gives(
    bindings: Any, clipped: bool, eight_bit: bool, dtype: str
) -> None:
    ours, theirs = (arguments(DTYPES[dtype], eight_bit=eight_bit, clipped=clipped) for _ in range(2))
    for number in (1.0, 2.0):
        for given in (ours, theirs):
            for step in given[6]:
                step.fill_(number)
        bindings.adamw_(*ours)
        torch.ops.datahall.adamw_(*theirs)
    for found, expected in zip(ours[0], theirs[0], strict=True):
        # An ulp in what is rounded stochastically is an ulp of bfloat16 now and then.
        rtol = 2**-7 if found.dtype is torch.bfloat16 else 2**-10 if found.dtype is torch.float16 else 1e-6
        torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-6)
        assert (found == expected).double().mean().item() > 0.98 or not found.numel() or dtype == "float32"
    for found, expected in zip(
        (x for y in ours[2:6] for x in y), (x for y in theirs[2:6] for x in y), strict=True
    ):
        assert found.dtype is expected.dtype
        rtol = 2**-3 if found.dtype is torch.uint8 else 1e-5
        torch.testing.assert_close(found, expected, rtol=rtol, atol=1 if found.dtype is torch.uint8 else 1e-6)


def test_stochastic_rounding_draws_what_the_reference_draws(bindings: Any) -> None:
    ours, theirs = (arguments(torch.bfloat16, eight_bit=False, clipped=False) for _ in range(2))
    bindings.adamw_(*ours)
    torch.ops.datahall.adamw_(*theirs)
    differ = sum(int((a != b).sum()) for a, b in zip(ours[0], theirs[0], strict=True))
    assert differ <= 3, "of 5,054: where float32 and float64 lie on two sides of what was drawn"
    other = arguments(torch.bfloat16, eight_bit=False, clipped=False)
    bindings.adamw_(*other[:-1], other[-1] + 1)
    assert not torch.equal(ours[0][0], other[0][0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [1, 48, MANY])
def test_the_norm_is_of_all_tensors(bindings: Any, number: int, dtype: str) -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(i * 131, generator=generator).to(DTYPES[dtype]) for i in range(number)]
    found = bindings.squared_norm(gradients)
    assert (found.shape, found.dtype) == ((), torch.float32)
    torch.testing.assert_close(found, torch.ops.datahall.squared_norm(gradients), rtol=1e-5, atol=0)


def test_a_step_is_of_all_tensors(bindings: Any) -> None:
    def step(by: Any) -> torch.Tensor:
        own = [torch.full((i,), float(i)) for i in range(1, MANY + 1)]
        zeros = [[torch.zeros_like(p) for p in own] for _ in range(2)]
        steps = [torch.tensor(1.0)] * MANY
        norm, rate = torch.tensor(1.0), torch.tensor(0.1)
        by.adamw_(own, own, *zeros, [], [], steps, rate, norm, 5.0, 0.9, 0.99, 1e-8, 0.0, False, 0)
        return torch.cat(own)

    torch.testing.assert_close(step(bindings), step(torch.ops.datahall), rtol=1e-6, atol=0)


P = torch.ones(2, 3)
S = torch.tensor(1.0)


def wrong(**changes: Any) -> tuple[Any, ...]:
    given = {
        "parameters": [P, P],
        "gradients": [P, P],
        "first": [P, P],
        "second": [P, P],
        "first_scales": [],
        "second_scales": [],
        "steps": [S, S],
        "learning_rate": S,
        "squared_norm": None,
    }
    return (*(given | changes).values(), 1.0, 0.9, 0.99, 1e-8, 0.1, False, 0)


CODES, SCALES = [P.to(torch.uint8)] * 2, [torch.ones(1)] * 2
WRONG = {
    "no parameters": wrong(parameters=[]),
    "whole numbers": wrong(parameters=[P, P.int()]),
    "two types": wrong(parameters=[P, P.half()]),
    "turned": wrong(parameters=[P, torch.ones(3, 2).t()]),
    "one gradient": wrong(gradients=[P]),
    "short gradient": wrong(gradients=[P, P[:1]]),
    "other gradient": wrong(gradients=[P.half(), P]),
    "turned gradient": wrong(gradients=[P, torch.ones(3, 2).t()]),
    "no first": wrong(first=[]),
    "half first": wrong(first=[P, P.half()]),
    "codes in one": wrong(first=CODES),
    "codes without scales": wrong(first=CODES, second=CODES),
    "scales without codes": wrong(second_scales=SCALES),
    "too many scales": wrong(
        first=CODES, second=CODES, first_scales=SCALES, second_scales=[torch.ones(2)] * 2
    ),
    "other scales": wrong(first=CODES, second=CODES, first_scales=[S.half()[None]] * 2, second_scales=SCALES),
    "a step of two numbers": wrong(steps=[S, torch.ones(2)]),
    "whole steps": wrong(steps=[S.int(), S]),
    "rates": wrong(learning_rate=torch.ones(1)),
    "other norm": wrong(squared_norm=S.double()),
}


@pytest.mark.parametrize("name", WRONG)
def test_bindings_refuse_in_the_words_of_the_reference(bindings: Any, name: str) -> None:
    assert_refused_alike(bindings, "adamw_", WRONG[name])
