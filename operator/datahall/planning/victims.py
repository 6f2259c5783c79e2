"""The search for victims: the cheapest gangs whose end makes room for a number of equal workers.

That is a covering problem without a quick exact answer, so up to eight gangs are tried in every combination, and more
by a search in three parts:

1. Build. The best of the `offers` are taken until half of what is missing is covered, then prices are made anew,
   because gangs that are paid free their other nodes for nothing; and again, until nothing is missing.
2. Reprieve. Each gang goes back, dearest first, if the workers still fit without its room. One pass leaves nobody
   superfluous: who was needed among more victims is needed among fewer.
3. Improve. Each victim is spared in turn and the rest mended around it; each gang outside is tried in place of those
   that it makes superfluous.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from datahall.planning.offers import Board, Key, Room, best_offers
from datahall.planning.state import BoolArray, IntArray

ALL_COMBINATIONS_UP_TO = 8
"""Gangs of which every combination is tried."""

_SHORTLIST_ENTRIES = 2048
_SHORTLIST_TIMES = 4
_DOMAINS_IMPROVED = 3
_CHECK_ENTRIES = 50
"""What one check of one gang costs, in entries: a few calls into NumPy."""


class Choice(NamedTuple):
    """A choice of gangs.

    Attributes:
        gangs: Their numbers, ascending.
        exact: Whether it was compared with every other.
    """

    gangs: tuple[int, ...]
    exact: bool


class Budget:
    """How much may still be looked at, in entries."""

    def __init__(self, entries: int) -> None:
        self.left = entries

    def spend(self, entries: int) -> None:
        """Count what was looked at."""
        self.left -= entries


def best_choice(board: Board, domains: IntArray, budget: Budget) -> tuple[Choice, int]:
    """The best choice of gangs, and the domain where the workers go.

    Args:
        board: The hall.
        domains: Domains that would do with every gang gone, most promising first.
        budget: How much to look at. One domain at least is searched, whatever is left.
    """
    found: list[tuple[Key, int, Board, tuple[int, ...]]] = []
    exact = True
    half = budget.left // 2
    for domain in domains.tolist():
        if found and budget.left < half:
            exact = False
            break
        budget.spend(len(board.gang))
        here, complete = _shortlist(_within(board, domain), budget)
        bound = min((key.cost for key, *_ in found), default=None)
        if complete and len(here.cost) <= ALL_COMBINATIONS_UP_TO:
            gangs = _try_all(here, bound, budget)
            if gangs is None:
                continue
        else:
            exact = False
            gangs = _build(here, budget)
        found.append((here.key(gangs), domain, here, gangs))
    found.sort(key=lambda item: item[:2])
    if not exact:
        for i, (key, domain, here, gangs) in enumerate(found[:_DOMAINS_IMPROVED]):
            better = _improve(here, gangs, key, budget)
            found[i] = (here.key(better), domain, here, better)
        found.sort(key=lambda item: item[:2])
    key, domain, *_ = found[0]
    return Choice(key.gangs, exact), domain


def _within(board: Board, domain: int) -> Board:
    """The board of one domain."""
    columns = board.domain == domain
    inside = np.zeros(len(board.cost), dtype=np.bool_)
    inside[board.gang[columns[board.column]]] = True
    inside |= (board.gives[:, board.short > 0] > 0).any(axis=1)
    return board.only(columns, inside, int(board.missing[domain]))


def _shortlist(board: Board, budget: Budget) -> tuple[Board, bool]:
    """A large board without its dear gangs, and whether it is still complete."""
    budget.spend(len(board.gang))
    slots = board.slots(board.free)
    missing = int(board.missing[0] - slots.sum())
    if len(board.gang) <= _SHORTLIST_ENTRIES:
        return board, True
    kept = np.zeros(len(board.cost), dtype=np.bool_)
    if missing > 0:
        wanted = np.full(len(slots), missing)
        for shared in (True, False):
            offers = best_offers(board, board.free, np.ones_like(kept), wanted, shared=shared)
            by_price = np.lexsort((offers.column, offers.ratio))
            many = int(np.searchsorted(offers.slots[by_price].cumsum(), _SHORTLIST_TIMES * missing)) + 1
            columns = np.zeros(len(slots), dtype=np.bool_)
            columns[offers.column[by_price[: max(many, ALL_COMBINATIONS_UP_TO)]]] = True
            kept[board.gang[columns[board.column]]] = True
    for pool in np.flatnonzero(board.short > 0).tolist():
        gives = board.gives[:, pool]
        by_price = np.lexsort((np.arange(len(gives)), (board.cost + 1) / np.maximum(gives, 1e-9)))
        many = int(np.searchsorted(gives[by_price].cumsum(), _SHORTLIST_TIMES * board.short[pool])) + 1
        kept[by_price[:many]] = True
    columns = np.zeros(len(slots), dtype=np.bool_)
    columns[board.column[kept[board.gang]]] = True
    # Enough, as all gangs of a kept column are kept, and columns are left out only once there is more than enough.
    return board.only(columns, kept, int(board.missing[0] - slots[~columns].sum())), False


def _fits(board: Board, gone: BoolArray) -> bool:
    if (board.short_without(gone) > 0).any():
        return False
    return bool(board.slots(board.free_without(gone)).sum() >= board.missing[0])


def _try_all(board: Board, bound: int | None, budget: Budget) -> tuple[int, ...] | None:
    """The best of all combinations; None if each that does costs more than the bound."""
    numbers = range(len(board.cost))
    keys = {
        subset: board.key(subset)
        for size in range(len(numbers) + 1)
        for subset in combinations(numbers, size)
    }
    budget.spend(len(keys) * _CHECK_ENTRIES // 4)
    for subset in sorted(keys, key=lambda subset: keys[subset]):
        if bound is not None and keys[subset].cost > bound:
            return None
        gone = np.zeros(len(numbers), dtype=np.bool_)
        gone[list(subset)] = True
        budget.spend(_CHECK_ENTRIES)
        if _fits(board, gone):
            return subset
    return None


def _build(board: Board, budget: Budget) -> tuple[int, ...]:
    """The best of a few ways to build a choice; everyone is one, so there always is one."""
    everyone = np.ones(len(board.cost), dtype=np.bool_)
    nobody = np.zeros_like(everyone)
    choices: list[tuple[int, ...]] = []
    for shared in (True, False):
        gone = _greedy(board, nobody, everyone, budget, shared=shared)
        if gone is not None:
            choices.extend(_reprieve(board, gone, order, budget) for order in _orders(board, gone))
    if not choices:
        choices = [_reprieve(board, everyone, order, budget) for order in _orders(board, everyone)]
    return min(choices, key=board.key)


def _greedy(
    board: Board, gone: BoolArray, allowed: BoolArray, budget: Budget, *, shared: bool = True
) -> BoolArray | None:
    """End gangs by the best offers until the workers fit and the pools are full, [gang]; None if they cannot.

    Args:
        board: The board of one domain.
        gone: Gangs that end anyhow, [gang].
        allowed: Gangs that may end, [gang].
        budget: What this counts against.
        shared: See `best_offers`.
    """
    gone = gone.copy()
    while True:
        free = board.free_without(gone)
        slots = board.slots(free)
        missing = int(board.missing[0] - slots.sum())
        budget.spend(len(board.gang))
        if missing <= 0:
            break
        offers = best_offers(board, free, allowed & ~gone, np.full(len(slots), missing), shared=shared)
        if len(offers.column) == 0:
            return None
        by_price = np.lexsort((offers.column, -offers.slots, offers.ratio))
        # Half of what is missing, at least one offer: what is paid for changes the prices of the rest.
        before = offers.slots[by_price].cumsum() - offers.slots[by_price]
        for i in by_price[before < (missing + 1) // 2].tolist():
            gone[board.gang[offers.order[offers.first[i] : offers.last[i] + 1]]] = True
    while ((short := board.short_without(gone)) > 0).any():
        lacking = short > 0
        gives = np.minimum(board.gives[:, lacking], short[lacking]) / short[lacking]
        worth = np.where(allowed & ~gone, gives.sum(axis=1), 0.0)
        if not (worth > 0).any():
            return None
        price = np.where(worth > 0, (board.cost + 1) / np.maximum(worth, 1e-12), np.inf)
        by_price = np.lexsort((np.arange(len(price)), price))
        before = worth[by_price].cumsum() - worth[by_price]
        gone[by_price[(before < lacking.sum() / 2) & (worth[by_price] > 0)]] = True
        budget.spend(len(price))
    return gone


def _orders(board: Board, gone: BoolArray) -> list[IntArray]:
    """Orders in which to reprieve: by falling cost, and by falling cost for what is freed."""
    victims = np.flatnonzero(gone)
    freed = np.zeros(len(board.cost))
    for resource, ask in enumerate(board.ask.tolist()):
        if ask > 0:
            amounts = np.minimum(board.amounts[resource] / ask, board.most[board.column])
            freed = np.maximum(freed, np.bincount(board.gang, weights=amounts, minlength=len(board.cost)))
    cost = board.cost[victims]
    return [
        victims[np.lexsort((-victims, -cost))],
        victims[np.lexsort((-victims, -(cost + 1) / np.maximum(freed[victims], 1e-9)))],
    ]


def _reprieve(board: Board, gone: BoolArray, order: IntArray, budget: Budget) -> tuple[int, ...]:
    """Put gangs back in an order wherever the workers still fit; those that must end, ascending."""
    room = Room(
        free=board.free_without(gone),
        ask=board.ask,
        most=board.most,
        workers=int(board.missing[0]),
        short=board.short_without(gone),
    )
    victims = []
    for gang in order.tolist():
        mine = slice(int(board.start[gang]), int(board.start[gang + 1]))
        budget.spend(_CHECK_ENTRIES + mine.stop - mine.start)
        if not room.take_back(board.column[mine], board.amounts[:, mine], board.gives[gang]):
            victims.append(gang)
    return tuple(sorted(victims))


def _improve(board: Board, gangs: tuple[int, ...], key: Key, budget: Budget) -> tuple[int, ...]:
    """A choice at least as good, by one change after another, as long as there are any and the budget lasts."""
    again = True
    while again:
        again = False
        for trial in _neighbours(board, gangs, key, budget):
            trial_key = board.key(trial)
            if trial_key < key:
                gangs, key, again = trial, trial_key, True
                break
    return gangs


def _neighbours(board: Board, gangs: tuple[int, ...], key: Key, budget: Budget) -> Iterator[tuple[int, ...]]:
    """Choices that differ by one gang spared, or by one gang more and those that it makes superfluous."""
    chosen = np.zeros(len(board.cost), dtype=np.bool_)
    chosen[list(gangs)] = True
    for spared in np.array(gangs)[np.argsort(-board.cost[list(gangs)], kind="stable")].tolist():
        if budget.left <= 0:
            return
        others = np.ones_like(chosen)
        others[spared] = False
        mended = _greedy(board, chosen & others, others, budget)
        if mended is not None:
            yield _reprieve(board, mended, _orders(board, mended)[0], budget)
    dearest_first = _orders(board, chosen)[0]
    for more in np.flatnonzero(~chosen & (board.cost < key.cost)).tolist():
        if budget.left <= 0:
            return
        chosen[more] = True
        yield _reprieve(board, chosen, np.append(dearest_first, more), budget)
        chosen[more] = False
