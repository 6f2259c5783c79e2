"""8-bit states of AdamW: a float of few bits per element, and a float32 scale per block of 256.

Of m, a sign, 4 exponent and 3 mantissa bits; of v, the root is kept, with 4 and 4 bits: it is never negative, and its
range is half as wide (Dettmers et al., 2022, for blocks of 8-bit states). The codes are floats from 0 to 1 without
their leading bits, so that rounding their bits rounds the value; 0 is 0 and the greatest is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from datahall_kernels.adamw.checks import STATE_BLOCK

_ONE_EXPONENT = 127
_MANTISSA_BITS = 23


@dataclass(frozen=True)
class SmallFloat:
    """A code for floats from 0 to 1."""

    mantissa: int
    """Bits after the leading one."""
    most: int
    """The code of 1."""

    @property
    def _shift(self) -> int:
        return _MANTISSA_BITS - self.mantissa

    @property
    def _before_first(self) -> int:
        return (_ONE_EXPONENT << self.mantissa) - self.most

    def encode(self, value: Tensor) -> Tensor:
        """The nearest code, int32, of float32 values from 0 to 1."""
        bits = value.view(torch.int32)
        nearest = (bits + ((1 << (self._shift - 1)) - 1) + (bits >> self._shift & 1)) >> self._shift
        half_of_first = ((self._before_first + 1) << self._shift) - (1 << _MANTISSA_BITS)
        code = (nearest - self._before_first).clamp(max=self.most)
        return torch.where(nearest <= self._before_first, (bits >= half_of_first).int(), code)

    def decode(self, code: Tensor) -> Tensor:
        """Float32 of int32 codes."""
        value = ((code + self._before_first) << self._shift).view(torch.float32)
        return torch.where(code == 0, torch.zeros_like(value), value)


FIRST = SmallFloat(mantissa=3, most=127)
SECOND = SmallFloat(mantissa=4, most=255)
_SIGN = 0x80


def decode(
    first: Tensor, second: Tensor, first_scales: Tensor, second_scales: Tensor
) -> tuple[Tensor, Tensor]:
    """M and v, float32 [elements], of codes of any shape and their blocks' scales."""
    count = first.numel()
    codes = first.flatten().int()
    size = FIRST.decode(codes & ~_SIGN) * _of_elements(first_scales, count)
    root = SECOND.decode(second.flatten().int()) * _of_elements(second_scales, count)
    return torch.where(codes & _SIGN != 0, -size, size), root.square()


def encode_(
    first: Tensor, second: Tensor, first_scales: Tensor, second_scales: Tensor, *, m: Tensor, v: Tensor
) -> None:
    """Writes m and v [elements] as codes and scales."""
    sizes, roots = _blocks(m.float().abs()), _blocks(v.float().sqrt())
    for blocks, scales in ((sizes, first_scales), (roots, second_scales)):
        scales.copy_(blocks.amax(dim=1) if len(blocks) else scales)
    count = m.numel()
    codes = FIRST.encode(_of_scale(sizes, first_scales))[:count] | torch.where(m < 0, _SIGN, 0).int()
    first.copy_(codes.to(torch.uint8).view(first.shape))
    codes = SECOND.encode(_of_scale(roots, second_scales))[:count]
    # Never 0 for what is not: a step divides by it, and m may be told where v is too small to be.
    codes = torch.where((codes == 0) & (v > 0), torch.ones_like(codes), codes)
    second.copy_(codes.to(torch.uint8).view(second.shape))


def _of_elements(scales: Tensor, count: int) -> Tensor:
    return scales.repeat_interleave(STATE_BLOCK)[:count]


def _blocks(values: Tensor) -> Tensor:
    """[blocks, STATE_BLOCK], the last filled up with 0."""
    missing = -values.numel() % STATE_BLOCK
    return torch.nn.functional.pad(values, (0, missing)).view(-1, STATE_BLOCK)


def _of_scale(blocks: Tensor, scales: Tensor) -> Tensor:
    share = torch.where(scales > 0, scales.reciprocal(), torch.zeros_like(scales))
    return (blocks * share[:, None]).flatten()
