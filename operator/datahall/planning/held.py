"""One gang that holds its place: what it holds, what it was charged, how it does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from datahall.planning.queues.spec import WATTS
from datahall.planning.state import IntArray
from datahall.planning.types import WHOLE_GPU_MILLI, GangProgress, GangRequest, Placement

GPU_FAMILY = "gpu_milli"
"""The family of quota resources for GPUs, counted in thousandths."""

_RESTART_SECONDS = 60.0
"""What a restart is taken to cost where nobody has measured it."""


@dataclass(slots=True, eq=False)
class Held:
    """A gang that holds its place.

    Attributes:
        gang: The gang.
        placements: Where its workers are.
        charges: What its queue is charged, by resource.
        node_watts: Watts reserved on each node.
        since_seconds: When it was taken into account first.
        gpus: GPUs held, shares as parts.
        departure: Its number among those who began to leave, from 0; -1 while it stays.
        progress: How it does, if that was told.
        columns: The columns that it holds something on, each once, [k].
        workers: How many workers it has there, [k].
        amounts: What it holds there but for shares of GPUs, [resource, k].
        row: Its place in `HeldArrays`; -1 while it has none.
    """

    gang: GangRequest
    placements: tuple[Placement, ...]
    charges: dict[str, int]
    node_watts: dict[str, int]
    since_seconds: float
    gpus: float
    departure: int = -1
    progress: GangProgress | None = None
    columns: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    workers: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    amounts: IntArray = field(default_factory=lambda: np.zeros((3, 0), dtype=np.int64))
    row: int = -1

    @property
    def leaving(self) -> bool:
        """Whether it is ending: its room comes free without anyone asking."""
        return self.departure >= 0

    @property
    def shares(self) -> bool:
        """Whether its workers take a part of one GPU each."""
        return self.gang.gpus == 1 and self.gang.gpu_milli < WHOLE_GPU_MILLI

    @property
    def watts(self) -> int:
        """Watts reserved."""
        return self.charges.get(WATTS, 0)

    @property
    def started_seconds(self) -> float:
        """When it started, as far as is known."""
        return self.since_seconds if self.progress is None else self.progress.started_seconds

    @property
    def saved_seconds(self) -> float:
        """Since when work would be done again."""
        saved = None if self.progress is None else self.progress.saved_seconds
        return self.started_seconds if saved is None else max(saved, self.started_seconds)

    @property
    def restart_seconds(self) -> float:
        """What starting it again takes."""
        return _RESTART_SECONDS if self.progress is None else self.progress.restart_seconds

    @property
    def end_seconds(self) -> float | None:
        """When it is expected to end; None if nobody knows."""
        if self.progress is not None and self.progress.end_seconds is not None:
            return self.progress.end_seconds
        run = self.gang.run_seconds
        return None if run is None else self.started_seconds + run

    @property
    def known_end_seconds(self) -> float:
        """`end_seconds`, infinite if nobody knows."""
        end = self.end_seconds
        return math.inf if end is None else end


def sum_watts(gangs: Iterable[Held]) -> dict[str, int]:
    """Watts that gangs have reserved together, by node."""
    found: dict[str, int] = {}
    for held in gangs:
        for node, watts in held.node_watts.items():
            found[node] = found.get(node, 0) + watts
    return found
