"""The line of waiting gangs: by priority, then by age, then by key, so that the order is total and stable."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator

from datahall.planning.shape import Shape
from datahall.planning.types import GangRequest

_SortKey = tuple[int, float, str]


def sort_key(gang: GangRequest) -> _SortKey:
    """Where a gang stands: smaller goes first."""
    return -gang.priority, gang.created_seconds, gang.key


class WaitingLine:
    """Gangs that wait, kept in order as they come and go."""

    def __init__(self) -> None:
        self._gangs: dict[str, tuple[GangRequest, Shape]] = {}
        self._order: list[_SortKey] = []
        self._per_queue: Counter[str] = Counter()

    def add(self, gang: GangRequest) -> bool:
        """Put a gang in line, or change it there; return whether anything changed."""
        before = self._gangs.get(gang.key)
        if before is not None:
            if before[0] == gang:
                return False
            self.remove(gang.key)
        self._gangs[gang.key] = (gang, Shape.of(gang))
        self._per_queue[gang.queue] += 1
        insort(self._order, sort_key(gang))
        return True

    def remove(self, key: str) -> GangRequest | None:
        """Take a gang out of the line; return it if it was there."""
        found = self._gangs.pop(key, None)
        if found is None:
            return None
        gang = found[0]
        self._per_queue[gang.queue] -= 1
        del self._order[bisect_left(self._order, sort_key(gang))]
        return gang

    def remove_all(self, keys: set[str]) -> None:
        """Take many gangs out of the line in one pass."""
        if keys:
            for key in keys:
                gang, _ = self._gangs.pop(key)
                self._per_queue[gang.queue] -= 1
            self._order = [entry for entry in self._order if entry[2] not in keys]

    def get(self, key: str) -> GangRequest | None:
        """A waiting gang by key."""
        found = self._gangs.get(key)
        return None if found is None else found[0]

    def count(self, queue: str) -> int:
        """How many gangs of a queue wait."""
        return self._per_queue[queue]

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[tuple[GangRequest, Shape]]:
        """Gangs with their shapes, first in line first. The line must not change meanwhile."""
        gangs = self._gangs
        for entry in self._order:
            yield gangs[entry[2]]
