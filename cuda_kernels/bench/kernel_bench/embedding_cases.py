"""Sums of a table's rows, as Wide & Deep looks its features up."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

import datahall_kernels
from kernel_bench import peers
from kernel_bench.cases import Call, Case, Make, passes, random

BAGS = ((1_000_000, 64, 8192, 20), (1_000_000, 256, 8192, 20))
"""Rows of the table, width, bags, entries of each."""
DTYPE = torch.float32


def cases() -> Iterator[Case]:
    """Forward, and with the gradient as rows and values, which is what such tables are trained with."""
    for rows, width, bags, each in BAGS:
        row = width * DTYPE.itemsize
        entries = bags * each
        # Forward: rows and indices in, bags out. The gradient: bags in, at most as many rows out.
        forward = (entries + bags) * row + 8 * (entries + bags)
        for passed, moved in (("forward", forward), ("full", 2 * forward)):
            yield Case(
                op="embedding_bag",
                passed=passed,
                shape=f"{bags} x {each} of {rows} x {width}",
                dtype=DTYPE,
                moved_bytes=moved,
                makers={
                    provider: _make(provider, passed, (rows, width, bags, each))
                    for provider in ("ours", "torch")
                },
            )


def _make(provider: str, passed: str, sizes: tuple[int, int, int, int]) -> Make:
    rows, width, bags, each = sizes

    def ours(table: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
        return datahall_kernels.embedding_bag(table, indices, offsets, sparse=True)

    def plain(table: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
        return functional.embedding_bag(indices, table, offsets, mode="sum", sparse=True)

    def make(device: torch.device) -> Call:
        table = random(rows, width, device=device, dtype=DTYPE, gradient=passed != "forward")
        generator = torch.Generator().manual_seed(1)
        # A few rows are looked up much more often than the others.
        indices = (torch.rand(bags * each, generator=generator) ** 4 * rows).long().to(device)
        offsets = torch.arange(0, bags * each, each, device=device)
        function = peers.chosen(provider, ours=ours, plain=plain)
        return passes(function, passed, (table,), indices, offsets)

    return make
