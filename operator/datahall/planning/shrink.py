"""Preemption where elastic gangs may give up spare workers and go on, instead of ending.

Two plans are made and the cheaper is kept. One ends gangs as if none could shrink, and then lets each victim go on
smaller where that is enough. The other offers only the spare workers of elastic gangs, beside the others whole; where
that is not enough, it supposes that every elastic gang has shrunk, and ends whom that leaves to be ended. At last,
spare workers go back: whole gangs first, dearest first, then single workers. Nothing more is taken than the preemptor
needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datahall.planning.candidates import Candidate, Candidates, Spare
from datahall.planning.offers import Room
from datahall.planning.preemption import (
    BUDGET_ENTRIES,
    Hopeless,
    Plan,
    Pools,
    Preemptor,
    Shrunk,
    make_plan,
    no_pools,
    plan,
)
from datahall.planning.state import BoolArray, IntArray
from datahall.planning.victims import Choice


def plan_with_shrinking(
    free: IntArray,
    preemptor: Preemptor,
    gangs: Sequence[Candidate],
    allowed: BoolArray,
    *,
    may_shrink: BoolArray | None = None,
    pools: Pools | None = None,
    worker_gives: IntArray | None = None,
    budget_entries: int = BUDGET_ENTRIES,
) -> Plan | Hopeless:
    """Find the cheapest gangs to end or to shrink so that the preemptor starts; never dearer than `plan`.

    Args:
        free: What is free now and held for nobody else, [resource, column].
        preemptor: The gang that waits.
        gangs: The gangs that run.
        allowed: Those that may be ended, [gang].
        may_shrink: Those that may be shrunk if they have spare workers, [gang]; without it, those that may be ended.
        pools: What is missing beside room in the hall.
        worker_gives: What one spare worker of each gang gives back to each pool, [gang, pool]; without it, nothing.
        budget_entries: How much to search for each of the two plans.
    """
    candidates = Candidates.of(gangs, resources=len(free))
    pools = no_pools(len(gangs)) if pools is None else pools
    gives = np.zeros_like(pools.gives) if worker_gives is None else worker_gives
    shrinkable = (allowed if may_shrink is None else may_shrink) & ~candidates.leaving
    elastic = [
        i
        for i in np.flatnonzero(shrinkable).tolist()
        if _workers(gangs[i]) and (not allowed[i] or _shrink_cost(gangs[i]) < gangs[i].cost_gpu_seconds)
    ]
    ending = plan(free, preemptor, candidates, allowed, pools=pools, budget_entries=budget_entries)
    if not elastic or (isinstance(ending, Plan) and not ending.victims):
        return ending
    hall = _Elastic(free, preemptor, gangs, candidates=candidates, pools=pools, worker_gives=gives)
    plans = []
    if isinstance(ending, Plan):
        ended = [candidates.keys.index(key) for key in ending.victims]
        softer = [i for i in ended if i in set(elastic)]
        plans.append(hall.settle(ended, softer, ending, soften=True))
    for all_shrunk in (False, True):
        found = hall.plan_of_parts(elastic, allowed, budget_entries, all_shrunk=all_shrunk)
        if isinstance(found, Plan):
            chosen = {candidates.keys.index(key) for key in found.victims}
            parts = set(elastic) - chosen if all_shrunk else set(elastic) & chosen
            plans.append(hall.settle(sorted(chosen - parts), sorted(parts), found, soften=False))
            break
    if not plans:
        return found
    return min(plans, key=lambda p: (p.cost_gpu_seconds, len(p.victims), len(p.shrunk)))


class _Elastic:
    """A hall with elastic gangs, for the length of one question."""

    def __init__(
        self,
        free: IntArray,
        preemptor: Preemptor,
        gangs: Sequence[Candidate],
        *,
        candidates: Candidates,
        pools: Pools,
        worker_gives: IntArray,
    ) -> None:
        self._preemptor = preemptor
        self._gangs = gangs
        self._candidates = candidates
        self._pools = pools
        self._worker_gives = worker_gives
        self._free = free
        self._base = free + candidates.freed_by(candidates.leaving, free.shape[1])

    def given_up(self, gangs: Sequence[int], columns: int) -> IntArray:
        """What all spare workers of some gangs hold, [resource, column]."""
        amounts = np.zeros((len(self._base), columns), dtype=np.int64)
        for i in gangs:
            spare = _spare(self._gangs[i])
            for resource, freed in enumerate(spare.amounts):
                np.add.at(amounts[resource], spare.columns, freed)
        return amounts

    def plan_of_parts(
        self, elastic: Sequence[int], allowed: BoolArray, budget_entries: int, *, all_shrunk: bool
    ) -> Plan | Hopeless:
        """A plan in which elastic gangs are only their spare workers, or all that is left without these.

        Args:
            elastic: Gangs with spare workers.
            allowed: Gangs that may be ended, [gang].
            budget_entries: How much to search.
            all_shrunk: Whether the spare workers are taken to be gone, and the rest of the gangs may end.
        """
        given = np.zeros_like(self._pools.gives)
        for i in elastic:
            given[i] = self._worker_gives[i] * _workers(self._gangs[i])
        gangs, gives = list(self._gangs), self._pools.gives.copy()
        free, short, may = self._free, self._pools.short, allowed
        if all_shrunk:
            free = free + self.given_up(elastic, free.shape[1])
            short = short - given.sum(axis=0)
            gives -= given
            for i in elastic:
                gangs[i] = _without_spare(gangs[i])
        else:
            may = allowed.copy()
            may[elastic] = True
            gives[elastic] = given[elastic]
            for i in elastic:
                gangs[i] = _only_spare(gangs[i])
        return plan(
            free,
            self._preemptor,
            Candidates.of(gangs, len(free)),
            may,
            pools=Pools(short, gives),
            budget_entries=budget_entries,
        )

    def settle(self, ended: list[int], elastic: list[int], found: Plan, *, soften: bool) -> Plan:
        """Give back what is not needed: a plan from one that is met.

        Args:
            ended: Gangs that end.
            elastic: Gangs that may shrink instead (`soften`) or beside.
            found: The plan that this comes from.
            soften: Whether the elastic gangs end in it.
        """
        candidates, columns = self._candidates, self._base.shape[1]
        domain = 0 if found.domain is None else found.domain
        gone = np.zeros(len(candidates), dtype=np.bool_)
        gone[ended] = True
        free = self._base + candidates.freed_by(gone, columns)
        short = self._pools.short - self._pools.gives[gone | candidates.leaving].sum(axis=0)
        if not soften:
            free += self.given_up(elastic, columns)
            for i in elastic:
                short = short - self._worker_gives[i] * _workers(self._gangs[i])
        here = self._preemptor.domains() == domain
        most = np.where(here, self._preemptor.slots(np.full_like(free, np.iinfo(np.int64).max)), 0)
        room = Room(
            free=free,
            ask=self._preemptor.amounts,
            most=most,
            workers=self._preemptor.workers,
            short=short,
        )
        assert room.fits, "a plan that does not start the preemptor"
        dearest_first = sorted(
            elastic, key=lambda i: (-self._price(i, ended=soften), -int(candidates.rank[i]))
        )
        smaller = []
        for i in dearest_first:
            if soften:
                gives = self._pools.gives[i] - self._worker_gives[i] * _workers(self._gangs[i])
                if room.take_back(*self._core(i), gives):
                    ended = [j for j in ended if j != i]
                    smaller.append(i)
            elif not room.take_back(*self._all_spare(i), self._worker_gives[i] * _workers(self._gangs[i])):
                smaller.append(i)
        shrunk = [Shrunk(self._gangs[i].key, self._needed(room, i)) for i in sorted(smaller)]
        up = np.zeros((len(self._base), columns), dtype=np.int64)
        for i, gang in zip(sorted(smaller), shrunk, strict=True):
            spare = _spare(self._gangs[i])
            for worker in gang.workers:
                up[:, spare.columns[worker]] += spare.amounts[:, worker]
        return make_plan(
            self._base,
            self._preemptor,
            candidates,
            Choice(tuple(sorted(ended)), exact=False),
            domain,
            shrunk=shrunk,
            given_up=up,
            shrink_cost_gpu_seconds=sum(self._price(i, ended=False) for i in smaller),
        )

    def _needed(self, room: Room, gang: int) -> tuple[int, ...]:
        """Spare workers of a gang that must leave; the others are taken back, the last first."""
        spare = _spare(self._gangs[gang])
        gives = self._worker_gives[gang]
        workers = reversed(range(len(spare.columns)))
        back = {
            w for w in workers if room.take_back(spare.columns[w : w + 1], spare.amounts[:, w : w + 1], gives)
        }
        return tuple(w for w in range(len(spare.columns)) if w not in back)

    def _price(self, gang: int, *, ended: bool) -> int:
        if ended:
            return int(self._candidates.cost_gpu_seconds[gang])
        return _shrink_cost(self._gangs[gang])

    def _core(self, gang: int) -> tuple[IntArray, IntArray]:
        """Nodes of a gang, and what it holds there without its spare workers."""
        mine = self._candidates.gang == gang
        columns, amounts = self._candidates.column[mine], self._candidates.amounts[:, mine].copy()
        given, freed = self._all_spare(gang)
        amounts[:, np.searchsorted(columns, given)] -= freed
        return columns, amounts

    def _all_spare(self, gang: int) -> tuple[IntArray, IntArray]:
        """Nodes of a gang's spare workers, each once, ascending, and what they hold there."""
        spare = _spare(self._gangs[gang])
        columns, place = np.unique(spare.columns, return_inverse=True)
        amounts = np.zeros((len(spare.amounts), len(columns)), dtype=np.int64)
        for resource, freed in enumerate(spare.amounts):
            np.add.at(amounts[resource], place, freed)
        return columns, amounts


def _spare(gang: Candidate) -> Spare:
    assert gang.spare is not None, "only elastic gangs are asked"
    return gang.spare


def _workers(gang: Candidate) -> int:
    """How many workers a gang can give up."""
    return 0 if gang.spare is None else len(gang.spare.columns)


def _shrink_cost(gang: Candidate) -> int:
    """What it costs a gang to go on smaller, in whole GPU-seconds."""
    return round(_spare(gang).cost_gpu_seconds)


def _only_spare(gang: Candidate) -> Candidate:
    """The spare workers of a gang, as a gang that costs what shrinking does."""
    spare = _spare(gang)
    return replace(
        gang,
        columns=spare.columns,
        amounts=spare.amounts,
        lost_gpu_seconds=float(_shrink_cost(gang)),
        restart_gpu_seconds=0.0,
        evictions=0,
    )


def _without_spare(gang: Candidate) -> Candidate:
    """A gang that has given up its spare workers."""
    spare = _spare(gang)
    return replace(
        gang,
        columns=np.concatenate([gang.columns, spare.columns]),
        amounts=np.concatenate([gang.amounts, -spare.amounts], axis=1),
    )
