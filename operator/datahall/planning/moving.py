"""Moving: who starts again elsewhere, so that a gang finds room that is there but scattered.

Gangs move only if each of them fits elsewhere, whole, at once; so nobody loses more than a restart, and no rights are
needed. The price is what that costs, in GPU-seconds; it is paid once the waiting gang has waited for as much: whoever
decides like that pays at most twice what the best decision with hindsight would have (the ski-rental rule). And no more
gangs than a cap move within an hour.

What would move is told before it is paid for: the plan of a gang at the head of a line is kept, with its price and the
time at which it is carried out. Nothing is held for such a plan, and nobody ends for it.
"""

from __future__ import annotations

import math

import numpy as np

from datahall.planning import messages
from datahall.planning.books import Books
from datahall.planning.fitting import slots
from datahall.planning.held import Held, sum_watts
from datahall.planning.holds import Hold, Holds, by_node, watts_by_node
from datahall.planning.judging import Judge
from datahall.planning.move_plans import Move, MovePlan
from datahall.planning.placing import Placing, place
from datahall.planning.preemption import Hopeless, Plan, Preemptor, plan
from datahall.planning.shape import Shape
from datahall.planning.state import GPU, IntArray
from datahall.planning.types import Evict, EvictCause, GangRequest
from datahall.planning.waiting import KindKey

MOVES_PER_HOUR = 60
"""How many gangs move within an hour, at most."""

_TRIES = 8
"""How often a plan is made anew without a gang that finds no other place."""

_HOUR_SECONDS = 3600.0

_LOOK_AHEAD_EVERY_SECONDS = 1.0
"""How often a plan is made that nobody has paid for yet, per thousand gangs that are held: it takes longer with each of
them, and must not take the time of decisions."""


