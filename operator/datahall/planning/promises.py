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
        edges = {0, *(edge for each in counts_on.values() for edge in (each.start, each.stop))}
        # Departures are in spans 1, 2, ...: span 0 stays empty, and is of those who count on nobody.
        begins, spans = np.array(sorted(edges), dtype=np.int64), len(edges) + 1
        last = np.array([each[-1] if each else -1 for each in counts_on.values()], dtype=np.int64)
        span_of_hold = begins.searchsorted(last, "right")
        matters = np.isin(leaving.slots, held.slots)
        comes = leaving.slots[matters] * spans + begins.searchsorted(leaving.gangs[matters], "right")
        goes = held.slots * spans + span_of_hold[held.gangs]
        found, steps = np.unique(np.concatenate([comes, goes]), return_inverse=True)
        slot_of = found // spans
        # In each slot one span after the other, [step]: where each slot begins, how many steps it has, which it is.
        self._first = np.flatnonzero(np.diff(slot_of, prepend=-1))
        self._steps = np.diff(self._first, append=len(found))
        self._slots: IntArray = slot_of[self._first]
        # What comes, and what is held of it alone and of what is carried on, [resource, step].
        self._given, self._alone, self._carried = np.zeros((3, len(held.amounts), len(found)), dtype=np.int64)
        _add(self._given, steps[: len(comes)], leaving.amounts[:, matters])
        self._held, self._step = held.amounts, steps[len(comes) :]
        edge_of = np.searchsorted(held.gangs, np.arange(len(counts_on) + 1)).tolist()
        self._of = {
            key: (self._alone if each.start else self._carried, slice(begin, end))
            for (key, each), begin, end in zip(counts_on.items(), edge_of, edge_of[1:], strict=False)
        }
        for key in counts_on:
            self.count(key, 1)

    def count(self, key: str, sign: int) -> None:
        """Count what is held for a gang again; or with -1 leave it out, as it is judged now, or has started."""
        amounts, entries = self._of[key]
        _add(amounts, self._step[entries], sign * self._held[:, entries])

    def lacking(self, slots: int) -> IntArray:
        """What is held and does not come from those it counts on, so that others must leave it, [resource, slot].

        Args:
            slots: How many slots there are.
        """
        lacks = self._alone - self._given
        rest = np.minimum(lacks, 0) + self._carried
        carried = rest.cumsum(axis=1)
        before = (carried - rest)[:, self._first]
        carried -= np.repeat(before, self._steps, axis=1)
        lacking = np.zeros((len(lacks), slots), dtype=np.int64)
        if len(self._slots):
            lacking[:, self._slots] = np.add.reduceat(np.maximum(lacks, 0), self._first, axis=1)
            lacking[:, self._slots] += np.maximum(np.maximum.reduceat(carried, self._first, axis=1), 0)
        return lacking


def _add(amounts: IntArray, at: IntArray, more: IntArray) -> None:
    """Add to some places of each row, to some more than once."""
    for row, of_row in zip(amounts, more, strict=True):
        np.add.at(row, at, of_row)
