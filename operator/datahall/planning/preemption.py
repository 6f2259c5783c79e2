"""Preemption: which running gangs to end so that a waiting one starts, and what to hold for it meanwhile.

`plan` answers with a `Plan` or with `Hopeless`, and keeps four promises whatever it is given: the preemptor fits once
the victims are gone; no victim is superfluous; nobody ends whom the caller's mask does not allow; and a gang that is
leaving already is never asked for more, because its room comes anyway. It says no in one pass over the arrays: if the
preemptor would not fit with every candidate gone, nothing is searched.

A gang ends whole and is paid once, however many nodes it frees. The cost is GPU-seconds: work since the last
checkpoint and the restart, counted once more for each earlier eviction. How victims are found is in `victims`; which
nodes belong together, whom a queue may take from and what the quota lacks are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datahall.planning.alone import cheapest_alone
from datahall.planning.candidates import Candidates
from datahall.planning.messages import counted
from datahall.planning.offers import Board, estimate, slots_on
from datahall.planning.state import BoolArray, IntArray
from datahall.planning.victims import Budget, Choice, best_choice

BUDGET_ENTRIES = 300_000
"""How many gang-on-node entries a search may look at before it answers with the best it has."""

_SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class Preemptor:
    """The gang that waits.

    Attributes:
        workers: How many equal workers start together.
        amounts: What one takes, [resource].
        eligible: Columns where its workers may go, [column].
        domain_of: If all workers must be in one domain: the domain of each column from 0, [column]; -1 for a column
            in none. To stick to a domain that was chosen before, allow only its columns in `eligible`.
        most_workers: The most workers that a column may take for other reasons, such as watts, [column].
        watts: What one reserves in the power domains above it.
    """

    workers: int
    amounts: IntArray
    eligible: BoolArray
    domain_of: IntArray | None = None
    most_workers: IntArray | None = None
    watts: int = 0

    def usable(self) -> BoolArray:
        """Columns that are eligible and in a domain, [column]."""
        return self.eligible if self.domain_of is None else self.eligible & (self.domain_of >= 0)

    def domains(self) -> IntArray:
        """The domain of each column, [column]; 0 everywhere when there are none."""
        if self.domain_of is None:
            return np.zeros(len(self.eligible), dtype=np.int64)
        return np.maximum(self.domain_of, 0)

    def most_slots(self) -> IntArray:
        """The most workers that each column may take, whatever is free there, [column]."""
        most = np.where(self.usable(), self.workers, 0).astype(np.int64)
        if self.most_workers is not None:
            np.minimum(most, self.most_workers, out=most)
        return np.maximum(most, 0)

    def slots(self, free: IntArray) -> IntArray:
        """How many of its workers fit each column, [column].

        Args:
            free: What is free, [resource, column].
        """
        return slots_on(free, self.amounts, self.most_slots())


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """What the preemptor lacks that is no node's: quota of its queue and of those above.

    Attributes:
        short: How much is missing of each pool before anyone ends, leaving gangs included, [pool]; 0 or less for
            enough.
        gives: What each gang gives back to each pool when it ends, [gang, pool].
    """

    short: IntArray
    gives: IntArray


def no_pools(gangs: int) -> Pools:
    """Nothing is missing but room."""
    return Pools(np.zeros(0, dtype=np.int64), np.zeros((gangs, 0), dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Whom to end, and what to keep for the preemptor until they are gone.

    Attributes:
        victims: Gangs to end, by key; none if it is enough to wait for those that leave.
        waits_for: Gangs that are leaving already and hold room on the nodes below.
        domain: Where all workers go; None without domains.
        columns: The nodes to hold, ascending, [place].
        workers: How many workers of the preemptor go there, [place].
        amounts: What to keep there from all others, [resource, place]: subtract it from what is free, and leave it
            subtracted until the preemptor is placed.
        freed: What victims free in all, [resource].
        cost_gpu_seconds: What they lose.
        exact: Whether every choice of victims was compared, so that none is cheaper.
        needs_leaving_watts: Whether it counts on the watts of all that are leaving already.
    """

    victims: tuple[str, ...]
    waits_for: tuple[str, ...]
    domain: int | None
    columns: IntArray
    workers: IntArray
    amounts: IntArray
    freed: IntArray
    cost_gpu_seconds: int
    exact: bool
    needs_leaving_watts: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Hopeless:
    """Nothing that may be ended helps.

    Attributes:
        workers: How many workers must fit at once.
        fitting_now: How many fit now, with what is leaving gone, in the best domain.
        fitting_at_most: How many would fit with every candidate gone, in the best domain.
        domain: That domain; None without domains.
        candidates: How many gangs could be ended.
        protected: How many run on and could not.
        short: What would still be missing of each pool, [pool].
    """

    workers: int
    fitting_now: int
    fitting_at_most: int
    domain: int | None
    candidates: int
    protected: int
    short: tuple[int, ...] = ()