class Mover:
    """Finds who moves, for the length of one cycle."""

    def __init__(self, books: Books, judge: Judge, holds: Holds, now_seconds: float) -> None:
        self._books = books
        self._judge = judge
        self._holds = holds
        self._now = now_seconds

    def move(
        self, kind: KindKey, gang: GangRequest, model: str, wants: Preemptor
    ) -> tuple[list[Hold], list[Evict]] | None:
        """Have others moved for a gang that has quota and no room.

        Args:
            kind: Its kind.
            gang: The gang.
            model: The GPU model.
            wants: The gang as one for whom others end.

        Returns:
            What is held, for the gang first, and who moves; None if it is not worth it or not possible.
        """
        moved = self._holds.moved_seconds
        while moved and not self._now - _HOUR_SECONDS < moved[0] <= self._now:
            moved.popleft()
        waits = kind.shape.gpus * kind.shape.least
        if not self._is_room(model, waits):
            return None
        worth = waits * max(0.0, self._now - gang.created_seconds)
        if worth > 0 and len(moved) < MOVES_PER_HOUR:
            found = self._plan(wants, worth)
            if found is not None and not found[0].victims:
                return None
            if found is not None and len(moved) + len(found[0].victims) <= MOVES_PER_HOUR:
                moved.extend([self._now] * len(found[0].victims))
                self._holds.move_plans.pop(gang.key, None)
                return self._decide(kind, gang, model, *found)
        fit = int(slots(self._judge.free, kind.shape, wants.eligible).sum())
        if (
            waits > 0 and kind.shape.least - fit <= MOVES_PER_HOUR
        ):  # who moves rarely makes room for more than one
            self._look_ahead(gang, wants, waits)
        return None

    def _is_room(self, model: str, gpus: int) -> bool:
        """Whether so many GPUs of a model are free at all, or about to be: who moves takes as many as he leaves."""
        nodes = self._books.hall.nodes
        holdings = self._books.holdings
        number = nodes.model_id(model)
        of_model = np.ones(nodes.columns, dtype=np.bool_) if number is None else nodes.model_ids == number
        free = int(self._judge.free[GPU, of_model].clip(0).sum())
        leaving = (held for key in holdings.leaving() if (held := holdings.get(key)) is not None)
        return free + sum(math.ceil(held.gpus) for held in leaving) >= gpus

    def _look_ahead(self, gang: GangRequest, wants: Preemptor, waits: int) -> None:
        """Plan what nobody has paid for yet, and keep that to be told.

        Args:
            gang: The gang.
            wants: The gang as one for whom others end.
            waits: GPUs that it waits for: what it has paid grows by as many GPU-seconds each second.
        """
        plans, now = self._holds.move_plans, self._now
        every = _LOOK_AHEAD_EVERY_SECONDS * max(1.0, len(self._books.holdings) / 1000)
        if 0 <= now - self._holds.looked_ahead_seconds < every:
            return
        self._holds.looked_ahead_seconds = now
        for key in [key for key, known in plans.items() if not known.is_told(now)]:
            del plans[key]
        plans.pop(gang.key, None)
        found = self._plan(wants, math.inf)
        if found is None or not found[0].victims:
            return
        answer, places = found
        due = gang.created_seconds + answer.cost_gpu_seconds / waits
        too_many = len(self._holds.moved_seconds) + len(answer.victims) - MOVES_PER_HOUR
        if too_many > 0:
            due = max(due, self._holds.moved_seconds[too_many - 1] + _HOUR_SECONDS)
        plans[gang.key] = MovePlan(self._moves(answer, places), answer.cost_gpu_seconds, max(due, now), now)

    def _moves(self, answer: Plan, places: dict[str, Placing]) -> tuple[Move, ...]:
        holdings, nodes = self._books.holdings, self._books.hall.nodes
        candidates = holdings.candidates(self._now, self._books.minimum_run_seconds)
        cost = dict(zip(candidates.keys, candidates.cost_gpu_seconds.tolist(), strict=True))
        found = []
        for key in answer.victims:
            held = holdings.get(key)
            assert held is not None, "victims are held"
            source = sorted({place.node for place in held.placements})
            target = sorted({nodes.name(column) for column in places[key].columns.tolist()})
            found.append(Move(held.gang.name, tuple(source), tuple(target), cost[key]))
        return tuple(sorted(found, key=lambda move: (-move.gpu_seconds, move.name)))

    def _plan(self, wants: Preemptor, worth: float) -> tuple[Plan, dict[str, Placing]] | None:
        """Who moves, and where to; None if that is dearer than it is worth, or somebody finds no place."""
        holdings = self._books.holdings
        candidates = holdings.candidates(self._now, self._books.minimum_run_seconds)
        settled = self._now - candidates.started_seconds >= candidates.minimum_run_seconds
        allowed = holdings.preemptible() & ~candidates.leaving & settled
        allowed &= candidates.cost_gpu_seconds <= worth
        number = {key: i for i, key in enumerate(candidates.keys)}
        for _ in range(_TRIES):
            if not allowed.any():
                return None
            answer = plan(self._judge.free, wants, candidates, allowed)
            if isinstance(answer, Hopeless) or answer.cost_gpu_seconds > worth:
                return None
            if len(answer.victims) > MOVES_PER_HOUR:
                return None
            places, homeless = self._elsewhere(wants, answer)
            if homeless is None:
                return answer, places
            allowed[number[homeless]] = False
        return None

    def _elsewhere(self, wants: Preemptor, answer: Plan) -> tuple[dict[str, Placing], str | None]:
        """Other places for those who would move, largest first; or the first who finds none."""
        books, power = self._books, self._books.hall.power
        victims = [held for key in answer.victims if (held := books.holdings.get(key)) is not None]
        free: IntArray = self._judge.free.copy()
        for held in victims:
            free[:, held.columns] += held.amounts
        free[:, answer.columns] -= answer.amounts
        places: dict[str, Placing] = {}
        released = power.below(sum_watts(victims))
        taken = [watts_by_node(books, answer.columns, answer.workers, wants.watts)]
        power.hold(taken[0])
        try:
            for held in sorted(victims, key=lambda held: (-held.gpus, held.gang.key)):
                found = self._place(held, free, released)
                if found is None:
                    return {}, held.gang.key
                places[held.gang.key] = found
                free[:, found.columns] -= Shape.of(held.gang).array[:, None] * found.workers
                taken.append(self._watts(held, found))
                power.hold(taken[-1])
        finally:
            for watts in taken:
                power.hold(watts, -1)
        return places, None

    def _watts(self, held: Held, to: Placing) -> dict[str, int]:
        """Watts that a gang takes on each node elsewhere."""
        each = self._judge.quota.worker_watts(Shape.of(held.gang), held.placements[0].gpu_model)
        return watts_by_node(self._books, to.columns, to.workers, each)

    def _place(self, held: Held, free: IntArray, released: IntArray) -> Placing | None:
        """Where a gang would go that has as many workers as now and stays on its GPU model; None for nowhere."""
        workers = len(held.placements)
        shape = Shape.of(held.gang)._replace(least=workers, workers=workers)
        model = held.placements[0].gpu_model
        fits = slots(free, shape, self._judge.columns(shape, model, held.gang.queue))
        fits = self._judge.within_power(shape, model, fits, released=released)
        found = place(self._books.hall.topology, fits, shape.demand())
        return found if isinstance(found, Placing) else None

    def _decide(
        self, kind: KindKey, gang: GangRequest, model: str, answer: Plan, places: dict[str, Placing]
    ) -> tuple[list[Hold], list[Evict]]:
        books, shape = self._books, kind.shape
        nodes = books.hall.nodes
        need = messages.demand(shape)
        departures = books.holdings.next_departures(len(answer.victims))
        names = []
        others: list[Hold] = []
        evicts: list[Evict] = []
        for key in answer.victims:
            held = books.holdings.get(key)
            assert held is not None, "victims are held"
            books.holdings.leave(held)
            names.append(held.gang.name)
            to = sorted({nodes.name(column) for column in places[key].columns.tolist()})
            text = messages.moved(gang, need, to)
            each = Shape.of(held.gang).array
            others.append(
                Hold(
                    held.gang,
                    held.placements[0].gpu_model,
                    by_node(books, places[key].columns, each[:, None] * places[key].workers),
                    self._watts(held, places[key]),
                    dict(held.charges),
                    frozenset(answer.victims),
                    departures,
                    None,
                    text,
                    returns=True,
                )
            )
            evicts.append(Evict(key, gang.key, text, EvictCause.MOVED))
        domain = None
        if answer.domain is not None and shape.level is not None:
            domain = books.hall.topology.domain(shape.level, answer.domain)
        mine = Hold(
            gang,
            model,
            by_node(books, answer.columns, answer.amounts),
            watts_by_node(
                books, answer.columns, answer.workers, self._judge.quota.worker_watts(shape, model)
            ),
            {
                r: unit * shape.least
                for r, unit in self._judge.quota.units(kind, model).items()
                if r != "joules_per_day"
            },
            frozenset((*answer.victims, *answer.waits_for)),
            departures,
            domain,
            messages.moving_for(need, names, len(answer.columns)),
        )
        return [mine, *others], evicts
