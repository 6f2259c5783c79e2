"""The board of a search for victims, and what there is on offer: which gangs on which node make room at what price.

A gang may hold many nodes and is paid once; a node may need several gangs gone before one worker more fits. So on each
node the gangs are lined up by price, and each beginning of the line is an offer: so many slots for so much, where a
gang's cost is shared out over the nodes on which it is in the way.

Everything here is numbered locally and in a fixed order, so that equal input gives equal answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from datahall.planning.packing.demand import Floats
from datahall.planning.state import BoolArray, IntArray

_Number = TypeVar("_Number", bound=np.number[Any])


class Key(NamedTuple):
    """What makes one choice better than another: smaller is better, first things first."""

    cost: int
    victims: int
    evictions: int
    minus_started_seconds: float
    gangs: tuple[int, ...]


def slots_on(free: IntArray, ask: IntArray, most: IntArray) -> IntArray:
    """How many workers fit each column, [column].

    Args:
        free: What is free, [resource, column].
        ask: What one worker takes, [resource].
        most: The most workers of each column, [column].
    """
    slots: IntArray = most.copy()
    for resource, amount in enumerate(ask.tolist()):
        if amount > 0:
            np.minimum(slots, free[resource] // amount, out=slots)
    np.maximum(slots, 0, out=slots)
    return slots


class Room:
    """Room in which the workers fit, from which gangs take theirs back as long as they still do.

    Only the columns that a gang comes back to are looked at.
    """

    def __init__(
        self, *, free: IntArray, ask: IntArray, most: IntArray, workers: int, short: IntArray
    ) -> None:
        """Start with everyone gone.

        Args:
            free: What is free, [resource, column].
            ask: What one worker takes, [resource].
            most: The most workers of each column, [column].
            workers: How many must fit.
            short: What is missing of each pool, [pool].
        """
        self._free = free.copy()
        self._ask = [(resource, amount) for resource, amount in enumerate(ask.tolist()) if amount > 0]
        self._most = most
        self._slots = slots_on(free, ask, most)
        self._short = short.copy()
        self._to_spare = int(self._slots.sum()) - workers

    @property
    def fits(self) -> bool:
        """Whether the workers fit and no pool is short."""
        return self._to_spare >= 0 and not (self._short > 0).any()

    def take_back(self, column: IntArray, amounts: IntArray, gives: IntArray) -> bool:
        """Put a gang back if the workers fit without its room; whether it was.

        Args:
            column: Its nodes, each once, [place].
            amounts: What it takes there, [resource, place].
            gives: What it had given to each pool, [pool].
        """
        if len(gives) and (self._short + gives > 0).any():
            return False
        left = self._free[:, column] - amounts
        slots = self._most[column]
        for resource, amount in self._ask:
            slots = np.minimum(slots, left[resource] // amount)
        slots = np.maximum(slots, 0)
        lost = int((self._slots[column] - slots).sum())
        if lost > self._to_spare:
            return False
        self._to_spare -= lost
        self._free[:, column] = left
        self._slots[column] = slots
        self._short += gives
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """What the search looks at: gangs that may end, and the columns on which that makes room.

    Attributes:
        free: What is free before anyone ends, [resource, column].
        ask: What one worker takes, [resource].
        most: The most workers of each column, [column].
        domain: The domain of each column, [column].
        missing: Workers that must fit these columns, by domain: all, less those that fit elsewhere in it, [domain].
        gang: The gang of each entry, ascending, [entry].
        column: The column of each entry, [entry].
        amounts: What the gang frees there, [resource, entry].
        start: Where the entries of each gang begin, and the end, [gang + 1].
        cost: What ending each gang costs, [gang].
        evictions: Earlier evictions, [gang].
        started_seconds: When each started, [gang].
        short: What is missing of each pool, [pool].
        gives: What each gang gives back to each pool, [gang, pool].
        names: The gangs' numbers outside, ascending, [gang].
    """

    free: IntArray
    ask: IntArray
    most: IntArray
    domain: IntArray
    missing: IntArray
    gang: IntArray
    column: IntArray
    amounts: IntArray
    start: IntArray
    cost: IntArray
    evictions: IntArray
    started_seconds: Floats
    short: IntArray
    gives: IntArray
    names: IntArray

    @classmethod
    def of(
        cls,
        *,
        free: IntArray,
        ask: IntArray,
        most: IntArray,
        domains: IntArray,
        workers: int,
        gangs: IntArray,
        entries: tuple[IntArray, IntArray, IntArray],
        cost: IntArray,
        evictions: IntArray,
        started_seconds: Floats,
        short: IntArray,
        gives: IntArray,
        slots_elsewhere: IntArray,
    ) -> Board:
        """The board of a whole hall.

        Args:
            free: What is free before anyone ends, [resource, column].
            ask: What one worker takes, [resource].
            most: The most workers of each column, [column].
            domains: The domain of each column, [column].
            workers: How many must fit in one domain.
            gangs: The caller's numbers of the gangs, in the order that decides between equals, [gang].
            entries: The caller's gang, the column and the amounts [resource, entry] of each entry.
            cost: What ending each gang costs, [gang].
            evictions: Earlier evictions, [gang].
            started_seconds: When each started, [gang].
            short: What is missing of each pool, [pool].
            gives: What each gang gives back to each pool, [gang, pool].
            slots_elsewhere: Workers that fit each column now, [column]; columns of the board are taken out.
        """
        place = np.full(int(gangs.max(initial=-1)) + 1, -1, dtype=np.int64)
        place[gangs] = np.arange(len(gangs))
        gang = place[entries[0]]
        order = np.lexsort((entries[1], gang))
        columns, column = np.unique(entries[1][order], return_inverse=True)
        gang = gang[order]
        elsewhere = slots_elsewhere.copy()
        elsewhere[columns] = 0
        return cls(
            free=free[:, columns],
            ask=ask,
            most=most[columns],
            domain=domains[columns],
            missing=workers - np.bincount(domains, weights=elsewhere, minlength=1).astype(np.int64),
            gang=gang,
            column=column,
            amounts=entries[2][:, order],
            start=np.searchsorted(gang, np.arange(len(gangs) + 1)),
            cost=cost,
            evictions=evictions,
            started_seconds=started_seconds,
            short=short,
            gives=gives,
            names=np.arange(len(gangs)),
        )

    def only(self, columns: BoolArray, gangs: BoolArray, missing: int) -> Board:
        """A smaller board of one domain.

        Args:
            columns: Columns to keep, [column].
            gangs: Gangs to keep, [gang].
            missing: Workers that must fit the kept columns.
        """
        kept = columns[self.column] & gangs[self.gang]
        gang = (np.cumsum(gangs) - 1)[self.gang[kept]]
        return Board(
            free=self.free[:, columns],
            ask=self.ask,
            most=self.most[columns],
            domain=np.zeros(int(columns.sum()), dtype=np.int64),
            missing=np.array([missing]),
            gang=gang,
            column=(np.cumsum(columns) - 1)[self.column[kept]],
            amounts=self.amounts[:, kept],
            start=np.searchsorted(gang, np.arange(int(gangs.sum()) + 1)),
            cost=self.cost[gangs],
            evictions=self.evictions[gangs],
            started_seconds=self.started_seconds[gangs],
            short=self.short,
            gives=self.gives[gangs],
            names=self.names[gangs],
        )

    def slots(self, free: IntArray) -> IntArray:
        """Workers that fit each column, [column]."""
        return slots_on(free, self.ask, self.most)

    def free_without(self, gone: BoolArray) -> IntArray:
        """What is free with some gangs gone, [resource, column]."""
        free = self.free.copy()
        ended = gone[self.gang]
        for resource, amounts in enumerate(self.amounts):
            np.add.at(free[resource], self.column[ended], amounts[ended])
        return free

    def short_without(self, gone: BoolArray) -> IntArray:
        """What is missing of each pool with some gangs gone, [pool]."""
        short: IntArray = self.short - self.gives[gone].sum(axis=0)
        return short

    def key(self, gangs: Sequence[int]) -> Key:
        """How good a choice is."""
        chosen = sorted(gangs)
        return Key(
            sum(int(self.cost[g]) for g in chosen),
            len(chosen),
            sum(int(self.evictions[g]) for g in chosen),
            -sum(float(self.started_seconds[g]) for g in chosen),
            tuple(int(self.names[g]) for g in chosen),
        )


class Offers(NamedTuple):
    """For each column with one, its best offer: the gangs to end there first.

    Attributes:
        column: Columns, [offer].
        ratio: Cost per slot that counts, [offer].
        slots: Slots gained on the column, [offer].
        order: Entries by column and price, [entry].
        first: Where the offer's entries begin in `order`, [offer].
        last: Where they end, inclusive, [offer].
    """

    column: IntArray
    ratio: Floats
    slots: IntArray
    order: IntArray
    first: IntArray
    last: IntArray


def best_offers(
    board: Board, free: IntArray, open_gangs: BoolArray, missing: IntArray, *, shared: bool
) -> Offers:
    """The best offer of each column.

    Args:
        board: The board.
        free: What is free now, [resource, column].
        open_gangs: Gangs that may end and have not, [gang].
        missing: Slots that are missing in the domain of each column, [column]; more than these count for nothing.
        shared: Whether a gang's cost is shared out over its columns; else it counts whole on each.
    """
    entries = np.flatnonzero(open_gangs[board.gang])
    column, amounts = board.column[entries], board.amounts[:, entries]
    at_most = free.copy()
    for resource, freed in enumerate(amounts):
        np.add.at(at_most[resource], column, freed)
    slots = board.slots(free)
    gain = board.slots(at_most) - slots
    useful = (gain[column] > 0) & (missing[column] > 0)
    entries, column, amounts = entries[useful], column[useful], amounts[:, useful]
    if len(entries) == 0:
        none = np.zeros(0, dtype=np.int64)
        return Offers(none, np.zeros(0), none, none, none, none)
    gang = board.gang[entries]
    # A gang's part in a column's gain, by what it frees of that column's scarcest resource.
    asked = np.maximum(board.ask, 1)
    depth = np.where(board.ask[:, None] > 0, free / asked[:, None], np.inf)
    scarcest = depth.argmin(axis=0)[column]
    freed = amounts[scarcest, np.arange(len(entries))] / asked[scarcest]
    part = gain[column] * freed / np.maximum(np.bincount(column, weights=freed), 1e-12)[column]
    domains = len(board.missing)
    group = gang if domains == 1 else np.unique(gang * domains + board.domain[column], return_inverse=True)[1]
    counts = np.maximum(np.minimum(np.bincount(group, weights=part)[group], missing[column]), 1e-9)
    # One more than the cost: of two that cost nothing, one victim is better than two.
    cost = board.cost[gang] + 1.0
    price = np.divide(cost, counts)
    order = np.lexsort((gang, price if shared else cost, column))
    group_cost = np.multiply(price, part)[order] if shared else cost[order]
    column = column[order]
    first = np.flatnonzero(np.diff(column, prepend=-1))
    lengths = np.diff(first, append=len(column))
    reached = _running(amounts[:, order], first)
    total_cost = _running(group_cost, first)
    gained = slots_on(free[:, column] + reached, board.ask, board.most[column]) - slots[column]
    ratio: Floats = np.full(len(column), np.inf)
    np.divide(np.maximum(total_cost, 1e-9), np.minimum(gained, missing[column]), out=ratio, where=gained > 0)
    best = np.minimum.reduceat(ratio, first)
    hits = np.flatnonzero(ratio == np.repeat(best, lengths))
    segment = np.repeat(np.arange(len(first)), lengths)[hits]
    last = hits[np.flatnonzero(np.diff(segment, prepend=-1))]
    return Offers(column[first], best, gained[last], entries[order], first, last)


def _running(values: npt.NDArray[_Number], first: IntArray) -> npt.NDArray[_Number]:
    """Running sums that begin anew with each segment, along the last axis.

    Args:
        values: What to add up, [..., entry].
        first: Where segments begin, [segment].
    """
    total: npt.NDArray[_Number] = values.cumsum(axis=-1)
    lengths = np.diff(first, append=values.shape[-1])
    total -= np.repeat(total[..., first] - values[..., first], lengths, axis=-1)
    return total


def estimate(board: Board, domains: IntArray) -> IntArray:
    """Domains by what the best offers in them would cost, cheapest first, [domain].

    Args:
        board: The hall.
        domains: Domains that would do with every gang gone.
    """
    slots = board.slots(board.free)
    missing = board.missing - np.bincount(board.domain, weights=slots, minlength=len(board.missing)).astype(
        np.int64
    )
    everyone = np.ones(len(board.cost), dtype=np.bool_)
    offers = best_offers(board, board.free, everyone, missing[board.domain], shared=True)
    where = board.domain[offers.column]
    order = np.lexsort((offers.column, offers.ratio, where))
    where, ratio, gained = where[order], offers.ratio[order], offers.slots[order]
    first = np.flatnonzero(np.diff(where, prepend=-1))
    before = _running(gained, first) - gained
    counted = np.clip(missing[where] - before, 0, gained)
    cost = np.bincount(where, weights=ratio * counted, minlength=len(missing))
    reached = np.bincount(where, weights=counted, minlength=len(missing))
    # Where each column's best offer alone does not reach, the rest is taken to cost as much.
    estimated = np.where(reached > 0, cost * missing / np.maximum(reached, 1), np.inf)
    estimated[missing <= 0] = 0.0
    return domains[np.lexsort((domains, estimated[domains]))]