def plan(
    free: IntArray,
    preemptor: Preemptor,
    candidates: Candidates,
    allowed: BoolArray,
    *,
    pools: Pools | None = None,
    coming: IntArray | None = None,
    budget: Budget | None = None,
) -> Plan | Hopeless:
    """Find the cheapest gangs to end so that the preemptor starts.

    Among plans of equal cost the one with fewer victims wins, then the one with fewer earlier evictions, then the one
    whose victims started latest. The answer does not depend on the order of the candidates.

    Args:
        free: What is free now and held for nobody else, [resource, column].
        preemptor: The gang that waits.
        candidates: The gangs that run.
        allowed: Those that may be ended for this preemptor, [gang]; see `candidates.evictable`.
        pools: What is missing beside room in the hall.
        coming: What those who leave free, [resource, column], if the caller knows.
        budget: How much to search, counted and not timed, so that the answer is the same on any machine;
            `BUDGET_ENTRIES` if nothing is said.
    """
    budget = Budget(BUDGET_ENTRIES) if budget is None else budget
    pools = no_pools(len(candidates)) if pools is None else pools
    columns = free.shape[1]
    domains = preemptor.domains()
    base = free + (candidates.freed_by(candidates.leaving, columns) if coming is None else coming)
    short = pools.short - pools.gives[candidates.leaving].sum(axis=0)
    may_end = allowed & ~candidates.leaving
    most = preemptor.most_slots()
    now = slots_on(base, preemptor.amounts, most)
    fitting_now = np.bincount(domains, weights=now, minlength=1).astype(np.int64)
    enough = np.flatnonzero(fitting_now >= preemptor.workers)
    if len(enough) and not (short > 0).any():
        # The tightest domain, so that the roomy ones stay whole for others.
        tightest = int(enough[fitting_now[enough].argmin()])
        return make_plan(base, preemptor, candidates, Choice((), True), tightest)
    one = cheapest_alone(
        candidates,
        may_end,
        base=base,
        ask=preemptor.amounts,
        most=most,
        slots=now,
        domains=domains,
        missing=preemptor.workers - fitting_now,
        short=np.maximum(short, 0),
        gives=pools.gives,
    )
    if one is not None:
        return make_plan(base, preemptor, candidates, Choice(one[:1], True), one[1])
    at_most = slots_on(base + candidates.freed_by(may_end, columns), preemptor.amounts, most)
    fitting_at_most = np.bincount(domains, weights=at_most, minlength=1).astype(np.int64)
    still_short = short - pools.gives[may_end].sum(axis=0)
    if fitting_at_most.max() < preemptor.workers or (still_short > 0).any():
        best = int(fitting_at_most.argmax())
        return Hopeless(
            workers=preemptor.workers,
            fitting_now=int(fitting_now.max()),
            fitting_at_most=int(fitting_at_most[best]),
            domain=None if preemptor.domain_of is None else best,
            candidates=int(may_end.sum()),
            protected=len(candidates) - int(may_end.sum()) - int(candidates.leaving.sum()),
            short=tuple(np.maximum(still_short, 0).tolist()),
        )
    order = candidates.order
    useful = (at_most > now)[candidates.column] & may_end[candidates.gang]
    helps = np.zeros(len(candidates), dtype=np.bool_)
    helps[candidates.gang[useful]] = True
    helps |= may_end & (pools.gives[:, short > 0] > 0).any(axis=1)
    gangs = order[helps[order]]
    board = Board.of(
        free=base,
        ask=preemptor.amounts,
        most=at_most,
        domains=domains,
        workers=preemptor.workers,
        gangs=gangs,
        entries=(candidates.gang[useful], candidates.column[useful], candidates.amounts[:, useful]),
        cost=candidates.cost_gpu_seconds[gangs],
        evictions=candidates.evictions[gangs],
        started_seconds=candidates.started_seconds[gangs],
        short=np.maximum(short, 0),
        gives=pools.gives[gangs],
        slots_elsewhere=now,
    )
    feasible = np.flatnonzero(fitting_at_most >= preemptor.workers)
    found, domain = best_choice(board, estimate(board, feasible), budget)
    chosen = tuple(gangs[list(found.gangs)].tolist())
    if len(feasible) > 1 and not found.exact:
        chosen, domain = _spare(base, preemptor, candidates, chosen, domain, short=short, gives=pools.gives)
    return make_plan(base, preemptor, candidates, Choice(chosen, found.exact), domain)


