"""What would move for a waiting gang: the words in which that is told. Nothing is decided here, and nothing held."""

from __future__ import annotations

from dataclasses import dataclass

TOLD_SECONDS = 120.0
"""How long a plan is told; as long as its gang waits at the head of its line, it is made anew before."""


@dataclass(frozen=True, slots=True)
class Move:
    """A held gang that would start again elsewhere.

    Attributes:
        name: The gang, "namespace/name".
        source: Nodes that it is on, in order of their names.
        target: Nodes that it would go to.
        gpu_seconds: What that costs: its work since its last checkpoint, and the restart.
    """

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    gpu_seconds: int


@dataclass(frozen=True, slots=True)
class MovePlan:
    """Who would move so that a waiting gang starts.

    Attributes:
        moves: Who, dearest first.
        gpu_seconds: What that costs, in all.
        due_seconds: When it is carried out, if nothing changes: when the gang has waited for as much, and no more gangs
            than the cap have moved within an hour. Seconds since the epoch.
        planned_seconds: When this was found out.
    """

    moves: tuple[Move, ...]
    gpu_seconds: int
    due_seconds: float
    planned_seconds: float

    def is_told(self, now_seconds: float) -> bool:
        """Whether it is young enough to be told."""
        return 0 <= now_seconds - self.planned_seconds <= TOLD_SECONDS
