"""What the arguments of decoding must be."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.arguments import contiguous, floating, same_device, shaped, typed

PAGE_SIZE = 16
"""Tokens of a page."""
MOST_HEAD_DIM = 256
ATTENDED_HEAD_DIMS = (64, 128)


def cache(
    x: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    *,
    op: str,
    x_name: str,
) -> None:
    """Keys and values in pages, [pages, kv heads, 16, head_dim]: of x's type, float8_e4m3fn or int8.

    Raises:
        ValueError: names the argument, what it is and what it must be.
    """
    head_dim = x.shape[-1]
    if keys.dim() != 4 or keys.shape[1] == 0 or keys.shape[2] != PAGE_SIZE or keys.shape[3] != head_dim:
        raise ValueError(
            f"{op}: keys has shape {list(keys.shape)}; it must be [pages, kv heads, {PAGE_SIZE}, {head_dim}]"
        )
    if keys.dtype not in {x.dtype, torch.float8_e4m3fn, torch.int8}:
        raise ValueError(
            f"{op}: keys is {keys.dtype}; it must be {x.dtype} as {x_name} is, or torch.float8_e4m3fn, or torch.int8"
        )
    shaped(op, "values", values, keys.shape, " as keys is")
    typed(op, "values", values, keys.dtype, " as keys is")
    for name, tensor in (("keys", keys), ("values", values)):
        _like_x(op, name, tensor, x, x_name)
    if keys.dtype == x.dtype:
        return
    if x.dtype not in {torch.bfloat16, torch.float16}:
        raise ValueError(
            f"{op}: {x_name} is {x.dtype}; it must be bfloat16 or float16 where the cache has 8 bits"
        )
    for name, scales in (("key_scales", key_scales), ("value_scales", value_scales)):
        if scales is None:
            raise ValueError(f"{op}: {name} is None; a cache of {keys.dtype} has scales")
        typed(op, name, scales, torch.float32)
        if keys.dtype == torch.int8:
            shaped(op, name, scales, keys.shape[:3], ", one per row of keys")
        else:
            shaped(op, name, scales, (1,), ", one for all")
        _like_x(op, name, scales, x, x_name)


def rope_append(
    *,
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
) -> None:
    """All that the append takes.

    Raises:
        ValueError: names the argument, what it is and what it must be.
    """
    op = "rope_append"
    floating(op, "qkv", qkv)
    head_dim = qkv.shape[-1] if qkv.dim() == 3 else 0
    if qkv.dim() != 3 or head_dim == 0 or head_dim % 2 != 0 or head_dim > MOST_HEAD_DIM:
        raise ValueError(
            f"{op}: qkv has shape {list(qkv.shape)}; it must be [tokens, q heads + 2 kv heads, head_dim],"
            f" head_dim even and up to {MOST_HEAD_DIM}"
        )
    contiguous(op, "qkv", qkv)
    cache(qkv, keys, values, key_scales, value_scales, op=op, x_name="qkv")
    if qkv.shape[1] <= 2 * keys.shape[1]:
        raise ValueError(
            f"{op}: qkv has shape {list(qkv.shape)}; it must have more heads than twice the cache's {keys.shape[1]}"
        )
    for name, tensor in (("positions", positions), ("slots", slots)):
        typed(op, name, tensor, torch.int64)
        shaped(op, name, tensor, (qkv.shape[0],), ", one per token")
        _like_x(op, name, tensor, qkv, "qkv")
    typed(op, "angles", angles, torch.float32)
    if angles.dim() != 2 or angles.shape[1] % 2 != 0 or angles.shape[1] > head_dim:
        raise ValueError(
            f"{op}: angles has shape {list(angles.shape)}; it must be [positions, rotary],"
            f" rotary even and up to {head_dim}"
        )
    _like_x(op, "angles", angles, qkv, "qkv")
    for name, weight in (("q_weight", q_weight), ("k_weight", k_weight)):
        if weight is None:
            continue
        if weight.dtype not in {qkv.dtype, torch.float32}:
            raise ValueError(f"{op}: {name} is {weight.dtype}; it must be {qkv.dtype} as qkv is, or float32")
        shaped(op, name, weight, (head_dim,), ", qkv's last dimension")
        _like_x(op, name, weight, qkv, "qkv")
    if q_weight is not None and k_weight is not None:
        typed(op, "k_weight", k_weight, q_weight.dtype, " as q_weight is")


def paged_attention(
    *,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    pages: Tensor,
    lengths: Tensor,
) -> None:
    """All that the attention takes.

    Raises:
        ValueError: names the argument, what it is and what it must be.
    """
    op = "paged_attention"
    floating(op, "q", q)
    if q.dim() != 3 or q.shape[2] not in ATTENDED_HEAD_DIMS:
        raise ValueError(
            f"{op}: q has shape {list(q.shape)}; it must be [sequences, q heads, head_dim], head_dim 64 or 128"
        )
    contiguous(op, "q", q)
    cache(q, keys, values, key_scales, value_scales, op=op, x_name="q")
    if q.shape[1] == 0 or q.shape[1] % keys.shape[1] != 0:
        raise ValueError(
            f"{op}: q has shape {list(q.shape)}; its heads must be a multiple of the cache's {keys.shape[1]}"
        )
    typed(op, "pages", pages, torch.int32)
    if pages.dim() != 2 or pages.shape[0] != q.shape[0]:
        raise ValueError(
            f"{op}: pages has shape {list(pages.shape)}; it must be [{q.shape[0]}, most pages], a row per sequence"
        )
    _like_x(op, "pages", pages, q, "q")
    typed(op, "lengths", lengths, torch.int32)
    shaped(op, "lengths", lengths, (q.shape[0],), ", one per sequence")
    _like_x(op, "lengths", lengths, q, "q")


def _like_x(op: str, name: str, tensor: Tensor, x: Tensor, x_name: str) -> None:
    same_device(op, name, tensor, x, x_name)
    contiguous(op, name, tensor)
