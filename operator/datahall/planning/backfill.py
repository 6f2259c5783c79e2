"""EASY backfill: when the oldest blocked gang starts if running gangs end as expected, and who may go ahead of it.

A reservation is a time, the columns where the gang starts then, and what others may use there beyond that time. A job
may go ahead if it ends before, or takes no more than is spare: however many do, the gang starts no later, as long as
ends are kept (Mu'alem and Feitelson, IEEE TPDS 12(6), 2001, with columns and topology in place of a count of nodes).

Estimates fail, so three things are true whether ends are kept or not:

* Of a gang whose end is not known, it is never said when it ends. If the reservation needs it, it has no time, and
  nobody may go ahead on its columns for being short.
* A gang that has outlived its estimate is expected to last as long again as it is overdue: one that has just missed
  it is about to end, one that is stuck is waited for no longer than it takes to see that.
* The reservation cannot be put off for ever. From cycle to cycle it stays where it is, and what others may use is up
  to the time that was promised, not up to the time to which that has slipped. It is put off, there or to elsewhere,
  only when the gang has waited twice as long as the last time; in between its columns only empty. So with estimates
  up to L ahead and jobs up to D long, whatever the estimates say, it starts within 3 (L + D).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from datahall.planning.placing import Demand, NoPlace, Placing, holds, place
from datahall.planning.state import BoolArray, IntArray
from datahall.planning.topology import FloatArray, Topology


@dataclass(frozen=True, slots=True)
class RunningGang:
    """A gang that holds its place.

    Attributes:
        name: Its name, for people.
        end_seconds: When it is expected to end, from its measured step rate, in seconds since the epoch; None if
            nobody knows.
        columns: Columns that it holds something on, [k]; a column may occur more than once.
        amounts: What it holds there, [resource, k].
    """

    name: str
    end_seconds: float | None
    columns: IntArray
    amounts: IntArray


@dataclass(frozen=True, slots=True)
class RunningGangs:
    """All of them, as arrays: what they hold changes rarely, and is best kept; when they end changes always.

    Attributes:
        names: Their names, [gang].
        end_seconds: When each is expected to end, [gang]; infinite if nobody knows.
        gang: The gang of each entry, [entry].
        columns: The column of each entry, [entry].
        amounts: What is held there, [resource, entry].
    """

    names: Sequence[str]
    end_seconds: FloatArray
    gang: IntArray
    columns: IntArray
    amounts: IntArray

    @classmethod
    def of(cls, gangs: Sequence[RunningGang], resources: int) -> RunningGangs:
        """The arrays of some gangs.

        Args:
            gangs: The gangs.
            resources: How many resources are accounted.
        """
        sizes = [len(gang.columns) for gang in gangs]
        none = np.zeros((resources, 0), dtype=np.int64)
        return cls(
            names=[gang.name for gang in gangs],
            end_seconds=np.array([math.inf if g.end_seconds is None else g.end_seconds for g in gangs]),
            gang=np.repeat(np.arange(len(gangs)), sizes),
            columns=np.concatenate([none[0], *(gang.columns for gang in gangs)]),
            amounts=np.concatenate([none, *(gang.amounts for gang in gangs)], axis=1),
        )


@dataclass(frozen=True, slots=True)
class Need:
    """What the blocked gang needs.

    Attributes:
        demand: How many workers, how near. Room is reserved for `least`.
        amounts: What one worker takes, [resource].
        eligible: Columns where its workers may run, [column].
    """

    demand: Demand
    amounts: IntArray
    eligible: BoolArray

    def slots(self, free: IntArray) -> IntArray:
        """Workers that fit each column, at most `least`, [column], where `free` is free, [resource, column]."""
        slots: IntArray = np.where(self.eligible, self.demand.least, 0).astype(np.int64)
        for available, amount in zip(free, self.amounts.tolist(), strict=True):
            if amount > 0:
                np.minimum(slots, available // amount, out=slots)
        return slots.clip(0, out=slots)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room that is kept for the blocked gang.

    Attributes:
        at_seconds: When it starts if running gangs end as expected, in seconds since the epoch; None if it needs a
            gang to end of which nobody knows when.
        promised_seconds: The time that others have to respect: the earliest that was told, unless it was put off.
            Never later than `at_seconds`. None if no time is known.
        columns: Columns where it starts, in the order of the tree, [k].
        workers: Workers on each, [k].
        spare: What others may use for long on those columns, [resource, k]; never negative.
        last: Name of the gang that ends last of those it needs to end; None if it fits now.
        since_seconds: When room was kept for it first.
        firm_until_seconds: It is not put off before.
        slips: How often it was put off.
        overdue: Whether the last gang has outlived its estimate.
    """

    at_seconds: float | None
    promised_seconds: float | None
    columns: IntArray
    workers: IntArray
    spare: IntArray
    last: str | None
    since_seconds: float
    firm_until_seconds: float
    slips: int = 0
    overdue: bool = False

    def passes(self, end_seconds: float | None) -> bool:
        """Whether a job that ends then ends early enough to use what is reserved; None for an end nobody knows."""
        return (
            end_seconds is not None
            and self.promised_seconds is not None
            and end_seconds <= self.promised_seconds
        )

    def usable(self, free: IntArray, end_seconds: float | None) -> IntArray:
        """What a job may use, so that any placing in it is allowed, [resource, column].

        Args:
            free: What is free now, [resource, column].
            end_seconds: When the job would end if it started now; None if nobody knows.
        """
        if self.passes(end_seconds):
            return free
        usable = free.copy()
        usable[:, self.columns] = np.minimum(usable[:, self.columns], self.spare)
        return usable

    def allows(self, placing: Placing, end_seconds: float | None, amounts: IntArray) -> bool:
        """Whether a job may go ahead of the gang.

        Args:
            placing: Where its workers would go.
            end_seconds: When it would end; None if nobody knows.
            amounts: What one of its workers takes, [resource].
        """
        return self.passes(end_seconds) or bool((self._taken(placing, amounts) <= self.spare).all())

    def after(self, placing: Placing, end_seconds: float | None, amounts: IntArray) -> Reservation:
        """The reservation once a job that it allows has started. Without this, two jobs could use the same spare."""
        if self.passes(end_seconds):
            return self
        return replace(self, spare=self.spare - self._taken(placing, amounts))

    def _taken(self, placing: Placing, amounts: IntArray) -> IntArray:
        """What a job takes of the reserved columns, [resource, k]."""
        _, mine, theirs = np.intersect1d(
            self.columns, placing.columns, assume_unique=True, return_indices=True
        )
        taken = np.zeros_like(self.spare)
        taken[:, mine] = amounts[:, None] * placing.workers[theirs]
        return taken


