"""What a gang is told that fits into the hall but for its watts."""

from __future__ import annotations

import numpy as np

from datahall.planning import messages
from datahall.planning.hall import Hall
from datahall.planning.placing import Placing, place
from datahall.planning.power_tree import Refused, refused_text
from datahall.planning.shape import Shape
from datahall.planning.state import BoolArray, IntArray


def no_watts(hall: Hall, shape: Shape, fits: IntArray, watts: int) -> str:
    """Which power domain is short, by how many watts, for the gang at its least.

    Told of the place that room alone would choose or, where it needs no one rack, of the nodes with the most watts
    left: whichever lacks less.

    Args:
        hall: The hall.
        shape: What is to be packed.
        fits: Slots by room, [column]; they hold the gang.
        watts: What one worker reserves; 0 where no node of the model has a known cap.
    """
    fed_by = hall.fed_by()
    assert fed_by is not None, "only power domains limit watts here"
    fed_by = fed_by[: len(fits)]  # asked for later, there may be more nodes
    unknown = (fits > 0) & (fed_by >= 0) & (hall.nodes.gpu_watts[: len(fits)] == 0)
    fits = np.where(unknown, 0, fits)
    by_room = place(hall.topology, fits, shape.demand(shape.least))
    if not isinstance(by_room, Placing):
        return _no_caps(hall, shape, unknown)
    workers = np.zeros(len(fits), dtype=np.int64)
    workers[by_room.columns] = by_room.workers
    found = [hall.power.allows(fed_by, workers * watts)]
    if not shape.required:
        by_watts = _richest(fits, hall.power.room(fed_by), shape.least)
        found.append(hall.power.allows(fed_by, by_watts * watts))
    refusals = [refused for refused in found if refused is not None]
    if len(refusals) < len(found):
        return f"needs {messages.demand(shape)}; no power domain has watts for all of it"
    return refused_text(min(refusals, key=_lack))


def _no_caps(hall: Hall, shape: Shape, unknown: BoolArray) -> str:
    nodes = [hall.nodes.name(int(column)) for column in np.flatnonzero(unknown)]
    names = ", ".join(sorted(nodes)[:3]) + (", ..." if len(nodes) > 3 else "")
    return (
        f"needs {messages.demand(shape)}; under a power domain only GPUs with a known power cap are used, and too few "
        f"of these are free: the cap is not known on {names}; the node label datahall.dev/gpu-cap-watts tells it"
    )


def _richest(fits: IntArray, room: IntArray, workers: int) -> IntArray:
    """Workers on the nodes with the most watts left, [column]."""
    order = np.argsort(-room, kind="stable")
    before = fits[order].cumsum() - fits[order]
    chosen = np.zeros_like(fits)
    chosen[order] = np.clip(workers - before, 0, fits[order])
    return chosen


def _lack(refused: Refused) -> int:
    return refused.asked_watts + refused.reserved_watts + refused.held_watts - refused.limit_watts
