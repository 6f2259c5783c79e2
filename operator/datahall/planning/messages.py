"""Sentences for people: why something waits, with numbers, and what would help. No decision is made here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datahall.planning.fitting import eligible, has_model, slots
from datahall.planning.hall import Hall
from datahall.planning.shape import Shape
from datahall.planning.state import CPU, GPU, MEMORY, BoolArray, IntArray, NodeArrays
from datahall.planning.types import GangRequest, Level


def cores(milli: int) -> str:
    """CPU for people: cores, with as few digits as needed."""
    return f"{max(milli, 0) / 1000:g}"


def size(amount_bytes: int) -> str:
    """Memory for people, in binary units."""
    amount = float(max(amount_bytes, 0))
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TiB"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it belongs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def demand(shape: Shape, *, everything: bool = False) -> str:
    """What a gang needs, such as "2 x 8 GPUs (H100)".

    Args:
        shape: The gang's shape.
        everything: Name CPU and memory too, beside GPUs.
    """
    workers = f"{shape.workers}" if shape.least == shape.workers else f"{shape.least} to {shape.workers}"
    times = f"{workers} x " if shape.workers > 1 else ""
    beside = f"{cores(shape.cpu_milli)} CPU and {size(shape.memory_bytes)}"
    if shape.gpus == 0:
        return f"{times}({beside})" if times else beside
    models = f" ({' or '.join(shape.models)})" if shape.models else ""
    with_beside = f" with {beside}" if everything else ""
    gpus = f"{shape.gpu_milli / 1000:g} of a GPU" if shape.shares else counted(shape.gpus, "GPU")
    return f"{times}{gpus}{models}{with_beside}"


def queue_not_found(queue: str, known: Sequence[str]) -> str:
    """The queue does not exist."""
    if not known:
        return f'there is no queue "{queue}" and no other queue either; create it'
    shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
    return f'there is no queue "{queue}"; create it or use one of: {shown}'


def namespace_not_allowed(queue: str, namespace: str, allowed: frozenset[str]) -> str:
    """The queue does not serve the namespace."""
    shown = ", ".join(sorted(allowed)[:5]) + (", ..." if len(allowed) > 5 else "")
    return f'queue {queue} does not serve namespace "{namespace}" (it serves: {shown}); use another queue'


def quota_kept(shape: Shape, queue: str, keeper: GangRequest) -> str:
    """Room in the queue's own quota is kept for a gang ahead."""
    left = f"what is left of the quota of queue {queue}"
    return f"needs {demand(shape)}; {left} is kept for {_keeper(keeper)}, ahead of it"


def pool_kept(shape: Shape, queue: str, keeper: GangRequest) -> str:
    """Quota that could be borrowed is kept for a gang whose turn it is."""
    return (
        f"needs {demand(shape)}; queue {queue} would have to borrow it, and what may be borrowed is kept for "
        f"{_keeper(keeper)} of queue {keeper.queue}, whose turn it is"
    )


def making_room(need: str, ending: Sequence[str], leaving: Sequence[str], nodes: int) -> str:
    """Others end for it.

    Args:
        need: What it needs.
        ending: Names of the gangs that end for it.
        leaving: Names of gangs that end anyway, and make room too.
        nodes: On how many nodes room is held for it.
    """
    who = []
    if ending:
        who.append(f"{counted(len(ending), 'job')} of lower standing ({_listed(ending)}) must save and end")
    if leaving:
        who.append(f"{counted(len(leaving), 'job')} ({_listed(leaving)}) must finish ending")
    return (
        f"needs {need}; {' and '.join(who) or 'room comes free'} first; {counted(nodes, 'node')} held for it"
    )


def made_way(preemptor: GangRequest, need: str, *, same_queue: bool) -> str:
    """Why a gang ends for another, for the one that ends."""
    if same_queue:
        right = f"its priority, {preemptor.priority}, is higher"
    else:
        right = f"queue {preemptor.queue} takes back what is within its nominal quota and was borrowed"
    return f"makes room for {preemptor.name}, which needs {need}: {right}; it saves, and waits in line again"


def moved(gang: GangRequest, need: str, nodes: Sequence[str]) -> str:
    """Why a gang moves, for the one that moves."""
    return f"moves to {_listed(nodes)}, so that {gang.name} finds {need}; it saves, and goes on there at once"


def moving_for(need: str, names: Sequence[str], nodes: int) -> str:
    """Others move for it."""
    who = f"{counted(len(names), 'job')} ({_listed(names)})"
    return f"needs {need}; {who} must save and move elsewhere first; {counted(nodes, 'node')} held for it"


def grown(now: int, then: int) -> str:
    """Why a gang is ended to grow."""
    return f"room for more has come: it saves, and goes on with {then} workers instead of {now}"


def shrunk(preemptor: GangRequest, now: int, then: int) -> str:
    """Why an elastic gang is ended to go on smaller."""
    how = f"with {then} workers instead of {now}" if then < now else "elsewhere"
    return f"makes room for {preemptor.name}: it saves, and goes on {how}"


