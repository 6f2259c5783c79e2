"""What decoding repeats for each token: products with few rows, the append to the cache, attention over it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

import datahall_kernels
from datahall_kernels import CacheKind, PagedCache
from kernel_bench import peers
from kernel_bench.cases import Call, Case, Make, random

PRODUCTS = ((1, 576, 1536), (1, 4096, 4096), (1, 4096, 14336), (8, 4096, 4096))
"""Rows of x, inputs, outputs."""
CONTEXTS = ((64, 128), (64, 2048), (1, 2048), (1, 32768))
"""Sequences, tokens of each."""
Q_HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
GROUP = 128
DTYPE = torch.bfloat16


def cases() -> Iterator[Case]:
    """All of them, in bfloat16."""
    for rows, inputs, outputs in PRODUCTS:
        yield from _products(rows, inputs, outputs)
    for sequences, tokens in CONTEXTS:
        yield from _attentions(sequences, tokens)
    for tokens in (1, 64, 512):
        yield _append(tokens)


def _products(rows: int, inputs: int, outputs: int) -> Iterator[Case]:
    """The same product with weights of 8 and 4 bits; torch's is with the whole weight, which is what is replaced."""
    around = DTYPE.itemsize * rows * (inputs + outputs)
    for bits in (8, 4):
        scales = 4 * outputs * -(-inputs // GROUP)
        yield Case(
            op=f"weight_only_int{bits}",
            passed="forward",
            shape=f"{rows} x {inputs} x {outputs}",
            dtype=DTYPE,
            moved_bytes=around + inputs * outputs * bits / 8 + scales,
            flops=2.0 * rows * inputs * outputs,
            makers={
                provider: _make_product(provider, rows, inputs, outputs, bits)
                for provider in ("ours", "torch")
            },
        )


def _make_product(provider: str, rows: int, inputs: int, outputs: int, bits: int) -> Make:
    def make(device: torch.device) -> Call:
        x = random(rows, inputs, device=device, dtype=DTYPE)
        weight = random(outputs, inputs, device=device, dtype=DTYPE, seed=1)
        if provider == "torch":
            return lambda: functional.linear(x, weight)
        kept = datahall_kernels.quantise(weight, bits=bits, group=GROUP)
        return lambda: datahall_kernels.weight_only_linear(x, kept)

    return make


def _attentions(sequences: int, tokens: int) -> Iterator[Case]:
    around = 2 * DTYPE.itemsize * sequences * Q_HEADS * HEAD_DIM
    rows = 2 * sequences * tokens * KV_HEADS
    for kind, row_bytes in (
        (CacheKind.SAME, 2 * HEAD_DIM),
        (CacheKind.FP8, HEAD_DIM),
        (CacheKind.INT8, HEAD_DIM + 4),
    ):
        providers = (
            ("ours", "torch", *peers.names("paged_attention")) if kind is CacheKind.SAME else ("ours",)
        )
        yield Case(
            op=f"paged_attention_{kind}",
            passed="forward",
            shape=f"{sequences} x {tokens} tokens, {Q_HEADS}/{KV_HEADS} x {HEAD_DIM}",
            dtype=DTYPE,
            moved_bytes=around + rows * row_bytes,
            makers={provider: _make_attention(provider, sequences, tokens, kind) for provider in providers},
        )


def _make_attention(provider: str, sequences: int, tokens: int, kind: CacheKind) -> Make:
    def make(device: torch.device) -> Call:
        q = random(sequences, Q_HEADS, HEAD_DIM, device=device, dtype=DTYPE)
        most_pages = -(-tokens // 16)
        cache = PagedCache.empty(
            pages=sequences * most_pages,
            kv_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            dtype=DTYPE,
            device=device,
            kind=kind,
        )
        if kind is CacheKind.SAME:
            cache.keys.normal_()
            cache.values.normal_()
        order = torch.randperm(sequences * most_pages, generator=torch.Generator().manual_seed(1))
        pages = order.reshape(sequences, most_pages).int().to(device)
        lengths = torch.full((sequences,), tokens, dtype=torch.int32, device=device)
        if provider == "ours":
            return lambda: datahall_kernels.paged_attention(q, cache, pages=pages, lengths=lengths)
        if provider == "torch":
            # Torch has no attention over pages: over a cache in one piece, which needs no table.
            keys, values = (
                random(sequences, KV_HEADS, tokens, HEAD_DIM, device=device, dtype=DTYPE, seed=seed)
                for seed in (2, 3)
            )
            return lambda: functional.scaled_dot_product_attention(
                q[:, :, None], keys, values, enable_gqa=True
            )
        return peers.paged_attention(provider, q, cache.keys, cache.values, pages, lengths)

    return make


def _append(tokens: int) -> Case:
    heads = Q_HEADS + 2 * KV_HEADS
    # qkv in; q and the cache's rows out; a row of angles for each token.
    return Case(
        op="rope_append",
        passed="forward",
        shape=f"{tokens} tokens, {Q_HEADS}/{KV_HEADS} x {HEAD_DIM}",
        dtype=DTYPE,
        moved_bytes=2 * DTYPE.itemsize * tokens * heads * HEAD_DIM + 4 * tokens * HEAD_DIM,
        makers={provider: _make_append(provider, tokens) for provider in ("ours", "torch", "compile")},
    )


def _make_append(provider: str, tokens: int) -> Make:
    def make(device: torch.device) -> Call:
        qkv = random(tokens, Q_HEADS + 2 * KV_HEADS, HEAD_DIM, device=device, dtype=DTYPE)
        weight = random(HEAD_DIM, device=device, dtype=DTYPE, seed=1)
        angles = datahall_kernels.rotary_angles(4096, HEAD_DIM, device=device)
        positions = torch.arange(tokens, device=device)
        cache = PagedCache.empty(
            pages=tokens, kv_heads=KV_HEADS, head_dim=HEAD_DIM, dtype=DTYPE, device=device
        )
        slots = positions * 16

        def ours(*_: Tensor) -> Tensor:
            return datahall_kernels.rope_append(
                qkv,
                cache,
                positions=positions,
                slots=slots,
                angles=angles,
                q_weight=weight,
                k_weight=weight,
            )

        function = peers.chosen(provider, ours=ours, plain=_plain_append)
        return lambda: function(qkv, weight, angles, positions, slots, cache.keys, cache.values)

    return make


def _plain_append(
    qkv: Tensor,
    weight: Tensor,
    angles: Tensor,
    positions: Tensor,
    slots: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """What a model in plain torch does, op by op."""
    q, k, v = torch.split(qkv, [Q_HEADS, KV_HEADS, KV_HEADS], dim=1)
    cosine, sine = (half[:, None].to(qkv.dtype) for half in angles[positions].chunk(2, dim=-1))

    def turned(heads: Tensor) -> Tensor:
        normalised = functional.rms_norm(heads, heads.shape[-1:], weight, 1e-6)
        one, other = normalised.chunk(2, dim=-1)
        return torch.cat([one * cosine - other * sine, other * cosine + one * sine], dim=-1)

    page, place = slots // 16, slots % 16
    keys[page, :, place] = turned(k)
    values[page, :, place] = v
    return turned(q)