def _spare(
    base: IntArray,
    preemptor: Preemptor,
    candidates: Candidates,
    chosen: tuple[int, ...],
    domain: int,
    *,
    short: IntArray,
    gives: IntArray,
) -> tuple[tuple[int, ...], int]:
    """Let go whom another domain does without: a search that was cut short has not looked at all of them.

    Args:
        base: What is free once everything that is leaving is gone, [resource, column].
        preemptor: The gang that waits.
        candidates: The gangs that run.
        chosen: The gangs that end, which is enough in the domain.
        domain: Where the workers go.
        short: What is missing of each pool, [pool].
        gives: What each gang gives back to each pool, [gang, pool].
    """
    kept = list(chosen)
    for gang in sorted(chosen, key=lambda gang: (-int(candidates.cost_gpu_seconds[gang]), gang)):
        others = [other for other in kept if other != gang]
        gone = np.zeros(len(candidates), dtype=np.bool_)
        gone[others] = True
        slots = preemptor.slots(base + candidates.freed_by(gone, base.shape[1]))
        fitting = np.bincount(preemptor.domains(), weights=slots)
        if fitting.max() >= preemptor.workers and not (short > gives[others].sum(axis=0)).any():
            kept, domain = others, int(fitting.argmax())
    return tuple(kept), domain


def hopeless_text(no: Hopeless, *, domain: str = "domain") -> str:
    """Why ending others would not help, for people.

    Args:
        no: The answer.
        domain: What a domain is called, such as "rack".
    """
    ends = f"no job that runs may be ended for it ({no.protected} protected)"
    if no.candidates:
        ends = f"even with {counted(no.candidates, 'job')} ended for it"
        ends += f" ({no.protected} protected)" if no.protected else ""
    if no.fitting_at_most < no.workers:
        where = "" if no.domain is None else f" in the best {domain}"
        fit = f"{no.fitting_at_most} of {counted(no.workers, 'worker')} would fit{where}"
        return f"{ends}, {fit}" if no.candidates else f"{ends}: {fit}"
    missing = " and ".join(str(amount) for amount in no.short if amount)
    return (
        f"{ends}, {missing} of quota would be missing"
        if no.candidates
        else f"{ends}: {missing} of quota missing"
    )


def plan_text(found: Plan) -> str:
    """What a plan does, for people."""
    parts = []
    if found.victims:
        cost = f"at a cost of {found.cost_gpu_seconds} GPU-seconds"
        parts.append(f"ends {counted(len(found.victims), 'job')} ({_few(found.victims)}) {cost}")
    if found.waits_for:
        parts.append(
            f"waits for {counted(len(found.waits_for), 'job')} already ending ({_few(found.waits_for)})"
        )
    held = f"{counted(len(found.columns), 'node')} held for {counted(int(found.workers.sum()), 'worker')}"
    return f"{', '.join(parts) or 'ends nothing'}; {held}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def make_plan(
    base: IntArray,
    preemptor: Preemptor,
    candidates: Candidates,
    choice: Choice,
    domain: int,
) -> Plan:
    """The plan of a choice of gangs: what to hold, and what is freed.

    Args:
        base: What is free once everything that is leaving is gone, [resource, column].
        preemptor: The gang that waits.
        candidates: The gangs that run.
        choice: The gangs that end.
        domain: Where the workers go; 0 without domains.
    """
    victims = np.zeros(len(candidates), dtype=np.bool_)
    victims[list(choice.gangs)] = True
    freed = candidates.freed_by(victims, base.shape[1])
    columns, workers = _places(base, base + freed, preemptor, domain)
    waits = candidates.leaving[candidates.gang] & np.isin(candidates.column, columns)
    chosen = sorted(choice.gangs, key=lambda gang: int(candidates.rank[gang]))
    return Plan(
        victims=tuple(candidates.keys[gang] for gang in chosen),
        waits_for=tuple(sorted(candidates.keys[gang] for gang in np.unique(candidates.gang[waits]).tolist())),
        domain=None if preemptor.domain_of is None else domain,
        columns=columns,
        workers=workers,
        amounts=preemptor.amounts[:, None] * workers[None, :],
        freed=freed.sum(axis=1),
        cost_gpu_seconds=int(candidates.cost_gpu_seconds[victims].sum()),
        exact=choice.exact,
    )


def _places(
    before: IntArray, after: IntArray, preemptor: Preemptor, domain: int
) -> tuple[IntArray, IntArray]:
    """Columns that the preemptor will use, and its workers on each: room that is there before room to come.

    Args:
        before: What is free without the victims' room, [resource, column].
        after: What is free with it, [resource, column].
        preemptor: The gang that waits; it must fit.
        domain: Where it goes.

    Returns:
        Columns, ascending, [place], and workers, [place].
    """
    here = preemptor.domains() == domain
    slots = np.where(here, preemptor.slots(after), 0)
    columns = np.flatnonzero(slots)
    to_come = slots[columns] > preemptor.slots(before)[columns]
    # Among equals, full columns first, which leaves the fewest columns broken into.
    columns = columns[np.lexsort((columns, -slots[columns], to_come))]
    workers = np.diff(np.minimum(slots[columns].cumsum(), preemptor.workers), prepend=0)
    columns, workers = columns[workers > 0], workers[workers > 0]
    order = np.argsort(columns)
    assert int(workers.sum()) == preemptor.workers, "a plan that does not start the preemptor"
    return columns[order], workers[order]
