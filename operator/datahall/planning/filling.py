"""How parts of the hall are filled with equal workers: over as few domains as possible, without breaking whole ones.

Over several domains, the largest are filled first and the last is the tightest that holds the rest. Each step takes
the most workers any domain could take, so no choice uses fewer domains. `placing` says which part of the hall to fill.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datahall.planning.state import BoolArray, IntArray
from datahall.planning.topology import FloatArray, Topology, whole_domain_penalty
from datahall.planning.types import Level

Filled = tuple[IntArray, IntArray]
"""Columns, and workers on each, both [k]."""


def best_of(candidates: IntArray, *keys: IntArray | FloatArray | BoolArray) -> int:
    """The candidate with the smallest keys, the first key first; keys are indexed by candidate."""
    for key in keys:
        values = key[candidates]
        candidates = candidates[values == values.min()]
        if len(candidates) == 1:
            break
    return int(candidates[0])


class Filling:
    """The tree, what fits each column, and what is best filled.

    Attributes:
        columns: Columns of known nodes that at least one worker fits, [k].
    """

    def __init__(
        self, topology: Topology, slots: IntArray, *, cost: FloatArray | None, busy: BoolArray | None
    ) -> None:
        """Take in one question.

        Args:
            topology: The tree.
            slots: Workers that fit each column, [column].
            cost: What one worker takes from the rest of the hall, [column]; None for the fewest slots left.
            busy: Columns where something runs, [column]; None if nobody cares which domains are untouched.
        """
        self._topology = topology
        self._slots = slots
        self._costs: IntArray | FloatArray = slots if cost is None else cost
        self._busy = busy
        self._rank = topology.rank(len(slots))
        known = self.numbers(Level.HOST) >= 0
        self.columns: IntArray = np.flatnonzero(known & (slots > 0))

    # ---- what fits where

    def numbers(self, level: Level) -> IntArray:
        """The domain of each column, [column]."""
        return self._topology.numbers(level, len(self._slots))

    def rooms(self, level: Level, columns: IntArray | None = None) -> IntArray:
        """Workers that fit each domain of a level, on some columns or all, [domain]."""
        columns = self.columns if columns is None else columns
        numbers = self.numbers(level)[columns]
        sums = np.bincount(numbers, self._slots[columns], minlength=self._bound(level))
        return sums.astype(np.int64)

    def first(self, level: Level, columns: IntArray) -> IntArray:
        """Place of each domain's first column in the line of all nodes, [domain]: the last tie-break."""
        first = np.full(self._bound(level), np.iinfo(np.int64).max)
        np.minimum.at(first, self.numbers(level)[columns], self._rank[columns])
        return first

    def breaks(self, level: Level, left: IntArray) -> BoolArray:
        """Whether an untouched domain would be broken into, and not filled, [domain].

        Args:
            level: Level of the domains.
            left: What would be left in each domain, [domain].
        """
        used = np.ones(len(left), dtype=np.bool_)
        if self._busy is not None:
            numbers = self.numbers(level)
            used[:] = False
            used[numbers[self._busy & (numbers >= 0)]] = True
        breaks: BoolArray = ~used & (left != 0)
        return breaks

    def parts(self, level: Level, need: int) -> IntArray:
        """How many domains of the level below are needed to hold workers in each domain, [domain].

        Without meaning where they do not fit.
        """
        below = Level(level - 1)
        rooms = self.rooms(below)
        parent = np.zeros(len(rooms), dtype=np.int64)
        parent[self.numbers(below)[self.columns]] = self.numbers(level)[self.columns]
        parts = np.flatnonzero(rooms)
        parts = parts[np.lexsort((-rooms[parts], parent[parts]))]
        owner = parent[parts]
        running = np.cumsum(rooms[parts])
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        before = np.repeat(running[starts] - rooms[parts[starts]], np.diff(starts, append=len(parts)))
        return np.bincount(owner[running - before < need], minlength=self._bound(level)) + 1

    def _bound(self, level: Level) -> int:
        return self._topology.bound(level, len(self._slots))

    # ---- filling

    def fill(self, columns: IntArray, need: int, levels: Sequence[Level]) -> Filled:
        """Fill some columns, over as few domains as possible at each of the levels, one after the other.

        Args:
            columns: Columns to fill; they hold `need` workers together.
            need: How many workers.
            levels: Levels whose domains are counted, widest first; the last is HOST.
        """
        level, *below = levels
        rooms = self.rooms(level, columns)
        numbers = self.numbers(level)
        first = self.first(level, columns)
        tie = self._costs if level is Level.HOST else -self._around(level, columns)
        domains = np.flatnonzero(rooms)
        domains = domains[np.lexsort((first[domains], tie[domains], -rooms[domains]))]
        running = np.cumsum(rooms[domains])
        full = int(np.searchsorted(running, need, side="right"))
        rest = need - (int(running[full - 1]) if full else 0)
        taken = np.zeros(len(rooms), dtype=np.bool_)
        taken[domains[:full]] = True
        whole = columns[taken[numbers[columns]]]
        if rest == 0:
            return whole, self._slots[whole]
        others = domains[full:]
        others = others[rooms[others] >= rest]
        if level is Level.HOST:
            last = self._last_host(others, rest)
            return np.append(whole, last), np.append(self._slots[whole], rest)
        left = rooms - rest
        last = best_of(others, self._far(level, whole, columns), self.breaks(level, left), left, first)
        partly = columns[numbers[columns] == last]
        if level is Level.BLOCK:
            # As few racks as these blocks allow: one of few workers need not be taken for its block to be full.
            return self.fill(np.append(whole, partly), need, below)
        more, workers = self.fill(partly, rest, below)
        return np.append(whole, more), np.append(self._slots[whole], workers)

    def by_packing(self, need: int) -> Filled:
        """Fill any columns, which hold `need` workers: by cost, untouched racks last, then the fewest slots left."""
        columns = self.columns
        penalty = np.zeros(len(self._slots))
        if self._busy is not None:
            penalty = whole_domain_penalty(self._topology, self._busy)
        rack_room = self.rooms(Level.RACK)[self.numbers(Level.RACK)]
        keys = (penalty, self._costs, self._slots, rack_room, self._rank)
        if need == 1:
            return np.array([best_of(columns, *keys)]), np.ones(1, dtype=np.int64)
        line = columns[np.lexsort([key[columns] for key in reversed(keys)])]
        before = np.cumsum(self._slots[line]) - self._slots[line]
        line = line[before < need]
        return line, np.minimum(self._slots[line], need - before[: len(line)])

    def _last_host(self, hosts: IntArray, rest: int) -> int:
        """The host for workers that fill none: one goes where the packing says, several where it is tightest."""
        if rest == 1:
            return best_of(hosts, self._costs, self._slots, self._rank)
        return best_of(hosts, self._slots, self._costs, self._rank)

    def _around(self, level: Level, columns: IntArray) -> IntArray:
        """Workers that fit the block around each domain, [domain]: equal racks are taken block by block."""
        around = np.zeros(self._bound(level), dtype=np.int64)
        blocks = self.rooms(Level.BLOCK, columns)[self.numbers(Level.BLOCK)[columns]]
        around[self.numbers(level)[columns]] = blocks
        return around

    def _far(self, level: Level, whole: IntArray, columns: IntArray) -> BoolArray:
        """Whether a domain is outside all blocks that are in use by now, [domain]; if none is, none is far."""
        far = np.zeros(self._bound(level), dtype=np.bool_)
        if len(whole):
            blocks = self.numbers(Level.BLOCK)
            far[self.numbers(level)[columns]] = ~np.isin(blocks[columns], blocks[whole])
        return far
