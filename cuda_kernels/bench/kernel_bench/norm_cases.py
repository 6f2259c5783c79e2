"""The norms: widths of our models and of large ones, many rows and few."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

import datahall_kernels
from kernel_bench import peers
from kernel_bench.cases import Call, Case, Make, passes, random

EPSILON = 1e-6
WIDTHS = (
    (4096, 384),
    (4096, 576),
    (4096, 768),
    (4096, 4096),
    (4096, 8192),
    (4096, 16384),
    (1, 4096),
    (512, 4096),
)


def cases() -> Iterator[Case]:
    """RMSNorm and LayerNorm, forward, backward and both; and the sum with a residual, forward."""
    for rows, width in WIDTHS:
        for dtype in (torch.bfloat16, torch.float32):
            size = rows * width * dtype.itemsize
            for op in ("rms_norm", "layer_norm"):
                # Backward: x and dy in, dx out.
                for passed, tensors in (("forward", 2), ("backward", 3), ("full", 5)):
                    makers = {name: _make(op, name, passed, rows, width, dtype) for name in _providers(op)}
                    yield Case(
                        op=op,
                        passed=passed,
                        shape=f"{rows} x {width}",
                        dtype=dtype,
                        moved_bytes=tensors * size,
                        makers=makers,
                    )
            yield Case(
                op="add_rms_norm",
                passed="forward",
                shape=f"{rows} x {width}",
                dtype=dtype,
                moved_bytes=4 * size,
                makers={name: _make_added(name, rows, width, dtype) for name in ("ours", "torch", "compile")},
            )


def _providers(op: str) -> tuple[str, ...]:
    return ("ours", "torch", "compile", *peers.names(op))


def _ours(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return datahall_kernels.rms_norm(x, weight, EPSILON)
    return datahall_kernels.layer_norm(x, weight, bias, EPSILON)


def _torch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return functional.rms_norm(x, x.shape[-1:], weight, EPSILON)
    return functional.layer_norm(x, x.shape[-1:], weight, bias, EPSILON)


def _make(op: str, provider: str, passed: str, rows: int, width: int, dtype: torch.dtype) -> Make:
    def make(device: torch.device) -> Call:
        gradient = passed != "forward"
        x = random(rows, width, device=device, dtype=dtype, gradient=gradient)
        weight = random(width, device=device, dtype=dtype, seed=1, gradient=gradient)
        bias = (
            random(width, device=device, dtype=dtype, seed=2, gradient=gradient)
            if op == "layer_norm"
            else None
        )
        function = peers.chosen(provider, ours=_ours, plain=_torch, peer=partial(peers.norm, op, EPSILON))
        if bias is None:
            return passes(lambda x, weight: function(x, weight, None), passed, (x, weight))
        return passes(function, passed, (x, weight, bias))

    return make


def _make_added(provider: str, rows: int, width: int, dtype: torch.dtype) -> Make:
    def plain(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        summed = x + residual
        return functional.rms_norm(summed, summed.shape[-1:], weight, EPSILON), summed

    def ours(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return datahall_kernels.rms_norm(x, weight, EPSILON, residual=residual)

    def make(device: torch.device) -> Call:
        x, residual = (random(rows, width, device=device, dtype=dtype, seed=seed) for seed in (0, 1))
        weight = random(width, device=device, dtype=dtype, seed=2)
        function = peers.chosen(provider, ours=ours, plain=plain)
        return lambda: function(x, residual, weight)

    return make
