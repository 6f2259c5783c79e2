"""Linear layers whose weights have 8 or 4 bits, for decoding: its few rows are bound by reading the weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from datahall_kernels.dispatch import Path, path_of
from datahall_kernels.weight_only import checks, reference

_TORCH = Path.TORCH.value
MOST_ROWS = 32
"""Of x. With more the product is bound by arithmetic, for which torch has tensor cores; a guess, not a measurement."""


@dataclass(frozen=True, kw_only=True)
class QuantisedWeight:
    """A weight [outputs, inputs] in few bits; made by `quantise`."""

    codes: Tensor
    """[outputs, bytes of a row], uint8; see `reference.weight_only`."""
    scales: Tensor
    """[outputs, groups], float32."""
    inputs: int
    group: int
    bits: int

    def to(self, device: torch.device | str) -> QuantisedWeight:
        """The same on another device."""
        return QuantisedWeight(
            codes=self.codes.to(device),
            scales=self.scales.to(device),
            inputs=self.inputs,
            group=self.group,
            bits=self.bits,
        )

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """The weight that the codes stand for, [outputs, inputs]."""
        return reference.dequantised(
            self.codes, self.scales, inputs=self.inputs, group=self.group, bits=self.bits, dtype=dtype
        )


def quantise(weight: Tensor, *, bits: int, group: int = 128) -> QuantisedWeight:
    """A weight in few bits: to nearest, with one scale for each `group` inputs of an output.

    Args:
        weight: [outputs, inputs], floating point and finite.
        bits: 8 or 4.
        group: a multiple of 32, or at least `inputs`.

    Raises:
        ValueError: an argument is wrong; the text names it.
    """
    checks.two_dimensions("quantise", "weight", weight)
    group = min(group, checks.whole_groups(weight.shape[1]))
    codes, scales = reference.quantised(weight, bits=bits, group=group)
    return QuantisedWeight(codes=codes, scales=scales, inputs=weight.shape[1], group=group, bits=bits)


def weight_only_linear(x: Tensor, weight: QuantisedWeight, bias: Tensor | None = None) -> Tensor:
    """Y = x W^T + bias; sums are in float32 at least.

    Args:
        x: [..., inputs], float32, bfloat16 or float16.
        weight: from `quantise`, on x's device.
        bias: [outputs] of x's type.

    Returns:
        [..., outputs] of x's type. There is no gradient.

    Raises:
        ValueError: an argument is wrong; the text names it. (From the CUDA kernel: RuntimeError with the same text.)
        KernelsError: DATAHALL_KERNELS=require, and our kernel cannot run.
    """
    x = x.contiguous()
    many = x.device.type == "cuda" and x.numel() > MOST_ROWS * weight.inputs
    if many or path_of("weight_only_linear", x.device, x.dtype) == _TORCH:
        checks.product(
            *("weight_only", x, weight.codes, weight.scales, bias), group=weight.group, bits=weight.bits
        )
        return functional.linear(x, weight.dequantise(x.dtype), bias)
    return torch.ops.datahall.weight_only(  # type: ignore[no-any-return]
        x, weight.codes, weight.scales, bias, weight.group, weight.bits
    )
