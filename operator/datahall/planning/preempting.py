"""Making room: whom a waiting gang may have ended for it, what is held for it meanwhile, and when that is given up.

Two rights, and no others. By priority: gangs of its own queue with lower priority. By quota: a gang that is within its
queue's nominal quota takes back from queues that hold more than theirs, whatever their priority, at most what they
borrowed (rounded up to a gang). Nobody is ended before the minimum run time of the queue, nor a gang that this one made
way for, unless by priority; replicas of services never. And nobody is ended for a gang that would not start then: the
plan is tried on the quota tree first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from datahall.planning import candidates as ending
from datahall.planning import messages, preemption
from datahall.planning.books import Books
from datahall.planning.candidates import Candidates
from datahall.planning.fitting import limited_by_power
from datahall.planning.holdings import Held
from datahall.planning.holds import Hold, Holds, by_node, watts_by_node
from datahall.planning.judging import Judge
from datahall.planning.moving import Mover
from datahall.planning.preemption import (
    BUDGET_ENTRIES,
    Hopeless,
    Plan,
    Pools,
    Preemptor,
    no_pools,
    plan,
)
from datahall.planning.queues.reclaim import reclaimable
from datahall.planning.queues.spec import JOULES_PER_DAY
from datahall.planning.queues.verdicts import Fits
from datahall.planning.shape import Shape
from datahall.planning.shrinking import returns_of
from datahall.planning.state import BoolArray, IntArray
from datahall.planning.types import Evict, EvictCause, GangRequest, Level, WaitReason
from datahall.planning.verdicts import Refusal
from datahall.planning.victims import Budget
from datahall.planning.waiting import KindKey
from datahall.planning.watts_preemption import WattsTrial

PLANS_PER_CYCLE = 8
"""How many plans one cycle makes at most for the first of a kind: decisions on others must not wait for them."""

ENTRIES_PER_CYCLE = 300_000
"""How much all plans of a cycle may look at before others of these kinds are left to the next, in gangs on nodes."""

TRY_AGAIN_SECONDS = 5.0
"""How long a gang that nobody could make room for is not tried again, whatever comes and goes."""

_MAY_END_OTHERS = frozenset(
    {
        WaitReason.QUOTA_EXCEEDED,
        WaitReason.BORROWED_AWAY,
        WaitReason.POWER_BUDGET,
        WaitReason.INSUFFICIENT_GPUS,
        WaitReason.INSUFFICIENT_RESOURCES,
        WaitReason.NO_ONE_DOMAIN,
        WaitReason.RESERVED,
        WaitReason.BEHIND_OTHERS,
    }
)


_Giving = tuple[list[str], IntArray, IntArray]
"""Entries of a queue's quota; its gangs in the order in which they give back, by their place in
`Holdings.candidates`, [place]; and what each is charged, [entry, place]."""


class RoomMaker:
    """Finds whom to end, for the length of one cycle."""

    def __init__(self, books: Books, judge: Judge, holds: Holds, now_seconds: float) -> None:
        self._books = books
        self._judge = judge
        self._holds = holds
        self._now = now_seconds
        self._plans_left = PLANS_PER_CYCLE
        self._entries_left = ENTRIES_PER_CYCLE
        self._candidates: Candidates | None = None
        self._candidates_version = -1
        self._coming: IntArray = np.zeros((3, 0), dtype=np.int64)
        self._in_order: IntArray | None = None
        self._giving_of: dict[str, _Giving] = {}
        self._mover = Mover(books, judge, holds, now_seconds)

    @property
    def goes_on(self) -> bool:
        """Whether more plans may be made for gangs of a kind for whose first others end already."""
        return self._entries_left > 0

    def make_room(
        self, kind: KindKey, gang: GangRequest, refusal: Refusal, *, further: bool = False
    ) -> tuple[list[Hold], list[Evict]] | str | None:
        """Have others ended for a refused gang.

        Args:
            kind: Its kind.
            gang: The gang.
            refusal: Why it waits.
            further: Whether others end already for one of this kind (see `goes_on`).

        Returns:
            What is held for it, and for those who move, and who ends; or why nobody can make room, for people; or
            None if that was not asked now (it has no right to, or too many have asked in this cycle).
        """
        if refusal.reason not in _MAY_END_OTHERS or not len(self._books.holdings):
            return None
        if self._plans_left <= 0 and not further:
            return None
        if self._holds.hopeless_until.get(kind, 0.0) > self._now:
            return None
        hopeless: str | None = None
        models = dict.fromkeys((refusal.model, *(other.model for other in refusal.beside)))
        for model in models:
            found = self._on_model(kind, gang, model)
            if isinstance(found, tuple):
                return found
            hopeless = hopeless or found
        # Who moves frees room, and no quota: only where that alone is missing does the gang start then.
        for model in refusal.models_for_room():
            wants = self._preemptor(_fewest(kind.shape), model, kind.queue)
            moved = self._mover.move(kind, gang, model, wants)
            if moved is not None:
                return moved
        self._holds.give_up_on(kind, self._now + TRY_AGAIN_SECONDS, self._now)
        return hopeless

    def _on_model(
        self, kind: KindKey, gang: GangRequest, model: str
    ) -> tuple[list[Hold], list[Evict]] | str | None:
        books, shape = self._books, kind.shape
        least = _fewest(shape)
        amounts = {r: unit * shape.least for r, unit in self._judge.quota.units(kind, model).items()}
        verdict = books.tree.verdict(kind.queue, amounts)
        candidates = self._all()
        own = self._of_lower_priority(kind, gang)
        within = isinstance(verdict, Fits) and not verdict.borrowed
        borrowed = self._borrowed(kind, gang, amounts, within=within)
        if not ((own | borrowed).any() or candidates.leaving.any()):
            return None
        self._plans_left -= 1
        preemptor = self._preemptor(least, model, kind.queue)
        hopeless = None
        # What was borrowed goes back before anyone ends who is where he belongs.
        for allowed in (borrowed, own | borrowed) if borrowed.any() else (own,):
            pools, resources = no_pools(len(candidates)), list[str]()
            if not isinstance(verdict, Fits):
                found = self._pools(kind.queue, amounts, allowed | candidates.leaving)
                if found is None:
                    return None
                pools, resources = found
            budget = Budget(BUDGET_ENTRIES)
            answer = plan(
                self._judge.free,
                preemptor,
                candidates,
                allowed,
                pools=pools,
                coming=self._coming,
                budget=budget,
            )
            self._entries_left -= BUDGET_ENTRIES - budget.left + len(candidates.gang)
            if preemptor.most_workers is not None:
                answer = self._with_watts(answer, least, preemptor, allowed, pools)
            if isinstance(answer, Hopeless):
                hopeless = hopeless_text(answer, shape, resources)
            elif self._starts(kind.queue, amounts, answer):
                return self._hold(gang, shape, model, amounts, answer)
        return hopeless

    def _with_watts(
        self, answer: Plan | Hopeless, least: Shape, preemptor: Preemptor, allowed: BoolArray, pools: Pools
    ) -> Plan | Hopeless:
        """Whom to end if what they give back to power domains counts, too, where these lack watts.

        Args:
            answer: The answer without that.
            least: The gang, with only the workers that it cannot do without.
            preemptor: The same for `preemption`.
            allowed: Who may be ended, [gang].
            pools: What quota lacks.
        """
        if isinstance(answer, Plan) and not answer.victims:
            return answer
        books, candidates = self._books, self._all()
        held = [books.holdings.get(key) for key in candidates.keys]
        trial = WattsTrial(
            books.hall,
            least,
            preemptor,
            candidates,
            self._judge.free + self._coming,
            [each.node_watts if each is not None else {} for each in held],
            books.holdings.leaving_watts(),
            pools,
        )
        found = trial.trim(answer) if isinstance(answer, Plan) else trial.plan(allowed)
        self._entries_left -= trial.trials * len(candidates.gang)
        if isinstance(answer, Hopeless) and trial.at_most is not None:
            return replace(answer, fitting_at_most=max(answer.fitting_at_most, trial.at_most))
        return answer if found is None else found

    # ---- who may be ended

    def _all(self) -> Candidates:
        books = self._books
        # Gangs that start in this cycle hold something from then on, and those who leave are nobody's victims any more.
        if self._candidates is None or self._candidates_version != books.holdings.version:
            self._candidates_version = books.holdings.version
            self._in_order, self._giving_of = None, {}
            self._candidates = found = books.holdings.candidates(self._now, books.minimum_run_seconds)
            self._coming = found.freed_by(found.leaving, books.hall.nodes.columns)
        return self._candidates

    def _of_lower_priority(self, kind: KindKey, gang: GangRequest) -> BoolArray:
        """Gangs of its own queue that may be ended for it, [gang]."""
        holdings = self._books.holdings
        allowed: BoolArray = ending.evictable(
            self._all(), priority=kind.priority, now_seconds=self._now, made_way_for=self._avoid(gang)
        )
        return allowed & holdings.of_queue(kind.queue) & holdings.preemptible()

    def _borrowed(
        self, kind: KindKey, gang: GangRequest, amounts: dict[str, int], *, within: bool
    ) -> BoolArray:
        """Gangs of other queues that hold what these borrowed, and may be ended for it, [gang]."""
        books = self._books
        borrowers = (
            self._borrowers(kind.queue, amounts) if within else reclaimable(books.tree, kind.queue, amounts)
        )
        allowed: BoolArray = np.zeros(len(books.holdings), dtype=np.bool_)
        if borrowers:
            right = books.holdings.preemptible() & ending.reclaimable(
                self._all(), priority=kind.priority, now_seconds=self._now, made_way_for=self._avoid(gang)
            )
            for name in borrowers:
                if name != kind.queue:
                    self._allow_what_was_borrowed(name, right, allowed)
        return allowed

    def _avoid(self, gang: GangRequest) -> frozenset[str]:
        """Gangs that it made way for itself, and that hold something."""
        avoid = ending.all_made_way_for(gang.key, self._holds.made_way_for)
        return frozenset(key for key in avoid if self._books.holdings.get(key) is not None)

    def _borrowers(self, queue: str, amounts: dict[str, int]) -> list[str]:
        """Queues that hold more than their nominal of something that is asked for, and are not this one."""
        tree = self._books.tree
        found = [
            name
            for name in self._books.holdings.rates()
            if name != queue and any(self._over(name, resource) > 0 for resource in amounts)
        ]
        return sorted(found, key=lambda name: (tree.parent(name) != tree.parent(queue), name))

    def _over(self, queue: str, resource: str) -> int:
        """How much a queue holds beyond its nominal, in the entry of a resource; 0 for one without quota at all."""
        tree = self._books.tree
        return tree.beyond_nominal(queue, resource) if tree.parent(queue) else 0

    def _allow_what_was_borrowed(self, queue: str, right: BoolArray, allowed: BoolArray) -> None:
        """Allow the gangs of a queue that hold what it borrowed: lowest priority first, then the latest started.

        What leaves already is given back without anyone asking: only the rest is still to be taken.
        """
        entries, rows, charges = self._giving(queue)
        leaving_of = self._books.holdings.leaving_of
        left = [self._over(queue, entry) - leaving_of(queue, entry) for entry in entries]
        held = np.where(right[rows], charges, 0)
        before = held.cumsum(axis=1) - held
        gives = (held > 0) & (before < np.array(left, dtype=np.int64)[:, None])
        allowed[rows[gives.any(axis=0)]] = True

    def _giving(self, queue: str) -> _Giving:
        """The gangs of a queue in the order in which they give back, with what each is charged, by entry."""
        self._all()
        found = self._giving_of.get(queue)
        if found is None:
            tree, holdings = self._books.tree, self._books.holdings
            if self._in_order is None:
                self._in_order = holdings.first_to_give_back()
            rows = self._in_order[holdings.of_queue(queue)[self._in_order]]
            by_entry: dict[str, IntArray] = {}
            for resource, amounts in holdings.charges_of(rows).items():
                entry = tree.entry(queue, resource)
                by_entry[entry] = by_entry[entry] + amounts if entry in by_entry else amounts
            charges = np.array(list(by_entry.values()), dtype=np.int64)
            found = self._giving_of[queue] = list(by_entry), rows, charges
        return found

    def _pools(
        self, queue: str, amounts: dict[str, int], giving: BoolArray
    ) -> tuple[Pools, list[str]] | None:
        """What quota lacks, and what each gang gives back of it; None if no end of a gang gives any."""
        tree, holdings = self._books.tree, self._books.holdings
        short, resources = [], []
        for resource, asked in amounts.items():
            room = tree.room(queue, resource)
            if room is None or room >= asked:
                continue
            if resource == JOULES_PER_DAY:
                return None
            short.append(asked - room)
            resources.append(resource)
        gives = np.array([np.where(giving, holdings.charged(resource), 0) for resource in resources])
        return (
            Pools(np.array(short, dtype=np.int64), gives.astype(np.int64).reshape(-1, len(giving)).T),
            resources,
        )

    # ---- the plan

    def _preemptor(self, shape: Shape, model: str, queue: str) -> Preemptor:
        hall, judge = self._books.hall, self._judge
        columns = judge.columns(shape, model, queue)
        domain_of = None
        if shape.required and shape.level is not None and shape.level is not Level.HALL:
            domain_of = hall.topology.numbers(shape.level, len(columns))
        most, watts, fed_by = None, 0, hall.fed_by()
        if fed_by is not None:
            everywhere = np.where(columns, shape.workers, 0).astype(np.int64)
            watts = judge.quota.worker_watts(shape, model)
            limited = limited_by_power(hall, shape, everywhere, watts, group_of=domain_of)
            # Nodes that could each power all workers can so in any combination, too.
            limited = np.where(hall.power.room(fed_by) >= shape.workers * watts, everywhere, limited)
            most = None if (limited == everywhere).all() else limited
        return Preemptor(shape.least, shape.array, columns, domain_of, most, watts)

    def _starts(self, queue: str, amounts: dict[str, int], answer: Plan) -> bool:
        """Whether quota lets the gang start once the victims are gone: tried, not reckoned."""
        books = self._books
        books.holdings.uncharge_leaving()
        taken = books.holdings.uncharge(answer.victims)
        try:
            return isinstance(books.tree.verdict(queue, amounts), Fits)
        finally:
            books.holdings.recharge(taken)
            books.holdings.uncharge_leaving(1)

    def _leave(self, victims: list[Held]) -> None:
        """Victims are ending from now on; nothing else of what is known of the candidates has changed."""
        holdings, candidates = self._books.holdings, self._all()
        for held in victims:
            holdings.leave(held)
            candidates.leaving[held.row] = True
            entries = candidates.entries_of(held.row)
            self._coming[:, candidates.column[entries]] += candidates.amounts[:, entries]
        self._candidates_version = holdings.version

    def _hold(
        self, gang: GangRequest, shape: Shape, model: str, amounts: dict[str, int], answer: Plan
    ) -> tuple[list[Hold], list[Evict]]:
        books = self._books
        domain = None
        if answer.domain is not None and shape.level is not None:
            domain = books.hall.topology.domain(shape.level, answer.domain)
        names = [self._name(key) for key in answer.victims]
        need = messages.demand(shape)
        spent = {JOULES_PER_DAY}
        departures = books.holdings.next_departures(len(answer.victims))
        hold = Hold(
            gang,
            model,
            by_node(books, answer.columns, answer.amounts),
            watts_by_node(
                books, answer.columns, answer.workers, self._judge.quota.worker_watts(shape, model)
            ),
            {r: a for r, a in amounts.items() if r not in spent},
            frozenset((*answer.victims, *answer.waits_for)),
            range(departures.stop) if answer.needs_leaving_watts else departures,
            domain,
            messages.making_room(
                need, names, [self._name(key) for key in answer.waits_for], len(answer.columns)
            ),
        )
        victims = [held for key in answer.victims if (held := books.holdings.get(key)) is not None]
        returns = returns_of(books, self._judge, victims, answer, hold)
        evicts = []
        self._leave(victims)
        for held in victims:
            key = held.gang.key
            before = self._holds.made_way_for.get(key, frozenset())
            self._holds.made_way_for[key] = before | {gang.key}
            if key in returns:
                evicts.append(Evict(key, gang.key, returns[key].message, EvictCause.RESIZED))
            else:
                same_queue = held.gang.queue == gang.queue
                evicts.append(Evict(key, gang.key, messages.made_way(gang, need, same_queue=same_queue)))
        return [hold, *returns.values()], evicts

    def _name(self, key: str) -> str:
        held = self._books.holdings.get(key)
        return key if held is None else held.gang.name


def _fewest(shape: Shape) -> Shape:
    """The shape with only the workers that it cannot do without."""
    return shape._replace(workers=shape.least)


def hopeless_text(no: Hopeless, shape: Shape, resources: Iterable[str]) -> str:
    """Why ending others would not help, for people."""
    domain = {Level.HOST: "node", Level.RACK: "rack", Level.BLOCK: "block"}.get(
        shape.level or Level.HALL, "domain"
    )
    if no.short and any(no.short):
        short = tuple(
            amount // 1000 if resource.startswith("gpu") else amount
            for amount, resource in zip(no.short, resources, strict=True)
        )
        no = replace(no, short=short)
    return preemption.hopeless_text(no, domain=domain)
