"""The losses' bindings and kernels: results are the reference's, and bad arguments are refused in its words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.bindings.comparing import assert_refused_alike

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
IGNORED = -100


def inputs(rows: int, classes: int, dtype: torch.dtype, gap: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(rows, classes + gap, generator=generator) * 3).to(dtype)[:, :classes]
    targets = torch.randint(0, classes, (rows,), generator=generator)
    targets[1:2] = IGNORED
    return logits, targets, torch.randn(rows, generator=generator)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found.dtype, found.stride()) == (expected.dtype, expected.stride())
    rtol = 1e-5 if found.dtype is torch.float32 else 2**-7
    torch.testing.assert_close(found, expected, rtol=rtol, atol=3e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "classes"), [(5, 123), (1, 1), (0, 8), (3, 5000)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bindings_give_what_the_reference_gives(
    bindings: Any, smoothing: float, rows: int, classes: int, dtype: str
) -> None:
    logits, targets, dlosses = inputs(rows, classes, DTYPES[dtype])
    given = (logits, targets, IGNORED, smoothing)
    assert_near(bindings.cross_entropy(*given), torch.ops.datahall.cross_entropy(*given))
    for scale in (dlosses, torch.tensor(0.5).expand(rows)):
        assert_near(
            bindings.cross_entropy_backward(scale, *given),
            torch.ops.datahall.cross_entropy_backward(scale, *given),
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gap", [0, 5])
@pytest.mark.parametrize(("rows", "classes"), [(5, 123), (1, 9), (0, 8), (7, 1)])
def test_the_gradient_takes_the_logits_place_and_leaves_the_gaps(
    bindings: Any, rows: int, classes: int, gap: int, dtype: str
) -> None:
    ours, targets, dlosses = inputs(rows, classes, DTYPES[dtype], gap)
    theirs = inputs(rows, classes, DTYPES[dtype], gap)[0]
    between = ours.as_strided((rows, gap), (classes + gap, 1), classes) if rows else ours[:, :0]
    before = between.clone()
    losses = bindings.cross_entropy_with_gradient_(ours, targets, dlosses, IGNORED, 0.1)
    expected = torch.ops.datahall.cross_entropy_with_gradient_(theirs, targets, dlosses, IGNORED, 0.1)
    assert_near(losses, expected)
    assert_near(ours, theirs)
    assert torch.equal(between, before)


Z, T, D = torch.ones(2, 4), torch.tensor([0, 1]), torch.ones(2)
WRONG = {
    "whole numbers": ("cross_entropy", (Z.int(), T, 0, 0.0)),
    "three dimensions": ("cross_entropy", (torch.ones(1, 2, 4), T, 0, 0.0)),
    "no class": ("cross_entropy", (torch.ones(2, 0), T, 0, 0.0)),
    "turned": ("cross_entropy", (torch.ones(4, 2).t(), T, 0, 0.0)),
    "gaps": ("cross_entropy_backward", (D, torch.ones(2, 5)[:, :4], T, 0, 0.0)),
    "turned in place": ("cross_entropy_with_gradient_", (torch.ones(4, 2).t(), T, D, 0, 0.0)),
    "overlap in place": ("cross_entropy_with_gradient_", (Z.as_strided((2, 4), (2, 1)), T, D, 0, 0.0)),
    "other targets": ("cross_entropy", (Z, T.int(), 0, 0.0)),
    "short targets": ("cross_entropy", (Z, T[:1], 0, 0.0)),
    "strided targets": ("cross_entropy", (Z, torch.tensor([0, 1, 2, 3])[::2], 0, 0.0)),
    "smoothing": ("cross_entropy", (Z, T, 0, 1.5)),
    "no smoothing": ("cross_entropy", (Z, T, 0, float("nan"))),
    "long dlosses": ("cross_entropy_backward", (torch.ones(3), Z, T, 0, 0.0)),
    "other dlosses": ("cross_entropy_backward", (D.half(), Z, T, 0, 0.0)),
    "smoothing after dlosses": ("cross_entropy_with_gradient_", (Z, T, D, 0, -0.5)),
}


@pytest.mark.parametrize("name", WRONG)
def test_bindings_refuse_in_the_words_of_the_reference(bindings: Any, name: str) -> None:
    op, given = WRONG[name]
    assert_refused_alike(bindings, op, given)
