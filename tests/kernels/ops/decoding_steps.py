"""A step of decoding to test with: some sequences whose tokens are all appended, and then one token each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datahall_kernels import PagedCache, rotary_angles
from datahall_kernels.decoding.checks import PAGE_SIZE
from datahall_kernels.decoding.functions import CacheKind

_KINDS = {None: CacheKind.SAME, torch.float8_e4m3fn: CacheKind.FP8, torch.int8: CacheKind.INT8}


@dataclass(frozen=True, kw_only=True)
class Step:
    """Arguments of both ops."""

    qkv: Tensor
    positions: Tensor
    slots: Tensor
    angles: Tensor
    q_weight: Tensor | None
    k_weight: Tensor | None
    keys: Tensor
    values: Tensor
    key_scales: Tensor | None
    value_scales: Tensor | None
    q: Tensor
    pages: Tensor
    context: Tensor
    interleaved: bool = False

    @classmethod
    def made(
        cls,
        *,
        dtype: torch.dtype,
        kept: torch.dtype | None,
        weights: str | None,
        lengths: tuple[int, ...] = (5, 18),
        q_heads: int = 4,
        kv_heads: int = 2,
        head_dim: int = 64,
        rotary: int | None = None,
    ) -> Step:
        """A step by seed.

        Args:
            dtype: of the data.
            kept: of the cache; None: the data's.
            weights: of the norms: None for none, "own" for the data's type, or "float32".
            lengths: tokens of each sequence.
            q_heads: heads.
            kv_heads: heads.
            head_dim: elements of a head.
            rotary: of them, rotated; None: all.
        """
        generator = torch.Generator().manual_seed(1)
        tokens = sum(lengths)
        most_pages = -(-max(lengths) // PAGE_SIZE) + 1
        number = len(lengths) * most_pages + 2
        places = torch.randperm(number, generator=generator)[: len(lengths) * most_pages]
        pages = places.reshape(len(lengths), most_pages).int()
        index = [torch.arange(length) for length in lengths]
        slots = [
            row[at // PAGE_SIZE].long() * PAGE_SIZE + at % PAGE_SIZE
            for row, at in zip(pages, index, strict=True)
        ]
        cache = PagedCache.empty(
            pages=number,
            kv_heads=kv_heads,
            head_dim=head_dim,
            dtype=dtype,
            kind=_KINDS[kept],
            key_scale=0.02,
            value_scale=0.03,
        )

        def random(*shape: int, of: torch.dtype = dtype) -> Tensor:
            return torch.randn(*shape, generator=generator).to(of)

        weight_dtype = torch.float32 if weights == "float32" else dtype
        return cls(
            qkv=random(tokens, q_heads + 2 * kv_heads, head_dim),
            positions=torch.cat(index),
            slots=torch.cat(slots),
            angles=rotary_angles(max(lengths), head_dim if rotary is None else rotary),
            q_weight=None if weights is None else random(head_dim, of=weight_dtype),
            k_weight=None if weights is None else random(head_dim, of=weight_dtype),
            keys=cache.keys,
            values=cache.values,
            key_scales=cache.key_scales,
            value_scales=cache.value_scales,
            q=random(len(lengths), q_heads, head_dim),
            pages=pages,
            context=torch.tensor(lengths, dtype=torch.int32),
        )

    def cache(self) -> tuple[Tensor | None, ...]:
        """What is written to."""
        return self.keys, self.values, self.key_scales, self.value_scales

    def append_arguments(self) -> tuple[Any, ...]:
        """Of op `rope_append`."""
        weights = (self.q_weight, self.k_weight)
        given = (self.qkv, self.positions, self.slots, self.angles, *weights, *self.cache())
        return *given, self.interleaved, 1e-6

    def attention_arguments(self) -> tuple[Any, ...]:
        """Of op `paged_attention`."""
        return self.q, *self.cache(), self.pages, self.context, 0.125
