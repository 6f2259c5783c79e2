"""Room, watts and quota held for a gang that cannot start yet, because others are ending or it is ending itself.

A gang that is to move or to grow is ended with room held for its own return: one mechanism for all three.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from datahall.planning.books import Books
from datahall.planning.move_plans import MovePlan
from datahall.planning.promises import Entries, Promises, add_up
from datahall.planning.shape import Shape
from datahall.planning.state import IntArray
from datahall.planning.topology import Domain
from datahall.planning.types import GangRequest
from datahall.planning.waiting import Kind, KindKey, SortKey

_REMEMBERED = 1000
"""Kinds for which it is remembered that nobody can make room; beyond that, what is over is forgotten."""


@dataclass(slots=True, eq=False)
class Hold:
    """What is held for a gang while others end for it.

    Attributes:
        gang: The gang.
        model: The GPU model it will get.
        places: Nodes by name, with what is held on each: GPUs, CPU thousandths, bytes.
        node_watts: Watts that are held on each node, in the power domains above it.
        charges: What its queue is charged meanwhile, so that nobody else takes the quota.
        victims: Gangs that end for it, or were ending anyway, by key.
        departures: The numbers of the leaving gangs on whose watts it counts: those who end for it, or all from 0 up to
            them where theirs are not enough. For room it counts on all up to them that are on its nodes.
        domain: The domain that was cleared for it, if it has to be in one.
        message: What is going on, for people.
        returns: Whether the gang itself is ended first, and comes back for this.
    """

    gang: GangRequest
    model: str
    places: dict[str, tuple[int, int, int]]
    node_watts: dict[str, int]
    charges: dict[str, int]
    victims: frozenset[str]
    departures: range
    domain: Domain | None
    message: str
    returns: bool = False

    def is_for(self, gang: GangRequest) -> bool:
        """Whether a gang is still the one that room is held for: it may have aged, and been ended once more."""
        mine = self.gang
        return (gang.queue, gang.namespace, Shape.of(gang)) == (mine.queue, mine.namespace, Shape.of(mine))


@dataclass(slots=True)
class Holds:
    """All of them, and what is remembered from cycle to cycle about those who make room.

    Attributes:
        of: Holds by the key of their gang.
        made_way_for: For each gang that was ended for others, those others.
        hopeless_until: Kinds for which nobody could make room, and until when that is not tried again.
        moved_seconds: When gangs were moved in the last hour.
        move_plans: What would move for gangs that have not waited long enough for it, by their key.
        looked_ahead_seconds: When such a plan was last made.
    """

    of: dict[str, Hold] = field(default_factory=dict)
    made_way_for: dict[str, frozenset[str]] = field(default_factory=dict)
    hopeless_until: dict[KindKey, float] = field(default_factory=dict)
    moved_seconds: deque[float] = field(default_factory=deque)
    move_plans: dict[str, MovePlan] = field(default_factory=dict)
    looked_ahead_seconds: float = -math.inf
    _charged: dict[str, dict[str, int]] = field(default_factory=dict)

    def back(self, books: Books) -> IntArray:
        """What is held back from everyone else, [resource, column]."""
        amounts = np.zeros((3, books.hall.nodes.columns), dtype=np.int64)
        held = self._on_nodes(books)
        add_up(amounts, held.slots, held.amounts)
        return amounts

    def promised_room(self, books: Books) -> Promises:
        """What is held on each column, against what those who leave have there."""
        counts_on = {key: range(hold.departures.stop) for key, hold in self.of.items()}
        return Promises(counts_on, self._on_nodes(books), books.holdings.leaving_on_nodes())

    def promised_watts(self, books: Books) -> Promises:
        """What is held below each power domain, against what those who leave have there."""
        counts_on = {key: hold.departures for key, hold in self.of.items()}
        held = books.hall.power.entries(enumerate(hold.node_watts for hold in self.of.values()))
        return Promises(counts_on, held, books.holdings.leaving_below_domains())

    def add(self, books: Books, hold: Hold) -> None:
        """Hold room and quota for a gang, and nothing else any more."""
        self.drop(books, hold.gang.key)
        self.of[hold.gang.key] = hold
        self._charge(books, hold, 1)

    def drop(self, books: Books, key: str) -> Hold | None:
        """Give up what is held for a gang; None if nothing was."""
        hold = self.of.pop(key, None)
        if hold is not None:
            self._charge(books, hold, -1)
        return hold

    def uncharge(self, books: Books, sign: int = -1) -> None:
        """Take all that is held off the quota tree, to see what is really used; put it back with 1."""
        for queue, charges in self._charged.items():
            books.tree.charge(queue, charges, sign)

    def next_of(self, kind: Kind) -> SortKey | None:
        """The first of a kind for which nothing is held."""
        return (
            next((place for place in kind.line if place[2] not in self.of), None) if self.of else kind.line[0]
        )

    def charged(self, books: Books, queue: str) -> dict[str, int]:
        """What a queue is charged for gangs that have not started yet, by entry."""
        amounts: dict[str, int] = {}
        for resource, amount in self._charged.get(queue, {}).items():
            entry = books.tree.entry(queue, resource)
            amounts[entry] = amounts.get(entry, 0) + amount
        return amounts

    def _on_nodes(self, books: Books) -> Entries:
        """What is held on each column, by place in `of`."""
        column_of = books.hall.nodes.column
        entries = [
            (number, column, *taken)
            for number, hold in enumerate(self.of.values())
            for name, taken in hold.places.items()
            if (column := column_of(name)) is not None
        ]
        table = np.array(entries, dtype=np.int64).reshape(-1, 5).T
        return Entries(table[1], table[2:], table[0])

    def _charge(self, books: Books, hold: Hold, sign: int) -> None:
        queue = hold.gang.queue
        books.tree.charge(queue, hold.charges, sign)
        books.hall.power.hold(hold.node_watts, sign)
        charged = self._charged.setdefault(queue, {})
        for resource, amount in hold.charges.items():
            charged[resource] = charged.get(resource, 0) + sign * amount
            if not charged[resource]:
                del charged[resource]
        if not charged:
            del self._charged[queue]

    def give_up_on(self, kind: KindKey, until_seconds: float, now_seconds: float) -> None:
        """Nobody can make room for a kind: it is not tried again until then."""
        if len(self.hopeless_until) >= _REMEMBERED:
            self.hopeless_until = {
                k: until for k, until in self.hopeless_until.items() if until > now_seconds
            }
        self.hopeless_until[kind] = until_seconds

    def forget(self, books: Books, key: str) -> Hold | None:
        """A gang is gone for good."""
        self.made_way_for.pop(key, None)
        self.move_plans.pop(key, None)
        return self.drop(books, key)


def watts_by_node(books: Books, columns: IntArray, workers: IntArray, worker_watts: int) -> dict[str, int]:
    """Watts that are held on each node, by name."""
    if not worker_watts or books.hall.fed_by() is None:
        return {}
    return {
        books.hall.nodes.name(column): number * worker_watts
        for column, number in zip(columns.tolist(), workers.tolist(), strict=True)
    }


def by_node(books: Books, columns: IntArray, amounts: IntArray) -> dict[str, tuple[int, int, int]]:
    """What is held on each node, by name."""
    return {
        books.hall.nodes.name(column): (int(taken[0]), int(taken[1]), int(taken[2]))
        for column, taken in zip(columns.tolist(), np.asarray(amounts).T.tolist(), strict=True)
    }
