"""The line of waiting gangs: per queue, by priority, then age, then key; like gangs are kept together.

Gangs of one queue, namespace, priority and shape are a *kind*: what is said of the first of them is true of all, so
that thousands of like jobs cost one examination, and only what changes is ever told.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from datahall.planning.shape import Shape
from datahall.planning.types import GangRequest

SortKey = tuple[int, float, str]
"""Where a gang stands in its queue: smaller goes first."""


def sort_key(gang: GangRequest) -> SortKey:
    """Where a gang stands in its queue."""
    return -gang.priority, gang.created_seconds, gang.key


class KindKey(NamedTuple):
    """What gangs of one kind have in common."""

    queue: str
    namespace: str
    priority: int
    run_seconds: float | None
    preemptible: bool
    shape: Shape

    @classmethod
    def of(cls, gang: GangRequest) -> KindKey:
        """The kind of a gang."""
        return cls(
            gang.queue, gang.namespace, gang.priority, gang.run_seconds, gang.preemptible, Shape.of(gang)
        )


@dataclass(slots=True, eq=False)
class Kind:
    """Like gangs that wait.

    Attributes:
        key: What they have in common.
        line: Their places, in order.
        untold: Keys of gangs that were not told yet why they wait.
        told: The reason that was told last; "" for none.
    """

    key: KindKey
    line: list[SortKey] = field(default_factory=list)
    untold: set[str] = field(default_factory=set)
    told: str = ""


class WaitingLine:
    """Gangs that wait, kept in order as they come and go."""

    def __init__(self) -> None:
        self._gangs: dict[str, tuple[GangRequest, Kind]] = {}
        self._queues: dict[str, dict[KindKey, Kind]] = {}
        self._counts: dict[str, int] = {}

    def add(self, gang: GangRequest) -> bool:
        """Put a gang in line, or change it there; return whether anything changed."""
        before = self._gangs.get(gang.key)
        if before is not None:
            if before[0] == gang:
                return False
            self.remove(gang.key)
        key = KindKey.of(gang)
        kinds = self._queues.setdefault(gang.queue, {})
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = Kind(key)
        insort(kind.line, sort_key(gang))
        kind.untold.add(gang.key)
        self._gangs[gang.key] = (gang, kind)
        self._counts[gang.queue] = self._counts.get(gang.queue, 0) + 1
        return True

    def remove(self, key: str) -> GangRequest | None:
        """Take a gang out of the line; return it if it was there."""
        found = self._gangs.pop(key, None)
        if found is None:
            return None
        gang, kind = found
        del kind.line[bisect_left(kind.line, sort_key(gang))]
        kind.untold.discard(key)
        kinds = self._queues[gang.queue]
        if not kind.line:
            del kinds[kind.key]
        self._counts[gang.queue] -= 1
        if not self._counts[gang.queue]:
            del self._counts[gang.queue], self._queues[gang.queue]
        return gang

    def get(self, key: str) -> GangRequest | None:
        """A waiting gang by key."""
        found = self._gangs.get(key)
        return None if found is None else found[0]

    def kind(self, key: str) -> Kind | None:
        """The kind of a waiting gang."""
        found = self._gangs.get(key)
        return None if found is None else found[1]

    def kinds(self, queue: str) -> list[Kind]:
        """The kinds of gangs that wait in a queue."""
        return list(self._queues.get(queue, {}).values())

    def queues(self) -> list[str]:
        """Queues with waiting gangs, by name."""
        return sorted(self._queues)

    def count(self, queue: str) -> int:
        """How many gangs of a queue wait."""
        return self._counts.get(queue, 0)

    def position(self, key: str) -> int:
        """Place of a waiting gang among those of its queue; 1 is next."""
        gang = self._gangs[key][0]
        mine = sort_key(gang)
        return 1 + sum(bisect_left(kind.line, mine) for kind in self._queues[gang.queue].values())

    def __len__(self) -> int:
        return len(self._gangs)

    def __iter__(self) -> Iterator[GangRequest]:
        """All waiting gangs, in no particular order."""
        return (gang for gang, _ in self._gangs.values())
