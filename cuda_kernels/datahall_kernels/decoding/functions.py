"""What a decoder does with each new token between its projections: rotary positions, the cache, and attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from datahall_kernels.decoding import reference
from datahall_kernels.decoding.checks import PAGE_SIZE
from datahall_kernels.dispatch import Path, path_of

_TORCH = Path.TORCH.value


class CacheKind(StrEnum):
    """How a cache keeps its elements."""

    SAME = "same"
    """In the data's own type."""
    FP8 = "fp8"
    """float8_e4m3fn, with one scale each for all keys and all values, which the maker of the cache chooses."""
    INT8 = "int8"
    """int8, with a scale for each token and head, which is found while it is written."""


@dataclass(frozen=True, kw_only=True)
class PagedCache:
    """Keys and values of one layer in pages of 16 tokens (Kwon et al., 2023); made by `empty`."""

    keys: Tensor
    """[pages, kv heads, 16, head_dim]."""
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    @classmethod
    def empty(
        cls,
        *,
        pages: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        kind: CacheKind = CacheKind.SAME,
        key_scale: float = 1.0,
        value_scale: float = 1.0,
    ) -> PagedCache:
        """A cache with nothing in it.

        Args:
            pages: how many.
            kv_heads: heads of keys.
            head_dim: elements of a head.
            dtype: of the data; bfloat16 or float16 for kinds of 8 bits.
            device: where.
            kind: how elements are kept.
            key_scale: of fp8: what a code of 1 stands for. The greatest element that is kept whole is 448 times that.
            value_scale: likewise.
        """
        kept = {CacheKind.SAME: dtype, CacheKind.FP8: torch.float8_e4m3fn, CacheKind.INT8: torch.int8}[kind]
        shape = (pages, kv_heads, PAGE_SIZE, head_dim)
        keys, values = (torch.zeros(shape, dtype=kept, device=device) for _ in range(2))
        if kind is CacheKind.SAME:
            return cls(keys=keys, values=values)
        key_scales, value_scales = (
            torch.tensor([scale], device=device)
            if kind is CacheKind.FP8
            else torch.zeros(shape[:3], device=device)
            for scale in (key_scale, value_scale)
        )
        return cls(keys=keys, values=values, key_scales=key_scales, value_scales=value_scales)


def rotary_angles(
    positions: int, rotary: int, *, base: float = 10_000.0, device: torch.device | str = "cpu"
) -> Tensor:
    """What `rope_append` reads: [positions, rotary] of float32, cosines and then sines of rotary / 2 pairs."""
    speeds = base ** (-torch.arange(0, rotary, 2, dtype=torch.float64) / rotary)
    turns = torch.outer(torch.arange(positions, dtype=torch.float64), speeds)
    return torch.cat([turns.cos(), turns.sin()], dim=1).float().to(device)


def rope_append(
    qkv: Tensor,
    cache: PagedCache,
    *,
    positions: Tensor,
    slots: Tensor,
    angles: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    epsilon: float = 1e-6,
    interleaved: bool = False,
) -> Tensor:
    """RMSNorm of each head of q and k, rotary positions, and k and v into the cache: in one launch.

    Args:
        qkv: [tokens, q heads + 2 kv heads, head_dim], float32, bfloat16 or float16; head_dim even, up to 256.
        cache: is written to.
        positions: [tokens] of int64; one that `angles` has not makes the token's q and k NaN.
        slots: [tokens] of int64: page * 16 + place in it, none twice; one that the cache has not: not kept.
        angles: from `rotary_angles`.
        q_weight: [head_dim] of qkv's type or float32; None: q is not normalised.
        k_weight: likewise.
        epsilon: of the norms.
        interleaved: neighbours are pairs, not halves.

    Returns:
        q, [tokens, q heads, head_dim], of qkv's type. There is no gradient.

    Raises:
        ValueError: an argument is wrong; the text names it. (From the CUDA kernel: RuntimeError with the same text.)
        KernelsError: DATAHALL_KERNELS=require, and our kernel cannot run.
    """
    given = (qkv.contiguous(), positions, slots, angles, q_weight, k_weight)
    kept = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
    if path_of("rope_append", qkv.device, qkv.dtype) == _TORCH:
        return reference.rope_append(*given, *kept, interleaved, epsilon, _wide(qkv))
    return torch.ops.datahall.rope_append(*given, *kept, interleaved, epsilon)  # type: ignore[no-any-return]


def paged_attention(
    q: Tensor, cache: PagedCache, *, pages: Tensor, lengths: Tensor, scale: float | None = None
) -> Tensor:
    """Attention of one token per sequence over what the cache holds.

    Args:
        q: [sequences, q heads, head_dim], as `rope_append` gives it; head_dim 64 or 128.
        cache: with the tokens' keys and values.
        pages: [sequences, most pages] of int32: where the tokens of each sequence are. The fewer columns, the better
            the work is shared out.
        lengths: [sequences] of int32: tokens of context, the newest with them; 0: zeros come out.
        scale: of the scores; None: 1 / sqrt(head_dim).

    Returns:
        [sequences, q heads, head_dim] of q's type. A sequence with a page that does not exist, or with more tokens than
        its row of `pages` has room for, is NaN. There is no gradient.

    Raises:
        ValueError, KernelsError: as `rope_append`.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    given = (q.contiguous(), cache.keys, cache.values, cache.key_scales, cache.value_scales, pages, lengths)
    if path_of("paged_attention", q.device, q.dtype) == _TORCH:
        return reference.paged_attention(*given, scale, _wide(q))
    return torch.ops.datahall.paged_attention(*given, scale)  # type: ignore[no-any-return]


def _wide(x: Tensor) -> torch.dtype:
    """Torch has no op of its own for these: the reference in the type that the kernel computes in stands for it."""
    return torch.promote_types(x.dtype, torch.float32)
