"""A step of decoding as torch ops. For inference: there are no gradients, and asking for one says so."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from datahall_kernels.decoding import checks, reference
from datahall_kernels.registry import Op


def _fake_rope_append(
    qkv: Tensor,
    positions: Tensor,
    slots: Tensor,
    angles: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    interleaved: bool,
    epsilon: float,
) -> Tensor:
    checks.rope_append(
        qkv=qkv,
        positions=positions,
        slots=slots,
        angles=angles,
        q_weight=q_weight,
        k_weight=k_weight,
        keys=keys,
        values=values,
        key_scales=key_scales,
        value_scales=value_scales,
    )
    return qkv.new_empty((qkv.shape[0], qkv.shape[1] - 2 * keys.shape[1], qkv.shape[2]))


def _fake_paged_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    pages: Tensor,
    lengths: Tensor,
    scale: float,
) -> Tensor:
    checks.paged_attention(
        q=q,
        keys=keys,
        values=values,
        key_scales=key_scales,
        value_scales=value_scales,
        pages=pages,
        lengths=lengths,
    )
    return torch.empty_like(q)


def _no_gradient(_ctx: Any, *_gradients: object) -> NoReturn:
    raise NotImplementedError(
        "datahall: paged_attention has no gradient; it is for decoding. Train with torch's attention"
    )


OPS = (
    Op(
        name="rope_append",
        schema=(
            "(Tensor qkv, Tensor positions, Tensor slots, Tensor angles, Tensor? q_weight, Tensor? k_weight,"
            " Tensor(a!) keys, Tensor(b!) values, Tensor(c!)? key_scales, Tensor(d!)? value_scales,"
            " bool interleaved, float epsilon) -> Tensor q"
        ),
        reference=reference.rope_append,
        fake=_fake_rope_append,
    ),
    Op(
        name="paged_attention",
        schema=(
            "(Tensor q, Tensor keys, Tensor values, Tensor? key_scales, Tensor? value_scales, Tensor pages,"
            " Tensor lengths, float scale) -> Tensor out"
        ),
        reference=reference.paged_attention,
        fake=_fake_paged_attention,
        backward=_no_gradient,
    ),
)
PARTS = {"rope_append": ("rope_append",), "paged_attention": ("paged_attention",)}
