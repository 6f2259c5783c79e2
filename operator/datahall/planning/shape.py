"""The shape of a gang: all that packing needs to know, equal for gangs that fit or fail together."""

from __future__ import annotations

from typing import NamedTuple

from datahall.planning.types import GangRequest


class Shape(NamedTuple):
    """What is to be packed.

    Attributes:
        workers: How many equal workers.
        gpus: Whole GPUs per worker.
        cpu_milli: CPU thousandths per worker.
        memory_bytes: Bytes per worker.
        models: GPU models allowed, in order of preference; empty for any (and without GPUs).
        avoid: Names of nodes that are ruled out.
    """

    workers: int
    gpus: int
    cpu_milli: int
    memory_bytes: int
    models: tuple[str, ...]
    avoid: frozenset[str]

    @classmethod
    def of(cls, gang: GangRequest) -> Shape:
        """The shape of a gang."""
        models = gang.gpu_models if gang.gpus > 0 else ()
        return cls(gang.workers, gang.gpus, gang.cpu_milli, gang.memory_bytes, models, gang.avoid_nodes)

    @property
    def amounts(self) -> tuple[int, int, int]:
        """What one worker takes: GPUs, CPU thousandths, bytes."""
        return self.gpus, self.cpu_milli, self.memory_bytes

    @property
    def all_gpus(self) -> int:
        """What the whole gang takes of a quota."""
        return self.workers * self.gpus
