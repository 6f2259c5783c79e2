"""Room that is kept in the hall for one gang: whose it is, from pass to pass.

There is one reservation. It goes to the first gang that is refused for the lack of room alone, in the order of turns,
and stays until that gang has started. Where small jobs keep the shares of other queues low, the first is never the
large gang of a queue with a larger share, and it would wait for as long as they come. So each new reservation is
counted against the heads of all other queues that wait for room, too; after a few of them the next is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datahall.planning.backfill import Reservation
from datahall.planning.books import Books
from datahall.planning.holds import Holds
from datahall.planning.judging import Judge
from datahall.planning.types import GangRequest
from datahall.planning.verdicts import Kept, Refusal
from datahall.planning.waiting import Kind, WaitingLine

MOST_TIMES = 4
"""How often room is reserved for others, at most, while a gang at the head of its queue waits for room."""


@dataclass(slots=True)
class _Waits:
    models: tuple[str, ...]
    times: int = 0


class Overtaken:
    """Gangs at the head of their queues that wait for room, and how often room was reserved for another meanwhile."""

    def __init__(self) -> None:
        self._waits: dict[str, _Waits] = {}

    def reserved(self, key: str, heads: Mapping[str, tuple[str, ...]]) -> None:
        """Note that room was reserved anew.

        Args:
            key: The gang that it was reserved for.
            heads: The first gang of each queue that waits for room alone, within nominal quota, with the GPU models
                that it waits for.
        """
        self._waits.pop(key, None)
        for head, models in heads.items():
            if head != key:
                waits = self._waits.setdefault(head, _Waits(models))
                waits.models = models
                waits.times += 1

    def next_in_turn(self) -> tuple[str, tuple[str, ...]] | None:
        """The gang that was overtaken most often, if that was often enough, and the GPU models it waits for."""
        key = max(self._waits, key=lambda key: self._waits[key].times, default=None)
        if key is None or self._waits[key].times < MOST_TIMES:
            return None
        return key, self._waits[key].models

    def forget(self, key: str) -> None:
        """A gang does not wait for room alone any more."""
        self._waits.pop(key, None)


class Reserver:
    """Decides for whom room is kept, for the length of one cycle."""

    def __init__(
        self,
        books: Books,
        line: WaitingLine,
        holds: Holds,
        judge: Judge,
        *,
        overtaken: Overtaken,
        last: Kept | None,
    ) -> None:
        """Begin.

        Args:
            books: The planner's memory.
            line: Who waits.
            holds: What is held for gangs for which others end: nothing is reserved for these.
            judge: What this pass knows; it binds others to the reservation.
            overtaken: Who was passed over in former passes; changed here.
            last: The reservation of the last pass.
        """
        self._books = books
        self._line = line
        self._holds = holds
        self._judge = judge
        self._overtaken = overtaken
        self._last = last
        self._heads: dict[str, tuple[Kind, GangRequest, Refusal]] = {}
        self._impossible: set[str] = set()

    def renew(self) -> None:
        """Keep the reservation of the last pass, if its gang still waits; else reserve for one who was overtaken."""
        last = self._last
        if last is not None and last.gang.key not in self._holds.of:
            kind = self._line.kind(last.gang.key)
            if kind is not None and kind.key == last.kind:
                # An older one of the kind may have come back since: it is the one that is asked about, and goes first.
                place = self._holds.next_of(kind)
                gang = self._line.get(last.gang.key if place is None else place[2])
                assert gang is not None, "a line names waiting gangs"
                if self._judge.reserve(kind.key, gang, last.model, previous=self._previous(last)):
                    return
        self._reserve_for_overtaken()

    def note_head(self, kind: Kind, gang: GangRequest, refusal: Refusal) -> None:
        """Note a gang that waits for room alone, within nominal quota: the first of its queue is its head."""
        self._heads.setdefault(gang.queue, (kind, gang, refusal))

    def reserve(self, kind: Kind, gang: GangRequest, refusal: Refusal) -> Refusal | None:
        """Reserve room, which is reserved for nobody now, for the first who was refused for want of it in this pass.

        That is not always the one that was refused last: the gang that had the reservation may just have started.

        Returns:
            Why the gang waits that room was reserved for, or None if that has not been asked in this pass.
        """
        if not self._reserve_for_overtaken():
            for first, head, why in (*self._heads.values(), (kind, gang, refusal)):
                if self._reserve_for(first, head, why.models_for_room()):
                    break
        kept = self._judge.kept
        known = (
            why
            for _, head, why in (*self._heads.values(), (kind, gang, refusal))
            if kept and head is kept.gang
        )
        return next(known, None)

    def give_up(self, gang: GangRequest) -> None:
        """It is not room that the gang waits for, that it was reserved for."""
        self._judge.kept = None
        self._overtaken.forget(gang.key)

    def count(self) -> None:
        """Count a new reservation against the heads that wait for room as well; once all of them were asked."""
        kept, last = self._judge.kept, self._last
        if kept is not None and (last is None or last.gang.key != kept.gang.key):
            heads = {gang.key: refusal.models_for_room() for _, gang, refusal in self._heads.values()}
            self._overtaken.reserved(kept.gang.key, heads)

    def _reserve_for_overtaken(self) -> bool:
        while (overtaken := self._overtaken.next_in_turn()) is not None:
            key, models = overtaken
            kind, gang = self._line.kind(key), self._line.get(key)
            if kind is not None and gang is not None and self._reserve_for(kind, gang, models):
                return True
            self._overtaken.forget(key)
        return False

    def _reserve_for(self, kind: Kind, gang: GangRequest, models: tuple[str, ...]) -> bool:
        key = gang.key
        if key in self._impossible or key in self._holds.of or self._line.get(key) is None:
            return False
        if any(self._judge.reserve(kind.key, gang, model, previous=None) for model in models):
            return True
        self._impossible.add(key)  # room only shrinks within a pass
        return False

    def _previous(self, kept: Kept) -> Reservation | None:
        """The reservation as it was, unless one of its columns is another node's by now."""
        nodes = self._books.hall.nodes
        columns = kept.reservation.columns
        if int(columns.max(initial=-1)) >= nodes.columns:
            return None
        names = tuple(nodes.name(column) for column in columns.tolist())
        return kept.reservation if names == kept.nodes else None
