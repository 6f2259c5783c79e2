"""What all tests of kernel sources need: tensors by seed, dtype codes, and what an error may be."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernel_execution import Order

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
EPSILON = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""Half a unit in the last place of 1: what one rounding costs, relative to the value."""

ORDERS = ((Order.FORWARD, 0), (Order.REVERSE, 0), (Order.SHUFFLED, 1))
i32 = ctypes.c_int
u64 = ctypes.c_ulonglong


def name_of(value: object) -> str:
    """How a test's parameter is called."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else str(value)


def made(*shape: int, dtype: torch.dtype, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale + shift).to(dtype)


def assert_near(
    found: Tensor,
    exact: Tensor,
    *,
    roundings: float,
    dtype: torch.dtype | None = None,
    size: Tensor | None = None,
) -> None:
    """Each element is within so many roundings of the greatest that its row has, and no NaN stands for a number.

    Args:
        found: What a kernel gave.
        exact: In float64.
        roundings: How many, of `dtype` (of found, if not given).
        dtype: Whose.
        size: Of what cancels out within a row: a rounding of that is one, too. [..., 1].
    """
    dtype = dtype or found.dtype
    if not found.numel():
        return
    greatest = exact.abs().amax(-1, keepdim=True) if exact.dim() else exact.abs()
    allowed = roundings * EPSILON[dtype] * greatest + 1e-30
    if size is not None:
        allowed = allowed + roundings * EPSILON[torch.float32] * size
    off = (found.double() - exact).abs()
    assert bool((off <= allowed).all()), f"off by {(off / allowed).max().item() * roundings:.1f} roundings"
