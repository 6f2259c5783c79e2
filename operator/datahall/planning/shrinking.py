"""Shrinking: an elastic gang that makes way goes on with fewer workers, where that many still fit.

It starts again like everyone who makes way, but with room held for its return: what is left of the room that was made,
or any other. Of several, those of higher priority come back first.
"""

from __future__ import annotations

from collections.abc import Sequence

from datahall.planning import messages
from datahall.planning.books import Books
from datahall.planning.fitting import slots
from datahall.planning.held import Held, sum_watts
from datahall.planning.holds import Hold, by_node, watts_by_node
from datahall.planning.judging import Judge
from datahall.planning.placing import Placing, place
from datahall.planning.preemption import Plan
from datahall.planning.queues.spec import JOULES_PER_DAY
from datahall.planning.shape import Shape
from datahall.planning.state import IntArray
from datahall.planning.types import GangRequest
from datahall.planning.waiting import KindKey


def returns_of(
    books: Books, judge: Judge, victims: Sequence[Held], answer: Plan, preemptor: Hold
) -> dict[str, Hold]:
    """Room for the return of those victims that can do with fewer workers, by key.

    Args:
        books: The planner's memory.
        judge: What this pass knows of room.
        victims: Those who make way.
        answer: The plan for the gang that they make way for.
        preemptor: What is held for it.
    """
    elastic = [held for held in victims if _can_shrink(held)]
    if not elastic:
        return {}
    free: IntArray = judge.free.copy()
    for held in victims:
        free[:, held.columns] += held.amounts
    free[:, answer.columns] -= answer.amounts
    found: dict[str, Hold] = {}
    taken = books.holdings.uncharge(held.gang.key for held in victims)
    released = books.hall.power.below(sum_watts(victims))
    books.tree.charge(preemptor.gang.queue, preemptor.charges, 1)
    books.hall.power.hold(preemptor.node_watts)
    for held in sorted(elastic, key=lambda held: (-held.gang.priority, held.gang.key)):
        hold = _return(
            books,
            judge,
            held,
            free=free,
            released=released,
            departures=books.holdings.next_departures(len(victims)),
            preemptor=preemptor.gang,
        )
        if hold is not None:
            found[held.gang.key] = hold
            books.tree.charge(held.gang.queue, hold.charges, 1)
            books.hall.power.hold(hold.node_watts)
    for hold in (preemptor, *found.values()):
        books.tree.charge(hold.gang.queue, hold.charges, -1)
        books.hall.power.hold(hold.node_watts, -1)
    books.holdings.recharge(taken)
    return found


def _can_shrink(held: Held) -> bool:
    least = held.gang.min_workers
    return least is not None and least < len(held.placements) and not Shape.of(held.gang).shares


def _return(
    books: Books,
    judge: Judge,
    held: Held,
    *,
    free: IntArray,
    released: IntArray,
    departures: range,
    preemptor: GangRequest,
) -> Hold | None:
    """Room for one gang with as many workers as it had, or fewer; taken from `free`."""
    shape, model = Shape.of(held.gang), held.placements[0].gpu_model
    units = judge.quota.units(KindKey.of(held.gang), model)
    workers = len(held.placements)
    for resource, unit in units.items():
        room = books.tree.room(held.gang.queue, resource)
        if room is not None:
            workers = min(workers, room // unit)
    if workers < shape.least:
        return None
    hall = books.hall
    fits = slots(free, shape, judge.columns(shape, model, held.gang.queue))
    fits = judge.within_power(shape, model, fits, released=released)
    placing = place(hall.topology, fits, shape.demand(workers))
    if not isinstance(placing, Placing):
        return None
    amounts = shape.array[:, None] * placing.workers
    free[:, placing.columns] -= amounts
    return Hold(
        held.gang,
        model,
        by_node(books, placing.columns, amounts),
        watts_by_node(books, placing.columns, placing.workers, judge.quota.worker_watts(shape, model)),
        {r: unit * placing.total for r, unit in units.items() if r != JOULES_PER_DAY},
        frozenset((held.gang.key,)),
        departures,
        None,
        messages.shrunk(preemptor, len(held.placements), placing.total),
        returns=True,
    )