def _keeper(gang: GangRequest) -> str:
    return f"{gang.name} (needs {demand(Shape.of(gang))})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def never_in_hall(hall: Hall, shape: Shape) -> str:
    """Not even the empty hall holds it."""
    nodes = hall.nodes
    need = f"can never fit: needs {demand(shape)}"
    if not nodes.known.any():
        return f"{need}, and there are no nodes"
    present = nodes.models()
    models = [m for m in shape.models or present if m in present]
    if shape.gpus and not models:
        which = " or ".join(shape.models) or "GPUs"
        there = ", ".join(model or "unlabelled GPUs" for model in present) or "no GPUs"
        return f"{need}, and no node has {which} (the hall has: {there})"
    columns = _any_of(nodes, shape, models)
    largest = int(nodes.total[GPU, columns].max())
    if shape.gpus > largest:
        return f"{need} {_on_one_node(shape)}, the largest node has {largest}"
    counts = slots(nodes.total, shape, columns)
    by_model = [np.where(has_model(nodes, shape, m), counts, 0) for m in models or [""]]
    room = max(int(fits.sum()) for fits in by_model)
    if room == 0:
        enough = columns & (nodes.total[GPU] >= shape.gpus)
        cpu, memory = (int(nodes.total[r, enough].max()) for r in (CPU, MEMORY))
        return (
            f"can never fit: needs {demand(shape, everything=True)} {_on_one_node(shape)}; "
            f"the largest nodes have {cores(cpu)} CPU and {size(memory)}: lower resources.cpu or resources.memory"
        )
    if room >= shape.least:
        noun = {Level.HOST: "node", Level.RACK: "rack", Level.BLOCK: "block"}[shape.level or Level.HOST]
        numbers = hall.topology.numbers(shape.level or Level.HOST, nodes.columns)
        best = max(int(np.bincount(numbers[f > 0], f[f > 0]).max()) for f in by_model if f.any())
        return (
            f"{need} on one {noun}; the largest, empty, holds {best} of {counted(shape.least, 'worker')}: "
            "lower workers, or prefer the level instead of requiring it"
        )
    return f"{need}; the empty hall holds {counted(room, 'such worker')}: lower workers"


def insufficient(
    hall: Hall,
    free: IntArray,
    shape: Shape,
    model: str,
    columns: BoolArray,
    *,
    fit: int,
    gpus_missing: bool,
    attainable: bool,
) -> str:
    """The hall is too full now.

    Args:
        hall: The hall.
        free: What is free, [resource, column].
        shape: What does not fit.
        model: The GPU model.
        columns: Columns where it may go.
        fit: How many of its workers fit.
        gpus_missing: Whether GPUs are what is missing, and not CPU or memory.
        attainable: Whether it would fit once every held gang has ended.
    """
    nodes = hall.nodes
    need = f"needs {demand(shape, everything=not gpus_missing)}"
    if not columns.any():
        return f"{need}; {_nowhere(nodes, shape, model)}"
    if gpus_missing:
        all_free, in_all = int(free[GPU, columns].clip(0).sum()), int(nodes.total[GPU, columns].sum())
        best = f"the best node has {max(int(free[GPU, columns].max()), 0)} free"
        text = f"{need}{_now(shape, fit)}; {best} (hall: {all_free} of {in_all} free)"
    else:
        enough = columns & (free[GPU] >= shape.gpus)
        cpu, memory = (max(int(free[r, enough].max()), 0) if enough.any() else 0 for r in (CPU, MEMORY))
        with_gpus = " with enough free GPUs" if shape.gpus else ""
        best = f"nodes{with_gpus} have at most {cores(cpu)} CPU and {size(memory)} free"
        text = f"{need}{_now(shape, fit)}; {best}"
    if not attainable:
        text += "; pods that are not jobs of a queue, or cordoned nodes, hold what is missing"
    return text


def _nowhere(nodes: NodeArrays, shape: Shape, model: str) -> str:
    """Why none of the nodes with a GPU model takes workers."""
    with_model, serving = (
        has_model(nodes, shape, model),
        eligible(nodes, shape._replace(avoid=frozenset()), model),
    )
    may = eligible(nodes, shape, model)
    why = [
        f"{number} {said}"
        for number, said in (
            (int((with_model & ~serving).sum()), "cordoned or not ready"),
            (int((serving & ~may).sum()), "avoided by this job"),
            # What may be used and is not: the watts of its queue are limited.
            (int(may.sum()), "with power caps that nobody knows, which the watts of its queue need"),
        )
        if number
    ]
    of_model = f" with {model} GPUs" if shape.gpus else ""
    return f"no node{of_model} may take it: {', '.join(why)}"


def _on_one_node(shape: Shape) -> str:
    return "on one node" if shape.workers == 1 else "each on one node"


def _now(shape: Shape, fit: int) -> str:
    if shape.workers == 1:
        return " on one node"
    return f" at once, and {fit} of {shape.least} workers fit now"


def _any_of(nodes: NodeArrays, shape: Shape, models: Sequence[str]) -> BoolArray:
    if shape.gpus == 0:
        return nodes.known.copy()
    columns: BoolArray = np.zeros(nodes.columns, dtype=np.bool_)
    for model in models:
        columns |= has_model(nodes, shape, model)
    return columns
