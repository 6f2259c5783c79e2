"""A token for each row of logits: top-k, top-p and temperature, as servers are asked for them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import datahall_kernels
from kernel_bench import peers
from kernel_bench.cases import Call, Case, Make, random

LOGITS = ((1, 49_152), (64, 49_152), (1, 128_256), (64, 128_256))
"""Rows, tokens."""
TOP_K, TOP_P, TEMPERATURE = 50, 0.9, 0.8
DTYPE = torch.bfloat16


def cases() -> Iterator[Case]:
    """All of them, of bfloat16 logits."""
    for rows, tokens in LOGITS:
        yield Case(
            op="sample",
            passed="forward",
            shape=f"{rows} x {tokens}",
            dtype=DTYPE,
            moved_bytes=rows * tokens * DTYPE.itemsize,
            makers={
                provider: _make(provider, rows, tokens)
                for provider in ("ours", "torch", "compile", *peers.names("sampling"))
            },
        )


def _plain(logits: Tensor) -> Tensor:
    """What a server in plain torch does."""
    wide = logits.float() / TEMPERATURE
    ordered, tokens = wide.sort(dim=-1, descending=True)
    ordered[:, TOP_K:] = -torch.inf
    likely = ordered.softmax(dim=-1)
    before = likely.cumsum(dim=-1) - likely
    likely = likely.masked_fill(before >= TOP_P, 0.0)
    drawn = torch.multinomial(likely, 1)
    return tokens.gather(1, drawn)[:, 0]


def _make(provider: str, rows: int, tokens: int) -> Make:
    def make(device: torch.device) -> Call:
        logits = random(rows, tokens, device=device, dtype=DTYPE) * 3
        settings = {
            "seeds": torch.arange(rows, device=device),
            "offsets": torch.zeros(rows, dtype=torch.int64, device=device),
            "temperature": torch.full((rows,), TEMPERATURE, device=device),
            "top_k": torch.full((rows,), TOP_K, dtype=torch.int32, device=device),
            "top_p": torch.full((rows,), TOP_P, device=device),
        }

        def ours(logits: Tensor) -> Tensor:
            return datahall_kernels.sample(logits, **settings)[0]

        function = peers.chosen(
            provider, ours=ours, plain=_plain, peer=lambda _: peers.sample(TOP_K, TOP_P, TEMPERATURE)
        )
        return lambda: function(logits)

    return make
