"""Data-parallel gradients: added up over ranks while the backward pass still runs.

Own rather than DistributedDataParallel, because DDP lays its buckets out anew after the first iteration. With
more than two ranks the order in which a ring adds up a number depends on the number's place in its bucket, so
the first step after a restart would differ in the last bits from the same step of an unbroken run. Here the
layout is fixed. And gradients are summed, not averaged: divided by the global batch beforehand, they are right
for any number of samples on each rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from datahall_trainer.distributed import Group

_BUCKET_BYTES = 25 << 20
# Offsets in multiples of 64 bytes: vector instructions take the same path wherever a parameter lies.
_ALIGN_ELEMENTS = 16


class _Bucket:
    def __init__(self, parameters: list[Tensor]) -> None:
        offsets, size = [], 0
        for parameter in parameters:
            offsets.append(size)
            size += -(-parameter.numel() // _ALIGN_ELEMENTS) * _ALIGN_ELEMENTS
        self.flat = torch.zeros(size, dtype=torch.float32, device=parameters[0].device)
        for parameter, offset in zip(parameters, offsets, strict=True):
            parameter.grad = self.flat[offset : offset + parameter.numel()].view_as(parameter)
        self.count = len(parameters)
        self.missing = self.count


class Gradients:
    """Owns `.grad` of every trainable parameter, as views into a few flat buffers."""

    def __init__(self, parameters: Sequence[Tensor], group: Group) -> None:
        """Lays out the buckets, last parameter first: the order in which backward finishes them."""
        self._group = group
        self._buckets: list[_Bucket] = []
        self._launched = 0
        self._waits: list[Callable[[], None]] = []
        pending: list[Tensor] = []
        for parameter in reversed(parameters):
            pending.append(parameter)
            if sum(tensor.numel() for tensor in pending) * 4 >= _BUCKET_BYTES:
                self._add(pending)
                pending = []
        if pending:
            self._add(pending)

    def zero(self) -> None:
        """Begins a step; the views stay, so never set a gradient to None."""
        for bucket in self._buckets:
            bucket.flat.zero_()
            bucket.missing = bucket.count
        self._launched = 0

    def finish(self) -> None:
        """Waits until every gradient is the sum over all ranks.

        Raises:
            PeerLost: a rank went away.
        """
        # Parameters that this step did not use have called no hook.
        while self._launched < len(self._buckets):
            self._launch()
        for wait in self._waits:
            wait()
        self._waits.clear()

    def _add(self, parameters: list[Tensor]) -> None:
        bucket = _Bucket(parameters)
        self._buckets.append(bucket)

        def ready(_: Tensor) -> None:
            bucket.missing -= 1
            # In the order of the layout, so that all ranks begin the same all-reduce.
            while self._launched < len(self._buckets) and self._buckets[self._launched].missing == 0:
                self._launch()

        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(ready)  # type: ignore[no-untyped-call]

    def _launch(self) -> None:
        self._waits.append(self._group.sum_async(self._buckets[self._launched].flat))
        self._launched += 1