@dataclass(frozen=True, slots=True)
class _Found:
    """A time at which the gang fits.

    Attributes:
        at: When; infinite if not known.
        free: What is free then, [resource, column].
        ends: How many ends it takes, in the order of ends.
    """

    at: float
    free: IntArray
    ends: int


def reserve(
    topology: Topology,
    free: IntArray,
    running: RunningGangs,
    need: Need,
    *,
    now_seconds: float,
    previous: Reservation | None = None,
) -> Reservation | NoPlace:
    """Keep room for a blocked gang at the earliest time at which it fits.

    Args:
        topology: The tree.
        free: What is free now, [resource, column]; negative where over-committed.
        running: The gangs that will end.
        need: What the blocked gang needs.
        now_seconds: The present, in seconds since the epoch.
        previous: Its reservation in the last cycle, if there was one: it stays there unless another place is earlier
            than was promised, or, where it may be put off, halves what is left to wait.

    Returns:
        The reservation, or why it would not fit even if all running gangs had ended. Then nothing is kept for it.
    """
    ends = _Ends(running, free, now_seconds)
    demand = replace(need.demand, most=need.demand.least)
    best = ends.first(lambda then: holds(topology, need.slots(then), demand))
    if best is None:
        refusal = place(topology, need.slots(ends.free_after(len(running.names))), demand)
        assert isinstance(refusal, NoPlace), "nothing holds it"
        return refusal
    choice = _Choice(best, best.at, now_seconds, now_seconds, 0)
    if previous is not None:
        caps = np.zeros(free.shape[1], dtype=np.int64)
        caps[previous.columns] = previous.workers
        kept = ends.first(lambda then: holds(topology, np.minimum(need.slots(then), caps), demand))
        choice = _choose(best, kept, previous, now_seconds)
    found = choice.found
    slots = need.slots(found.free)
    if previous is not None and found is not best:
        slots = np.minimum(slots, caps)
    placing = place(topology, slots, demand, cost=need.slots(free).astype(np.float64))
    assert isinstance(placing, Placing), "it holds what fits"
    last = ends.last(found.ends, placing.columns)
    return Reservation(
        at_seconds=_known(found.at),
        promised_seconds=_known(choice.promised),
        columns=placing.columns,
        workers=placing.workers,
        spare=(found.free[:, placing.columns] - need.amounts[:, None] * placing.workers).clip(0),
        last=None if last is None else running.names[last],
        since_seconds=choice.since,
        firm_until_seconds=choice.firm_until,
        slips=choice.slips,
        overdue=last is not None and bool(running.end_seconds[last] < now_seconds),
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """Where and when, and what is promised; the words of `Reservation`, with infinity for what nobody knows."""

    found: _Found
    promised: float
    since: float
    firm_until: float
    slips: int


def _choose(best: _Found, kept: _Found | None, previous: Reservation, now: float) -> _Choice:
    """Keep the place of the last cycle, or leave it for the best one."""
    since, firm_until, slips = previous.since_seconds, previous.firm_until_seconds, previous.slips
    if kept is None:
        return _Choice(best, best.at, since, firm_until, slips)
    promised = math.inf if previous.promised_seconds is None else previous.promised_seconds
    may_slip = now >= firm_until
    worth = best.at < promised or (may_slip and best.at - now <= (kept.at - now) / 2)
    moves = best.at < kept.at and worth
    found = best if moves else kept
    if found.at > promised and may_slip and (moves or now >= promised):
        return _Choice(found, found.at, since, 2 * now - since, slips + 1)
    return _Choice(found, min(promised, found.at), since, firm_until, slips)


def _known(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


class _Ends:
    """Running gangs by their ends; those without a known end last, small ones first."""

    def __init__(self, running: RunningGangs, free: IntArray, now_seconds: float) -> None:
        gangs = len(running.names)
        sizes = np.bincount(running.gang, minlength=gangs)
        overdue = np.maximum(now_seconds - running.end_seconds, 0.0)
        ends = np.maximum(running.end_seconds, now_seconds) + overdue
        self._now = now_seconds
        self._free = free
        self._gangs = np.lexsort((sizes, ends))
        self._ends = ends[self._gangs]
        self._until = np.concatenate([[0], np.cumsum(sizes[self._gangs])])
        position = np.empty(gangs, dtype=np.int64)
        position[self._gangs] = np.arange(gangs)
        entries = np.argsort(position[running.gang], kind="stable")
        self._columns = running.columns[entries]
        self._amounts = running.amounts[:, entries]

    def free_after(self, ends: int) -> IntArray:
        """What is free once that many gangs have ended, [resource, column]."""
        until = int(self._until[ends])
        columns = self._columns[:until]
        width = self._free.shape[1]
        freed = [np.bincount(columns, row[:until], minlength=width) for row in self._amounts]
        return self._free + np.array(freed).astype(np.int64)

    def first(self, fits: Callable[[IntArray], bool]) -> _Found | None:
        """The earliest time at which something fits, in O(log R) looks: more ends never make it fit worse."""
        total = len(self._ends)
        low, high, step = -1, 0, 1
        while not fits(self.free_after(high)):
            if high == total:
                return None
            low, high, step = high, min(high + step, total), 2 * step
        while high - low > 1:
            middle = (low + high) // 2
            if fits(self.free_after(middle)):
                high = middle
            else:
                low = middle
        if high == 0:
            return _Found(self._now, self._free, 0)
        at = float(self._ends[high - 1])
        if math.isfinite(at):
            high = int(np.searchsorted(self._ends, at, side="right"))
        return _Found(at, self.free_after(high), high)

    def last(self, ends: int, columns: IntArray) -> int | None:
        """Of the first gangs to end, the last that holds something on some columns."""
        wanted = np.isin(self._columns[: int(self._until[ends])], columns)
        where = np.flatnonzero(wanted)
        if len(where) == 0:
            return None
        return int(self._gangs[int(np.searchsorted(self._until, where[-1], side="right")) - 1])
