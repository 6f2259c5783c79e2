"""The line of one queue in one pass: what is still to be served, first things first, however long it is.

Where quota has refused the first kind of a group, it refuses the others too, as long as nobody starts: they are set
aside, and cost nothing. Once somebody starts, they come back, from that place in line on. So a pass costs what it
decides on, and the number of groups; every judgement is the one that asking each kind in turn would give, because what
those passed over keep of the quota is counted, too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from datahall.planning.types import GangRequest
from datahall.planning.verdicts import Refusal
from datahall.planning.waiting import Group, Kind, SortKey, WaitingLine


@dataclass(slots=True, eq=False)
class Span:
    """Kinds of a group that were refused without being looked at.

    Attributes:
        group: The group.
        kind: The kind that was looked at.
        gang: Its first gang.
        refusal: Why that one waits, and so all of them.
        after: They come after this place in line.
        until: And before this one; None for the end of the line.
        seen: Up to where they were counted.
    """

    group: Group
    kind: Kind
    gang: GangRequest
    refusal: Refusal
    after: SortKey
    until: SortKey | None
    seen: SortKey


class Scan:
    """What of one queue is still to be served."""

    def __init__(self, line: WaitingLine, queue: str, alone: Iterable[tuple[Kind, SortKey | None]]) -> None:
        """Begin with everyone.

        Args:
            line: Who waits, in groups.
            queue: The queue.
            alone: Kinds that are looked at one by one, whatever their group, with their first place that is to be
                served; None for nobody.
        """
        self._line = line
        self._alone = dict(alone)
        self._heap: list[tuple[SortKey, Group | None]] = []
        self._aside: list[Span] = []
        for group in line.groups(queue):
            place = self._next(group, None)
            if place is not None:
                self._heap.append((place, group))
        self._heap += [(place, None) for place in self._alone.values() if place is not None]
        heapify(self._heap)

    @property
    def is_open(self) -> bool:
        """Whether anyone is still to be served."""
        return bool(self._heap)

    def pop(self) -> tuple[SortKey, Group | None] | None:
        """The next place in line, and the group that it stands for, if any; None at the end."""
        return heappop(self._heap) if self._heap else None

    def push(self, place: SortKey | None, group: Group | None = None) -> None:
        """Have a place served later."""
        if place is not None:
            heappush(self._heap, (place, group))

    def go_on(self, place: SortKey, group: Group) -> None:
        """Have the next kind of a group served."""
        self.push(self._next(group, place), group)

    def set_aside(
        self, place: SortKey, group: Group, kind: Kind, gang: GangRequest, refusal: Refusal
    ) -> Span | None:
        """Pass over the rest of a group; None if there is none."""
        if self._next(group, place) is None:
            return None
        span = Span(group, kind, gang, refusal, place, None, place)
        self._aside.append(span)
        return span

    def passed(self, place: SortKey) -> Iterator[tuple[Span, int]]:
        """How many kinds of each group that is set aside come before a place, and were not counted yet."""
        for span in self._aside:
            if span.seen < place:
                number = self._between(span.group, span.seen, place)
                span.seen = place
                if number:
                    yield span, number

    def reopen(self, place: SortKey) -> None:
        """Something has changed at a place in line: those set aside are served again from there on."""
        for span in self._aside:
            span.until = place
            self.go_on(place, span.group)
        self._aside = []

    def _next(self, group: Group, after: SortKey | None) -> SortKey | None:
        order = group.order
        at = 0 if after is None else bisect_right(order, after)
        while self._alone and at < len(order) and self._line.at(order[at])[1] in self._alone:
            at += 1
        return order[at] if at < len(order) else None

    def _between(self, group: Group, after: SortKey, before: SortKey) -> int:
        number = bisect_left(group.order, before) - bisect_right(group.order, after)
        return number - sum(
            kind.group is group and bool(kind.line) and after < kind.line[0] < before for kind in self._alone
        )
