"""Cross-entropy over the vocabularies of small and of large language models, and with the linear layer before it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

import datahall_kernels
from kernel_bench import peers
from kernel_bench.cases import Call, Case, Make, passes, random

LOGITS = ((4096, 49_152), (4096, 128_256))
"""Rows, classes."""
LINEAR = ((8192, 576, 49_152), (8192, 2048, 128_256))
"""Rows, width, classes."""
DTYPE = torch.bfloat16


def cases() -> Iterator[Case]:
    """All of them, in bfloat16."""
    for rows, classes in LOGITS:
        size = rows * classes * DTYPE.itemsize
        # Both: logits in, their gradient out.
        for passed, tensors in (("forward", 1), ("full", 2)):
            yield Case(
                op="cross_entropy",
                passed=passed,
                shape=f"{rows} x {classes}",
                dtype=DTYPE,
                moved_bytes=tensors * size,
                makers={
                    name: _make(name, passed, rows, classes)
                    for name in ("ours", "torch", "compile", *peers.names("cross_entropy"))
                },
            )
    for rows, width, classes in LINEAR:
        inputs = DTYPE.itemsize * (rows * width + classes * width)
        yield Case(
            op="linear_cross_entropy",
            passed="full",
            shape=f"{rows} x {width} x {classes}",
            dtype=DTYPE,
            moved_bytes=2 * inputs,
            flops=6.0 * rows * width * classes,
            makers={
                name: _make_linear(name, rows, width, classes)
                for name in ("ours", "torch", "compile", *peers.names("linear_cross_entropy"))
            },
        )


def _targets(rows: int, classes: int, device: torch.device) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(1)).to(device)


def _make(provider: str, passed: str, rows: int, classes: int) -> Make:
    def make(device: torch.device) -> Call:
        logits = random(rows, classes, device=device, dtype=DTYPE, gradient=passed != "forward")
        targets = _targets(rows, classes, device)
        function = peers.chosen(
            provider, ours=datahall_kernels.cross_entropy, plain=functional.cross_entropy, peer=peers.loss
        )
        return passes(function, passed, (logits,), targets)

    return make


def _make_linear(provider: str, rows: int, width: int, classes: int) -> Make:
    def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(functional.linear(hidden, weight).float(), targets)

    def make(device: torch.device) -> Call:
        hidden = random(rows, width, device=device, dtype=DTYPE, gradient=True)
        weight = random(classes, width, device=device, dtype=DTYPE, seed=1, gradient=True)
        targets = _targets(rows, classes, device)
        function = peers.chosen(
            provider, ours=datahall_kernels.linear_cross_entropy, plain=plain, peer=peers.linear_loss
        )
        return passes(function, "full", (hidden, weight), targets)

    return make
