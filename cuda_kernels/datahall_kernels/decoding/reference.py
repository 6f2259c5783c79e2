"""What a step of decoding computes, in plain torch: in float64, rounded where it is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.decoding import checks
from datahall_kernels.decoding.checks import PAGE_SIZE

_MOST_FP8 = 448.0
_MOST_INT8 = 127.0


def rope_append(
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
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """RMSNorm of each head of q and k, rotary positions (Su et al., 2021), and k and v into the cache.

    Args:
        qkv: [tokens, q heads + 2 kv heads, head_dim].
        positions: [tokens] of int64; one that `angles` has not makes q and k NaN.
        slots: [tokens] of int64: page * 16 + place in it; one that the cache has not, such as -1: not kept. No slot
            twice.
        angles: [positions, rotary] of float32: cosines of rotary / 2 pairs, then their sines. The first `rotary`
            elements of a head are rotated.
        q_weight: [head_dim], of qkv's type or float32; None: q is not normalised.
        k_weight: likewise.
        keys: [pages, kv heads, 16, head_dim] of qkv's type, float8_e4m3fn or int8; written to, as the next three are.
        values: likewise.
        key_scales: of float8_e4m3fn: [1], which is read; of int8: [pages, kv heads, 16], which is written.
        value_scales: likewise.
        interleaved: neighbours are pairs, not halves.
        epsilon: of the norms.
        dtype: to compute in.

    Returns:
        q, [tokens, q heads, head_dim], of qkv's type.
    """
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
    kv_heads = keys.shape[1]
    q, k, v = torch.split(qkv.to(dtype), [qkv.shape[1] - 2 * kv_heads, kv_heads, kv_heads], dim=1)
    turns = _turns(angles, positions, dtype)
    q = _rotated(_normalised(q, q_weight, epsilon), turns, interleaved=interleaved)
    k = _rotated(_normalised(k, k_weight, epsilon), turns, interleaved=interleaved)
    kept = ((slots >= 0) & (slots < keys.shape[0] * PAGE_SIZE)).nonzero().flatten()
    for rows, elements, scales in ((k, keys, key_scales), (v, values, value_scales)):
        _append(rows[kept], elements, scales, slots[kept])
    return q.to(qkv.dtype)


def _turns(angles: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
    known = (positions >= 0) & (positions < angles.shape[0])
    if angles.shape[0] == 0:
        return torch.full((len(positions), 1, angles.shape[1]), torch.nan, dtype=dtype, device=angles.device)
    found = angles[positions.clamp(0, angles.shape[0] - 1)].to(dtype)
    return torch.where(known[:, None], found, torch.nan)[:, None]


def _normalised(heads: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    if weight is None:
        return heads
    rstd = torch.rsqrt(heads.square().mean(dim=-1, keepdim=True) + epsilon)
    return heads * rstd * weight.to(heads.dtype)


def _rotated(heads: Tensor, turns: Tensor, *, interleaved: bool) -> Tensor:
    rotary = turns.shape[-1]
    cosine, sine = turns.chunk(2, dim=-1)
    turned, rest = heads[..., :rotary], heads[..., rotary:]
    one, other = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, dim=-1)
    pair = (one * cosine - other * sine, other * cosine + one * sine)
    turned = torch.stack(pair, dim=-1).flatten(-2) if interleaved else torch.cat(pair, dim=-1)
    return torch.cat([turned, rest], dim=-1)


def _append(rows: Tensor, elements: Tensor, scales: Tensor | None, slots: Tensor) -> None:
    """Keeps rows [tokens, kv heads, head_dim] at their slots."""
    page, place = slots // PAGE_SIZE, slots % PAGE_SIZE
    if elements.dtype == torch.int8:
        assert scales is not None  # `checks` saw to it
        most = rows.abs().amax(dim=-1)
        scales[page, :, place] = (most / _MOST_INT8).float()
        by = torch.where(most > 0, _MOST_INT8 / most, 0.0)[..., None]
        elements[page, :, place] = (rows * by).round().to(torch.int8)
    elif elements.dtype == torch.float8_e4m3fn:
        assert scales is not None
        codes = (rows / scales.to(rows.dtype)).clamp(-_MOST_FP8, _MOST_FP8).to(torch.float8_e4m3fn)
        # Torch cannot write some elements of this type.
        elements.view(torch.uint8)[page, :, place] = codes.view(torch.uint8)
    else:
        elements[page, :, place] = rows.to(elements.dtype)


def paged_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    pages: Tensor,
    lengths: Tensor,
    scale: float,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Attention of one token per sequence over keys and values in pages (Kwon et al., 2023).

    Args:
        q: [sequences, q heads, head_dim]; q heads are a multiple of kv heads, neighbours share one.
        keys: [pages, kv heads, 16, head_dim], as `rope_append` leaves them; and likewise
        values: and
        key_scales: and
        value_scales: all of them.
        pages: [sequences, most pages] of int32: where the tokens of each sequence are.
        lengths: [sequences] of int32: tokens of context, the newest with them; 0: zeros come out.
        scale: of the scores, such as 1 / sqrt(head_dim).
        dtype: to compute in.

    Returns:
        [sequences, q heads, head_dim] of q's type. A sequence with a page that does not exist, or with more tokens than
        its row of `pages` has room for, is NaN.
    """
    checks.paged_attention(
        q=q,
        keys=keys,
        values=values,
        key_scales=key_scales,
        value_scales=value_scales,
        pages=pages,
        lengths=lengths,
    )
    sequences, q_heads, head_dim = q.shape
    number, kv_heads = keys.shape[:2]
    room = pages.shape[1] * PAGE_SIZE
    token = torch.arange(room, device=q.device)
    counted = token < lengths[:, None]
    exists = ((pages >= 0) & (pages < number)).repeat_interleave(PAGE_SIZE, dim=1)
    broken = (counted & ~exists).any(dim=1) | (lengths > room)
    if number == 0 or room == 0:
        empty = torch.where(lengths > 0, torch.nan, 0.0)
        return empty[:, None, None].expand(q.shape).to(q.dtype).contiguous()
    at = pages.long().clamp(0, number - 1)
    k, v = (
        _gathered(elements, scales, at, dtype).masked_fill(~counted[:, None, :, None], 0.0)
        for elements, scales in ((keys, key_scales), (values, value_scales))
    )
    grouped = q.to(dtype).reshape(sequences, kv_heads, q_heads // kv_heads, head_dim)
    scores = torch.einsum("shgd,shtd->shgt", grouped, k) * scale
    weights = scores.masked_fill(~counted[:, None, None], -torch.inf).softmax(dim=-1)
    weights = weights.masked_fill((lengths <= 0)[:, None, None, None], 0.0)
    found = torch.einsum("shgt,shtd->shgd", weights, v).reshape(q.shape)
    return found.masked_fill(broken[:, None, None], torch.nan).to(q.dtype)


def _gathered(elements: Tensor, scales: Tensor | None, pages: Tensor, dtype: torch.dtype) -> Tensor:
    """[sequences, kv heads, tokens, head_dim] of what the pages hold."""
    if elements.dtype == torch.float8_e4m3fn:
        assert scales is not None  # `checks` saw to it
        wide = elements.view(torch.uint8)[pages].view(torch.float8_e4m3fn).to(dtype) * scales.to(dtype)
    elif elements.dtype == torch.int8:
        assert scales is not None
        wide = elements[pages].to(dtype) * scales[pages][..., None].to(dtype)
    else:
        wide = elements[pages].to(dtype)
    return wide.transpose(1, 2).flatten(2, 3)
