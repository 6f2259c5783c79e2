"""What products with weights of few bits compute, in plain torch; and how weights come to have few bits."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.arguments import floating
from datahall_kernels.weight_only import checks


def weight_only(
    x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None, group: int, bits: int
) -> Tensor:
    """Y = x W^T + bias, in float64 and rounded once.

    Args:
        x: [..., inputs].
        codes: [outputs, bytes of a row] of uint8: unsigned codes, zero at 128 (8 bits) or 8 (4 bits; two to a byte, the
            even one low), rows padded to a multiple of 16 bytes.
        scales: [outputs, groups] of float32.
        bias: [outputs] of x's type, or None.
        group: inputs in a row that share a scale.
        bits: 8 or 4.

    Returns:
        [..., outputs] of x's type.
    """
    checks.product("weight_only", x, codes, scales, bias, group=group, bits=bits)
    weight = dequantised(codes, scales, inputs=x.shape[-1], group=group, bits=bits, dtype=torch.float64)
    y = x.double() @ weight.T
    return (y if bias is None else y + bias.double()).to(x.dtype)


def dequantised(
    codes: Tensor, scales: Tensor, *, inputs: int, group: int, bits: int, dtype: torch.dtype
) -> Tensor:
    """The weight that codes stand for, [outputs, inputs]."""
    if bits == 4:
        codes = torch.stack([codes & 0xF, codes >> 4], dim=-1).flatten(1)
    centred = codes[:, :inputs].to(dtype) - 2 ** (bits - 1)
    steps: Tensor = scales.to(dtype).repeat_interleave(min(group, inputs), dim=1)[:, :inputs]
    weight: Tensor = centred * steps
    return weight


def quantised(weight: Tensor, *, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Codes and scales of a weight: to nearest, symmetric, the greatest of each group being kept whole.

    Args:
        weight: [outputs, inputs], floating point and finite.
        bits: 8 or 4.
        group: inputs in a row that share a scale: a multiple of 32, or at least all.

    Raises:
        ValueError: an argument is wrong; the text names it.
    """
    floating("quantise", "weight", weight)
    checks.two_dimensions("quantise", "weight", weight)
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("quantise: weight has elements that are infinite or NaN; no scale fits them")
    outputs, inputs = weight.shape
    checks.layout("quantise", inputs=inputs, group=group, bits=bits)
    number = checks.groups(inputs, group)
    padded = torch.zeros(outputs, number * group, dtype=torch.float32, device=weight.device)
    padded[:, :inputs] = weight
    grouped = padded.reshape(outputs, number, group)
    most = 2 ** (bits - 1) - 1
    scales = grouped.abs().amax(dim=-1) / most
    # All zeros: any scale will do, and 0 / 0 is none.
    steps = torch.where(scales == 0, 1.0, scales)[..., None]
    rounded = (grouped / steps).round().clamp(-most, most) + 2 ** (bits - 1)
    row = checks.row_bytes(inputs, bits) * 8 // bits
    codes = torch.full((outputs, row), 2 ** (bits - 1), dtype=torch.uint8, device=weight.device)
    codes[:, :inputs] = rounded.flatten(1)[:, :inputs].to(torch.uint8)
    if bits == 4:
        codes = codes[:, 0::2] | codes[:, 1::2] << 4
    return codes.contiguous(), scales
