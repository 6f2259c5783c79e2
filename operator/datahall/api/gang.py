"""The gang of a TrainingJob: how many workers it starts with, and how near each other they must be."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .common import Int, Rule, SpecModel


class TopologyLevel(StrEnum):
    """A part of the hall: hosts stand in racks, racks in blocks."""

    HOST = "host"
    RACK = "rack"
    BLOCK = "block"


class TopologyMode(StrEnum):
    """What to do where no one part has room."""

    PREFERRED = "Preferred"
    REQUIRED = "Required"


class Workers(SpecModel):
    """The gang: it starts with at least min workers, or not at all."""

    count: Annotated[Int, Field(ge=1, le=1024, examples=[2])] = 1
    """Worker pods. Without min, all of them must fit at once."""
    min: Annotated[Annotated[Int, Field(ge=1, le=1024)] | None, Field(examples=[1])] = None
    """Fewest workers to start with; where more fit it starts with more, up to count. Absent: count, all or nothing."""

    rules = (
        Rule(
            "!has(self.min) || self.min <= (has(self.count) ? self.count : 1)",
            "min must be at most count (1 if it is not set): it is the fewest workers that the gang starts with",
            lambda self: self.fewest <= self.count,
            field=".min",
        ),
    )

    @property
    def fewest(self) -> int:
        """The fewest workers that it starts with."""
        return self.count if self.min is None else self.min


class Topology(SpecModel):
    """How near each other all workers of the gang run. A node without a rack label is a rack of its own."""

    level: Annotated[TopologyLevel, Field(examples=["rack"])]
    """The part of the hall to keep all workers in: one host, one rack, or one block of racks (a network island)."""
    mode: Annotated[TopologyMode, Field(examples=["Required"])] = TopologyMode.PREFERRED
    """Preferred spreads over more where no one part has room; Required waits until one has."""
