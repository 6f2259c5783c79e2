"""Stochastic rounding to bfloat16: up or down, the nearer neighbour more often, so that the mean stays.

Random numbers are Philox4x32-10's (Salmon et al., SC 2011) of a key and a counter, so that they depend on nothing but
what they are for: seed, tensor, element and step.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFF_FFFF
_FACTORS = (0xD251_1F53, 0xCD9E_8D57)
_KEY_STEPS = (0x9E37_79B9, 0xBB67_AE85)
_ROUNDS = 10
_PER_COUNTER = 8  # elements, of 16 bits each
_EXPONENT = 0x7F80_0000


def philox(
    seed: int, counter: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words for each counter; int64 tensors of words from 0 to 2^32 - 1."""
    words, keys = counter, [seed & _WORD, seed >> 32 & _WORD]
    for _ in range(_ROUNDS):
        # The product of two words wraps around in int64, but its bits are those of the true one.
        first, second = words[0] * _FACTORS[0], words[2] * _FACTORS[1]
        words = (
            (second >> 32 & _WORD) ^ words[1] ^ keys[0],
            second & _WORD,
            (first >> 32 & _WORD) ^ words[3] ^ keys[1],
            first & _WORD,
        )
        keys = [(key + step) & _WORD for key, step in zip(keys, _KEY_STEPS, strict=True)]
    return words


def stochastic(values: Tensor, *, seed: int, number: int, step: Tensor) -> Tensor:
    """Float32 values [elements] of tensor `number`, rounded to bfloat16 for `step`."""
    groups = torch.arange(-(-values.numel() // _PER_COUNTER), device=values.device)
    counter = (groups & _WORD, groups >> 32, torch.full_like(groups, number), step.long().expand_as(groups))
    words = torch.stack(philox(seed, counter), dim=1)
    noise = torch.stack((words & 0xFFFF, words >> 16), dim=2).flatten()[: values.numel()].int()
    bits = values.view(torch.int32)
    is_finite = bits & _EXPONENT != _EXPONENT
    rounded = torch.where(is_finite, (bits + noise) & ~0xFFFF, bits)
    return rounded.view(torch.float32).bfloat16()
