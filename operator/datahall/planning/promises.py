"""What is held for gangs, against what those who leave give back: how much of it the others may not touch.

While a gang waits for those who end for it, both count: what is held for it and what they still have. Others that
something is held for may start meanwhile, where what leaves anyway covers the rest. They must not start on what was
freed for somebody else, who would then wait for gangs that never ended for it. So those who begin to leave are
numbered, a hold knows on which of them it counts, and what these give back is its own before it is anybody else's.

A gang that something is held for starts once those it counts on have gone, whoever else starts or stays: nobody starts
who would bring what is in use, and what is `lacking` beside it, above what there is; and whenever somebody goes, what
is in use falls at least by what lacking grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from datahall.planning.state import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """What gangs have or get, in entries of one gang in one slot; where there are several, their sum counts.

    Attributes:
        slots: Where, [entry]. A slot is what has limits of its own: a node, a power domain.
        amounts: How much, [resource, entry].
        gangs: The gang's number, [entry].
    """

    slots: IntArray
    amounts: IntArray
    gangs: IntArray


class Promises:
    """All that is held, while nobody begins to leave and nobody goes.

    Departures fall into spans: those who left for one and the same gang, and those in between. What a span gives back
    is first for holds that count on it alone; the rest is carried on, for those that count on all up to theirs. As what
    holds count on is nested or apart, no other way to share it out would leave less lacking.
    """

    def __init__(self, counts_on: Mapping[str, range], held: Entries, leaving: Entries) -> None:
        """Begin.

        Args:
            counts_on: On which departures each hold counts, by the key of its gang: on those who end for it, or on all
                from 0 up to them.
            held: What is held, by the places of gangs in `counts_on`, ascending.
            leaving: What those who leave have, by their departures; slots where nothing is held do not matter.
        """
        starts, stops = np.array([(each.start, each.stop) for each in counts_on.values()]).reshape(-1, 2).T
        # Departures are in spans 1, 2, ...: span 0 stays empty, and is of those who count on nobody.
        begins = np.unique(np.concatenate([[0], starts, stops]).astype(np.int64))
        spans = len(begins) + 1
        span_of_hold = begins.searchsorted(np.where(starts < stops, stops - 1, -1), "right")
        matters = np.isin(leaving.slots, held.slots)
        comes = leaving.slots[matters] * spans + begins.searchsorted(leaving.gangs[matters], "right")
        goes = held.slots * spans + span_of_hold[held.gangs]
        found, steps = np.unique(np.concatenate([comes, goes]), return_inverse=True)
        slot_of = found // spans
        # A step is a span in a slot; those of a slot follow each other. By slot: its first step, and how many it has.
        self._first = np.flatnonzero(np.diff(slot_of, prepend=-1))
        self._steps = np.diff(self._first, append=len(found))
        # The last is no slot: it is found for those that are not there.
        self._slots: IntArray = np.append(slot_of[self._first], -1)
        # What comes, what is held of that alone, and what is held of all that is carried on, [resource, step].
        self._given, self._alone, self._carried = np.zeros((3, len(held.amounts), len(found)), dtype=np.int64)
        add_up(self._given, steps[: len(comes)], leaving.amounts[:, matters])
        self._held, self._step = held.amounts, steps[len(comes) :]
        self._number = dict(zip(counts_on, range(len(counts_on)), strict=True))
        self._on_all = starts == 0
        self._edges = np.searchsorted(held.gangs, np.arange(len(counts_on) + 1))
        for amounts, of in ((self._alone, ~self._on_all), (self._carried, self._on_all)):
            entries = of[held.gangs]
            add_up(amounts, self._step[entries], self._held[:, entries])

    def count(self, key: str, sign: int) -> None:
        """Count what is held for a gang again; or with -1 leave it out, as it is judged now, or has started."""
        number = self._number[key]
        amounts = self._carried if self._on_all[number] else self._alone
        entries = slice(self._edges[number], self._edges[number + 1])
        add_up(amounts, self._step[entries], sign * self._held[:, entries])

    def lacking(self, slots: IntArray) -> IntArray:
        """What is held and does not come from those it counts on, so that others must leave it, [resource, slot].

        Args:
            slots: The slots that are looked at, [slot].
        """
        found = np.zeros((len(self._held), len(slots)), dtype=np.int64)
        place = self._slots[:-1].searchsorted(slots)
        known = np.flatnonzero(self._slots[place] == slots)
        if len(known) == 0:
            return found
        first, steps = self._first[place[known]], self._steps[place[known]]
        begin = steps.cumsum() - steps
        at = np.repeat(first - begin, steps) + np.arange(steps.sum())
        lacks = self._alone[:, at] - self._given[:, at]
        # What lacks up to each step, less all that was left over until then: the worst of it is what lacks in the end.
        rest = np.minimum(lacks, 0) + self._carried[:, at]
        carried = rest.cumsum(axis=1)
        carried -= np.repeat((carried - rest)[:, begin], steps, axis=1)
        found[:, known] = np.add.reduceat(np.maximum(lacks, 0), begin, axis=1)
        found[:, known] += np.maximum(np.maximum.reduceat(carried, begin, axis=1), 0)
        return found


def add_up(amounts: IntArray, at: IntArray, more: IntArray) -> None:
    """Add to some places of each row, to some more than once."""
    for row, of_row in zip(amounts, more, strict=True):
        np.add.at(row, at, of_row)
