"""One step of AdamW for all tensors of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

import datahall_kernels
from kernel_bench.cases import Call, Case, Make, random

LAYERS = 12
SHAPES = ((2304, 768), (2304,), (768, 768), (768,), (3072, 768), (3072,), (768, 3072), (768,), (768,), (768,))
"""Tensors of one layer."""
EMBEDDING = (50_257, 768)
STATE_BITS: tuple[Literal[8, 32], ...] = (32, 8)


def cases() -> Iterator[Case]:
    """A model of GPT-2's size in float32: 124 million parameters in 121 tensors."""
    shapes = [EMBEDDING, *(shape for _ in range(LAYERS) for shape in SHAPES)]
    count = sum(torch.Size(shape).numel() for shape in shapes)
    for bits in STATE_BITS:
        # The parameter and both states in and out, the gradient in; of 8 bits, a float32 scale for 256 of each state.
        state = 4.0 if bits == 32 else 1.0 + 4 / 256
        providers = ("ours", "torch", "foreach") if bits == 32 else ("ours",)
        yield Case(
            op=f"adamw_{bits}bit",
            passed="full",
            shape=f"{count} in {len(shapes)} tensors",
            dtype=torch.float32,
            moved_bytes=count * (2 * 4 + 4 + 4 * state),
            makers={provider: _make(provider, bits, shapes) for provider in providers},
        )


def _make(provider: str, bits: Literal[8, 32], shapes: Sequence[tuple[int, ...]]) -> Make:
    def make(device: torch.device) -> Call:
        parameters = [random(*shape, device=device, dtype=torch.float32, gradient=True) for shape in shapes]
        for parameter in parameters:
            parameter.grad = random(*parameter.shape, device=device, dtype=torch.float32, seed=1)
        if provider == "ours":
            return datahall_kernels.AdamW(parameters, lr=1e-4, state_bits=bits).step
        fused = provider == "torch"
        return torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=fused, foreach=not fused).step

    return make
