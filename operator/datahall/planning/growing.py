"""Growing: elastic gangs that started with fewer workers than they can use get more when room has come.

To grow, a gang starts again with all its workers. That is worth it once it has run on for so long that what it missed,
in GPU-seconds, is what a restart costs (the ski-rental rule, as for moves), and if it does not end soon anyway. Gangs
that wait go first: nobody grows in a cycle in which somebody in the hall waits for room or quota.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from datahall.planning import messages
from datahall.planning.books import Books
from datahall.planning.fitting import slots
from datahall.planning.held import Held
from datahall.planning.holds import Hold
from datahall.planning.judging import Judge
from datahall.planning.placing import Demand, Placing, place_beside
from datahall.planning.queues.spec import JOULES_PER_DAY
from datahall.planning.shape import Shape
from datahall.planning.types import Evict, EvictCause
from datahall.planning.waiting import KindKey

GROWTHS_PER_CYCLE = 4
"""How many gangs grow in one cycle, at most."""

_RESTARTS_LEFT = 5.0
"""A gang that ends within so many restarts is left alone."""


def grow(books: Books, judge: Judge, hold: Callable[[Hold], None], *, now_seconds: float) -> list[Evict]:
    """Gangs that start again with more workers.

    Args:
        books: The planner's memory.
        judge: What this pass knows of room.
        hold: Called with the room that is to be held for each.
        now_seconds: The time, in seconds since the epoch.
    """
    found: list[Evict] = []
    for held in books.holdings:
        if len(found) == GROWTHS_PER_CYCLE:
            break
        gang = held.gang
        now = len(held.placements)
        if held.leaving or not gang.preemptible or not 0 < now < gang.workers or Shape.of(gang).shares:
            continue
        grown = _more(books, judge, held, now_seconds)
        if grown is not None:
            room, evict = grown
            books.holdings.leave(held)
            hold(room)
            found.append(evict)
    return found


def _more(books: Books, judge: Judge, held: Held, now_seconds: float) -> tuple[Hold, Evict] | None:
    gang, now = held.gang, len(held.placements)
    shape, model = Shape.of(gang), held.placements[0].gpu_model
    ran = now_seconds - held.started_seconds
    restart = held.restart_seconds
    left = None if held.end_seconds is None else held.end_seconds - now_seconds
    if ran < books.minimum_run_seconds.get(gang.queue, 0.0):
        return None
    if left is not None and left < _RESTARTS_LEFT * restart:
        return None
    kind = KindKey.of(gang)
    more = shape.workers - now
    for resource, unit in judge.quota.units(kind, model).items():
        room = books.tree.room(gang.queue, resource)
        if room is not None:
            more = min(more, room // unit)
    if more < 1 or ran * more < restart * now:
        return None
    hall = books.hall
    fits = slots(judge.spare(), shape, judge.columns(shape, model, gang.queue))
    fits = judge.within_power(shape, model, fits)
    beside = np.repeat(held.columns, [int(n) for n in held.workers])
    placing = place_beside(hall.topology, fits, Demand(1, more, shape.level, shape.required), beside)
    if not isinstance(placing, Placing):
        return None
    then = now + placing.total
    if ran * placing.total < restart * now:
        return None
    each = shape.array
    places = {
        hall.nodes.name(column): each * int(workers)
        for column, workers in zip(held.columns.tolist(), held.workers.tolist(), strict=True)
    }
    for column, workers in zip(placing.columns.tolist(), placing.workers.tolist(), strict=True):
        name = hall.nodes.name(column)
        places[name] = places.get(name, each * 0) + each * workers
    watts = judge.quota.worker_watts(shape, model) if hall.fed_by() is not None else 0
    text = messages.grown(now, then)
    hold = Hold(
        gang,
        model,
        {name: (int(a[0]), int(a[1]), int(a[2])) for name, a in places.items()},
        {name: watts * int(a[0]) // shape.gpus for name, a in places.items()} if watts else {},
        {r: u * then for r, u in judge.quota.units(kind, model).items() if r != JOULES_PER_DAY},
        frozenset((gang.key,)),
        books.holdings.next_departures(1),
        None,
        text,
        returns=True,
    )
    return hold, Evict(gang.key, "", text, EvictCause.RESIZED)
