"""Best fit over whole GPUs: pure functions of the node arrays, that choose and change nothing.

A worker goes to the node with the fewest GPUs left after it, then the least CPU left, then by block, rack and name.
Workers of a gang share a node as long as they fit. Work without GPUs goes to nodes without GPUs while there are any.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datahall.planning.shape import Shape
from datahall.planning.state import CPU, GPU, BoolArray, IntArray, NodeArrays

_ORDER_BITS = 20
_CPU_BITS = 26
_GPU_NODE_BIT = 62


@dataclass(frozen=True, slots=True)
class Fit:
    """Where a gang would go.

    Attributes:
        model: The GPU model of all its workers; "" for a gang without GPUs.
        nodes: Node names in the order of ranks, with the number of workers on each.
        leftover_gpus: GPUs left free on those nodes after it.
    """

    model: str
    nodes: tuple[tuple[str, int], ...]
    leftover_gpus: int


def eligible(nodes: NodeArrays, shape: Shape, model: str) -> BoolArray:
    """Columns where workers may go: they take new pods, have the model, and are not avoided."""
    columns: BoolArray = nodes.schedulable & has_model(nodes, shape, model)
    for name in shape.avoid:
        column = nodes.column(name)
        if column is not None:
            columns[column] = False
    return columns


def has_model(nodes: NodeArrays, shape: Shape, model: str) -> BoolArray:
    """Columns of known nodes with a GPU model; every known node for a shape without GPUs."""
    if shape.gpus == 0:
        return nodes.known.copy()
    columns: BoolArray = nodes.known & (nodes.model_ids == nodes.model_id(model))
    return columns


def workers_that_fit(available: IntArray, shape: Shape, columns: BoolArray) -> IntArray:
    """How many workers of a shape fit into each column, at most as many as there are.

    Args:
        available: What may be used, [resource, column].
        shape: What is to be packed.
        columns: Columns that may be used.
    """
    counts: IntArray = np.where(columns, shape.workers, 0).astype(np.int64)
    for resource, amount in enumerate(shape.amounts):
        if amount > 0:
            np.minimum(counts, available[resource] // amount, out=counts)
    np.maximum(counts, 0, out=counts)
    return counts


def best_fit(nodes: NodeArrays, shape: Shape, model: str, set_aside: BoolArray | None = None) -> Fit | None:
    """Choose nodes for a whole gang on one GPU model, or none if it does not fit whole.

    Args:
        nodes: The hall.
        shape: What is to be packed.
        model: The GPU model to use; ignored without GPUs.
        set_aside: Columns kept for others.
    """
    columns = eligible(nodes, shape, model)
    if set_aside is not None:
        columns &= ~set_aside
    free = nodes.free()
    counts = workers_that_fit(free, shape, columns)
    candidates = np.flatnonzero(counts)
    if int(counts[candidates].sum()) < shape.workers:
        return None
    order = nodes.order()
    cpu = np.clip(free[CPU, candidates], 0, (1 << _CPU_BITS) - 1)
    score = (free[GPU, candidates] << (_CPU_BITS + _ORDER_BITS)) + (cpu << _ORDER_BITS) + order[candidates]
    if shape.gpus == 0:
        score += (nodes.total[GPU, candidates] > 0).astype(np.int64) << _GPU_NODE_BIT
    if shape.workers < len(candidates):
        # Each candidate takes at least one worker, so no more candidates than workers are ever needed.
        first = np.argpartition(score, shape.workers - 1)[: shape.workers]
        candidates, score = candidates[first], score[first]
    chosen: list[tuple[int, int]] = []
    missing = shape.workers
    for column in candidates[np.argsort(score)].tolist():
        here = min(missing, int(counts[column]))
        chosen.append((column, here))
        missing -= here
        if missing == 0:
            break
    chosen.sort(key=lambda item: int(order[item[0]]))
    leftover = sum(int(free[GPU, column]) - here * shape.gpus for column, here in chosen)
    placed = tuple((nodes.name(column), here) for column, here in chosen)
    return Fit(model if shape.gpus else "", placed, leftover)


def fits_when_empty(nodes: NodeArrays, shape: Shape, model: str) -> bool:
    """Whether the gang would fit if nothing at all ran, and every node were in service."""
    return int(workers_that_fit(nodes.total, shape, has_model(nodes, shape, model)).sum()) >= shape.workers


def fits_when_gangs_end(nodes: NodeArrays, shape: Shape, model: str) -> bool:
    """Whether the gang would fit once every held gang has ended, with nothing else changed."""
    lasting = nodes.total - nodes.pods
    return int(workers_that_fit(lasting, shape, eligible(nodes, shape, model)).sum()) >= shape.workers


def nodes_to_set_aside(nodes: NodeArrays, shape: Shape, model: str) -> BoolArray:
    """Columns to keep free of others so that the gang starts: those where gangs hold the least.

    Nothing new is placed on them, so what gangs hold there only falls. A choice made anew in each cycle is thus
    never further from done than the last one, and the gang cannot starve.
    """
    lasting = nodes.total - nodes.pods
    counts = workers_that_fit(lasting, shape, eligible(nodes, shape, model))
    held = nodes.gangs[GPU if shape.gpus else CPU]
    result: BoolArray = np.zeros(nodes.columns, dtype=np.bool_)
    missing = shape.workers
    for column in np.lexsort((nodes.order(), held, counts == 0)).tolist():
        if missing <= 0:
            break
        result[column] = True
        missing -= int(counts[column])
    return result
