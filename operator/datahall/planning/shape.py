"""The shape of a gang: all that is judged about it, equal for gangs that fit or fail together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datahall.planning.placing import Demand
from datahall.planning.state import IntArray
from datahall.planning.types import WHOLE_GPU_MILLI, GangRequest, Level


class Shape(NamedTuple):
    """What is to be packed.

    Attributes:
        least: Workers without which nothing starts.
        workers: Workers that can be used.
        gpus: GPUs per worker.
        gpu_milli: Thousandths of each.
        cpu_milli: CPU thousandths per worker.
        memory_bytes: Bytes per worker.
        models: GPU models allowed, in order of preference; empty for any (and without GPUs).
        level: Level of which one domain is asked for, if any.
        required: Whether more than one will not do.
        avoid: Names of nodes that are ruled out.
    """

    least: int
    workers: int
    gpus: int
    gpu_milli: int
    cpu_milli: int
    memory_bytes: int
    models: tuple[str, ...]
    level: Level | None
    required: bool
    avoid: frozenset[str]

    @classmethod
    def of(cls, gang: GangRequest) -> Shape:
        """The shape of a gang."""
        least = gang.workers if gang.min_workers is None else gang.min_workers
        return cls(
            least,
            gang.workers,
            gang.gpus,
            gang.gpu_milli if gang.gpus else WHOLE_GPU_MILLI,
            gang.cpu_milli,
            gang.memory_bytes,
            gang.gpu_models if gang.gpus else (),
            gang.level,
            gang.required and gang.level is not None,
            gang.avoid_nodes,
        )

    @property
    def shares(self) -> bool:
        """Whether a worker takes a part of one GPU."""
        return self.gpus == 1 and self.gpu_milli < WHOLE_GPU_MILLI

    @property
    def amounts(self) -> tuple[int, int, int]:
        """What one worker takes at most: GPUs, CPU thousandths, bytes; a share may need a whole GPU opened."""
        return self.gpus, self.cpu_milli, self.memory_bytes

    @property
    def array(self) -> IntArray:
        """`amounts` as an array, [resource]."""
        return np.array(self.amounts, dtype=np.int64)

    @property
    def worker_gpu_milli(self) -> int:
        """GPU thousandths that one worker takes of a quota."""
        return self.gpus * self.gpu_milli

    def demand(self, most: int | None = None) -> Demand:
        """How many workers, how near to each other; at most `most`."""
        most = self.workers if most is None else most
        return Demand(self.least, most, self.level, self.required)
