"""How many workers of a shape fit where: pure functions of the hall's arrays, that choose and change nothing.

Room is looked at in four ways: free now, free once every gang has ended (`lasting`), the whole empty hall (`ever`), and
free with something set aside. A worker that shares a GPU fits into the pieces of GPUs that are shared already, and into
whole ones; where room is kept or made for it, only whole ones count.
"""

from __future__ import annotations

import numpy as np

from datahall.planning.hall import Hall
from datahall.planning.shape import Shape
from datahall.planning.state import GPU, BoolArray, IntArray, NodeArrays
from datahall.planning.types import WHOLE_GPU_MILLI


def has_model(nodes: NodeArrays, shape: Shape, model: str) -> BoolArray:
    """Columns of known nodes with a GPU model; every known node for a shape without GPUs."""
    if shape.gpus == 0:
        return nodes.known.copy()
    columns: BoolArray = nodes.known & (nodes.model_ids == nodes.model_id(model)) & (nodes.total[GPU] > 0)
    return columns


def eligible(nodes: NodeArrays, shape: Shape, model: str) -> BoolArray:
    """Columns where workers may go: they take new pods, have the model, and are not avoided."""
    columns: BoolArray = nodes.schedulable & has_model(nodes, shape, model)
    for name in shape.avoid:
        column = nodes.column(name)
        if column is not None:
            columns[column] = False
    return columns


def slots(
    available: IntArray, shape: Shape, columns: BoolArray, *, pieces: IntArray | None = None
) -> IntArray:
    """How many workers of a shape fit into each column, at most as many as there are, [column].

    Args:
        available: What may be used, [resource, column]; whole GPUs only.
        shape: What is to be packed.
        columns: Columns that may be used.
        pieces: Thousandths free of each shared GPU, [card, column]; None if none may be used.
    """
    counts: IntArray = np.where(columns, shape.workers, 0).astype(np.int64)
    if shape.gpus:
        if shape.shares:
            cards = available[GPU].clip(0) * (WHOLE_GPU_MILLI // shape.gpu_milli)
            if pieces is not None:
                cards += (pieces // shape.gpu_milli).sum(axis=0)
            np.minimum(counts, cards, out=counts)
        else:
            np.minimum(counts, available[GPU] // shape.gpus, out=counts)
    for row, amount in ((1, shape.cpu_milli), (2, shape.memory_bytes)):
        if amount > 0:
            np.minimum(counts, available[row] // amount, out=counts)
    return np.maximum(counts, 0, out=counts)


def lasting(nodes: NodeArrays) -> IntArray:
    """What is free once every held gang has ended, with nothing else changed, [resource, column]."""
    return nodes.total - nodes.pods


def limited_by_power(
    hall: Hall,
    shape: Shape,
    fits: IntArray,
    watts: int,
    *,
    group_of: IntArray | None = None,
    released: IntArray | None = None,
) -> IntArray:
    """Fewer slots, such that workers on all of them stay within every power budget, [column].

    A GPU whose cap nobody knows may draw anything: below a power domain it is not used.

    Args:
        hall: The hall.
        shape: What is to be packed.
        fits: Slots by room, [column].
        watts: What one worker reserves.
        group_of: See `PowerTree.limit_slots`.
        released: What others would have given back by then, [domain].
    """
    fed_by = hall.fed_by()
    if fed_by is None or not shape.gpus:
        return fits
    fits = np.where((fed_by >= 0) & (hall.nodes.gpu_watts[: len(fits)] == 0), 0, fits)
    order = hall.topology.rank(len(fits))
    return hall.power.limit_slots(fed_by, fits, watts, order=order, group_of=group_of, released=released)
