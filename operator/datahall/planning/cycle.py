"""One pass of decisions: who starts, who waits and why, and who ends for whom.

The rules, each in one sentence:

* Queues take turns by their share of the hall over time; in a queue gangs go by priority, then age.
* What is within its queue's nominal quota goes before what has to be borrowed.
* A gang starts with as many workers as quota, power and hall allow, at least its minimum, or not at all.
* Quota: a waiting gang keeps what it needs from those behind it in its queue; a pool that a gang has to borrow from,
  and that is too small now, is lent to nobody else until it has started.
* Hall: for the first gang that waits for room alone, room is reserved; others pass only if that does not delay it. One
  for which that was never so, because other queues' turns came first, gets the next reservation (`reserving`).
* Who has the right to have others ended (`preempting`) gets their room held for it, and goes first until it starts.
* Where all that is missing is room in one piece, gangs move together (`moving`); where nobody waits, elastic gangs grow
  (`growing`).
* A gang that could not start even if every held gang ended (it waits for something outside the plan, such as a foreign
  pod or a cordoned node) keeps nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from datahall.planning.attainable import Attainable
from datahall.planning.books import Books
from datahall.planning.growing import grow
from datahall.planning.holds import Hold, Holds
from datahall.planning.judging import Judge
from datahall.planning.placing_messages import spread
from datahall.planning.preempting import RoomMaker
from datahall.planning.queues.turns import Turns
from datahall.planning.reserving import Overtaken, Reserver
from datahall.planning.scanning import Scan, Span
from datahall.planning.shape import Shape
from datahall.planning.types import (
    WHOLE_GPU_MILLI,
    Admit,
    Evict,
    GangRequest,
    Placement,
    WaitReason,
)
from datahall.planning.verdicts import HOPELESS, WAITS_FOR_ROOM, Fit, Kept, Refusal
from datahall.planning.waiting import Group, Kind, KindKey, SortKey, WaitingLine
from datahall.planning.within_quota import Units

HEADS = 2
"""How many kinds at the head of a queue may ask for others to be ended, in one pass."""


@dataclass(slots=True)
class Memory:
    """What one pass leaves for the next.

    Attributes:
        attainable: What the hall could ever hold.
        units: What a worker takes of a quota.
        overtaken: Who has been waiting for room while it was reserved for others.
        kept: The room that is reserved.
    """

    attainable: Attainable
    units: Units = field(default_factory=Units)
    overtaken: Overtaken = field(default_factory=Overtaken)
    kept: Kept | None = None


@dataclass(slots=True)
class Outcome:
    """What a pass decided.

    Attributes:
        started: Gangs that start, and evictions, in the order of decision.
        refused: Why gangs of a kind wait, for kinds that were looked at.
        spans: Why gangs of the other kinds of a group wait, in the order of the line.
        apart: Why single gangs wait for reasons of their own, by key.
        more: Whether it stopped early, because enough was decided for once.
        never_fits: Says of a shape that the empty hall does not hold it.
    """

    started: list[Admit | Evict] = field(default_factory=list)
    refused: dict[KindKey, Refusal] = field(default_factory=dict)
    spans: dict[Group, list[Span]] = field(default_factory=dict)
    apart: dict[str, Refusal] = field(default_factory=dict)
    more: bool = False
    never_fits: Callable[[Shape], Refusal] | None = None

    def refusal_of(self, kind: Kind) -> Refusal | None:
        """Why the gangs of a kind wait; None if they were not looked at."""
        found = self.refused.get(kind.key)
        spans = None if found is not None or kind.group is None else self.spans.get(kind.group)
        if not spans:
            return found
        place = kind.line[0]
        span = next((span for span in reversed(spans) if span.after < place), spans[0])
        if span.until is not None and place >= span.until:
            return None
        if span.refusal.reason is WaitReason.NEVER_FITS and self.never_fits is not None:
            return self.never_fits(kind.key.shape)  # the sentence is about this shape
        return span.refusal

    def all_hopeless(self) -> bool:
        """Whether everyone who waits waits for what no end of a gang would bring."""
        refusals = chain(self.refused.values(), (span.refusal for s in self.spans.values() for span in s))
        return all(refusal.reason in HOPELESS for refusal in refusals)


class Cycle:
    """One pass."""

    def __init__(
        self,
        books: Books,
        line: WaitingLine,
        holds: Holds,
        memory: Memory,
        *,
        now_seconds: float,
        most_starts: int,
    ) -> None:
        """Begin.

        Args:
            books: The planner's memory; admissions are entered there at once.
            line: Who waits; those admitted leave it.
            holds: What is held for gangs for which others end; changed here.
            memory: What the last passes left; changed here.
            now_seconds: The time, in seconds since the epoch.
            most_starts: How many gangs may start in one pass; the rest follows in the next.
        """
        self._books = books
        self._line = line
        self._holds = holds
        self._now = now_seconds
        self._most_starts = most_starts
        self._memory = memory
        self._judge = Judge(books, memory.attainable, memory.units, holds, now_seconds=now_seconds)
        self._maker = RoomMaker(books, self._judge, holds, now_seconds)
        self._reserver = Reserver(
            books, line, holds, self._judge, overtaken=memory.overtaken, last=memory.kept
        )
        self._heads: dict[str, int] = {}
        self._asking: dict[str, list[Kind]] = {}
        self._out = Outcome()

    def run(self) -> Outcome:
        """Decide."""
        self._serve_those_held_for()
        self._reserver.renew()
        attainable = self._memory.attainable
        self._line.group_up(attainable.traits, attainable.version)
        self._out.never_fits = self._judge.never_fits
        for name in self._line.queues():
            if self._books.tree.spec(name) is None:
                self._serve(self._line_up(name), None, may_borrow=True)
        scans: dict[str, Scan] = {}
        for may_borrow in (False, True):
            if may_borrow:
                self._reserver.count()
            waiting = [name for name in self._line.queues() if name not in scans or scans[name].is_open]
            turns = self._books.fairness.turns(waiting, self._now)
            while not self._out.more and (queue := turns.next_queue()) is not None:
                scan = scans.get(queue)
                if scan is None:
                    scan = scans[queue] = self._line_up(queue)
                if not self._serve(scan, turns, may_borrow=may_borrow):
                    turns.done(queue)
        self._make_more_room()
        if not self._out.more and self._out.all_hopeless():
            self._out.started += grow(self._books, self._judge, self._hold, now_seconds=self._now)
        self._memory.kept = self._judge.kept
        return self._out

    # ---- gangs that room is being made for

    def _serve_those_held_for(self) -> None:
        """They go first: the room was made for them, at a price."""
        holds, holdings, judge = self._holds, self._books.holdings, self._judge
        refused: dict[KindKey, Refusal] = {}
        if not holds.of:
            return
        judge.among_those_held_for(True)
        for key, hold in list(holds.of.items()):
            if hold.returns and holdings.get(key) is not None:
                continue  # it is still on its way out
            kind, gang = self._line.kind(key), self._line.get(key)
            if kind is None or gang is None or not hold.is_for(gang):
                self._give_up(hold)
                continue  # it was withdrawn, or asks for something else now
            waits = any(holdings.get(victim) is not None for victim in hold.victims)
            alike = refused.get(kind.key)
            if waits and alike is not None and not judge.may_fit(kind.key, hold):
                self._out.apart[key] = _making_room(hold, alike)
                continue
            self._give_up(hold)
            found = judge.judge(kind.key, gang, stay=hold.domain, holding=True)
            if isinstance(found, Fit):
                self._start(kind, gang, found, None)
            elif found is not None and (waits or judge.stands(kind.key, hold, found)):
                self._hold(hold)
                self._out.apart[key] = _making_room(hold, found)
                refused[kind.key] = found
        judge.among_those_held_for(False)

    def _hold(self, hold: Hold) -> None:
        before = self._holds.drop(self._books, hold.gang.key)
        if before is not None:
            self._judge.hold_back(before, -1)
        self._holds.add(self._books, hold)
        self._judge.hold_back(hold)

    def _give_up(self, hold: Hold) -> None:
        self._holds.drop(self._books, hold.gang.key)
        self._judge.hold_back(hold, -1)

    # ---- turns

    def _line_up(self, queue: str) -> Scan:
        """The line of a queue. Kinds for which something is held or reserved are looked at one by one."""
        keys = list(self._holds.of)
        if self._judge.kept is not None:
            keys.append(self._judge.kept.gang.key)
        known = dict.fromkeys(self._line.kind(key) for key in keys)
        kinds = [kind for kind in known if kind is not None and kind.key.queue == queue]
        return Scan(self._line, queue, [(kind, self._holds.next_of(kind)) for kind in kinds])

    def _serve(self, scan: Scan, turns: Turns | None, *, may_borrow: bool) -> bool:
        """Start the first gang of a queue that can start; whether one did.

        Where nothing may be borrowed, the first that would have to ends the queue's turns: nobody passes it.
        """
        judge = self._judge
        while (following := scan.pop()) is not None:
            place, group = following
            gang, kind = self._line.at(place)
            found = judge.judge(kind.key, gang, may_borrow=may_borrow)
            if not (isinstance(found, Refusal) and found.is_for_all_alike) and self._count(scan, place):
                # Those who were passed over keep something, too.
                found = judge.judge(kind.key, gang, may_borrow=may_borrow)
            if found is None:
                scan.push(place, group)
                scan.reopen(place)
                return False
            if isinstance(found, Fit):
                self._start(kind, gang, found, turns)
                if group is not None:
                    scan.go_on(place, group)
                elif kind.line:
                    scan.push(self._holds.next_of(kind))
                scan.reopen(place)
                return True
            self._refuse(kind, gang, found, within_nominal=not may_borrow)
            if group is None:
                continue
            if self._heads[gang.queue] >= HEADS and found.is_for_all_alike:
                span_or_none = scan.set_aside(place, group, kind, gang, found)
                if span_or_none is not None:
                    self._out.spans.setdefault(group, []).append(span_or_none)
            else:
                scan.go_on(place, group)
        return False

    def _count(self, scan: Scan, place: SortKey) -> bool:
        """Keep quota for kinds that were passed over and come before a place; whether there are any."""
        counted = False
        for span, kinds in scan.passed(place):
            self._judge.keep(span.kind.key, span.gang, span.refusal, kinds=kinds)
            counted = True
        return counted

    # ---- decisions

    def _start(self, kind: Kind, gang: GangRequest, fit: Fit, turns: Turns | None) -> None:
        shape = kind.key.shape
        placements = self._placements(fit, shape)
        held = self._books.holdings.take(gang, placements, self._now)
        self._line.remove(gang.key)
        self._judge.started(fit.placing.columns)
        self._judge.admitted(kind.key, gang, fit)
        if turns is None:
            self._books.fairness.admit(gang.queue, held.gpus, held.watts, self._now)
        else:
            turns.admitted(gang.queue, gpus=held.gpus, watts=held.watts)
        demand = shape.demand()
        told = spread(fit.placing, demand) if len(placements) > 1 or demand.level is not None else ""
        self._out.started.append(Admit(gang.key, placements, told))
        self._out.more = len(self._out.started) >= self._most_starts

    def _refuse(self, kind: Kind, gang: GangRequest, refusal: Refusal, *, within_nominal: bool) -> None:
        """Note why a kind waits, and do what helps its first gang."""
        queue = gang.queue
        made = None
        if self._heads.get(queue, 0) < HEADS:
            self._heads[queue] = self._heads.get(queue, 0) + 1
            made = self._maker.make_room(kind.key, gang, refusal)
        if isinstance(made, tuple):
            self._take_room(gang, refusal, made)
            self._asking.setdefault(queue, []).append(kind)
        elif made is not None:
            text = made
            refusal = refusal.with_beside(Refusal(refusal.reason, lambda: text))
        kept = self._judge.kept
        if made is None or isinstance(made, str):
            if within_nominal and refusal.reason in WAITS_FOR_ROOM:
                self._reserver.note_head(kind, gang, refusal)
            if kept is None and refusal.reason in WAITS_FOR_ROOM:
                why = self._reserver.reserve(kind, gang, refusal)
                kept = self._judge.kept
                if kept is not None and why is not None:
                    self._out.apart[kept.gang.key] = why.starting(kept.reservation, self._now)
            elif kept is not None and kept.gang.key == gang.key:
                if refusal.reason in WAITS_FOR_ROOM:
                    self._out.apart[gang.key] = refusal.starting(kept.reservation, self._now)
                else:
                    self._reserver.give_up(gang)
        if not isinstance(made, tuple) or len(kind.line) > 1:
            self._judge.keep(kind.key, gang, refusal)
        self._out.refused[kind.key] = refusal

    def _take_room(self, gang: GangRequest, refusal: Refusal, made: tuple[list[Hold], list[Evict]]) -> None:
        """Hold what others free for a gang, and end them."""
        holds, evicts = made
        for hold in holds:
            self._hold(hold)
        self._out.started += evicts
        self._out.apart[gang.key] = _making_room(holds[0], refusal)

    def _make_more_room(self) -> None:
        """Have others end for the next of those kinds that others end for already, too: one gang per queue in turn.

        Everyone who may ask has asked by now, so nobody has to wait for this. What is too much for one pass is left to
        the next.
        """
        queues = deque(self._asking)
        lines: dict[KindKey, Iterator[SortKey]] = {}  # nobody leaves a line here: each is gone through once
        while queues and not self._out.more:
            queue = queues.popleft()
            kinds = self._asking[queue]
            place = next(lines.setdefault(kinds[0].key, iter(kinds[0].line)), None)
            if place is not None and place[2] in self._holds.of:
                queues.appendleft(queue)
                continue
            if place is not None:
                if not self._maker.goes_on:
                    self._out.more = True
                    return
                gang = self._line.at(place)[0]
                refusal = self._judge.judge(kinds[0].key, gang)
                if isinstance(refusal, Refusal):
                    made = self._maker.make_room(kinds[0].key, gang, refusal, further=True)
                    if isinstance(made, tuple):
                        self._take_room(gang, refusal, made)
                        self._out.more = len(self._out.started) >= self._most_starts
                        queues.append(queue)
                        continue
            del kinds[0]
            if kinds:
                queues.appendleft(queue)

    def _placements(self, fit: Fit, shape: Shape) -> tuple[Placement, ...]:
        """Number the workers along the chosen nodes, and choose GPUs for shares: the fullest that holds one."""
        nodes = self._books.hall.nodes
        placements: list[Placement] = []
        for column, workers in zip(fit.placing.columns.tolist(), fit.placing.workers.tolist(), strict=True):
            name = nodes.name(column)
            cards = nodes.cards(column) if shape.shares else {}
            for _ in range(workers):
                card = _card(cards, shape.gpu_milli) if shape.shares else None
                if card is not None:
                    cards[card] = cards.get(card, 0) + shape.gpu_milli
                placements.append(Placement(len(placements), name, fit.model, card))
        return tuple(placements)


def _card(cards: dict[int, int], milli: int) -> int:
    """The fullest shared GPU that still holds a share, else a fresh one."""
    holding = [(used, -card) for card, used in cards.items() if used + milli <= WHOLE_GPU_MILLI]
    if holding:
        return -max(holding)[1]
    return next(number for number in range(len(cards) + 1) if number not in cards)


def _making_room(hold: Hold, refusal: Refusal) -> Refusal:
    return Refusal(WaitReason.MAKING_ROOM, lambda: hold.message, model=hold.model, beside=(refusal,))
