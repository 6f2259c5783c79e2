"""Sentences for people: why something waits, with numbers, and what would help. No decision is made here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datahall.planning.packing.best_fit import eligible, has_model, workers_that_fit
from datahall.planning.quota import QuotaBook
from datahall.planning.shape import Shape
from datahall.planning.state import CPU, GPU, MEMORY, BoolArray, Holder, NodeArrays
from datahall.planning.types import ANY_MODEL


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
    times = f"{shape.workers} x " if shape.workers > 1 else ""
    beside = f"{cores(shape.cpu_milli)} CPU and {size(shape.memory_bytes)}"
    if shape.gpus == 0:
        return f"{times}({beside})" if times else beside
    models = f" ({' or '.join(shape.models)})" if shape.models else ""
    with_beside = f" with {beside}" if everything else ""
    return f"{times}{counted(shape.gpus, 'GPU')}{models}{with_beside}"


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


def _entry_name(entry: str) -> str:
    return "" if entry == ANY_MODEL else f" {entry}"


def never_within_quota(shape: Shape, quota: QuotaBook, queue: str, entries: Sequence[str]) -> str:
    """The whole quota of the queue is too small."""
    need = f"can never fit: needs {demand(shape)}"
    if not entries:
        state = quota.queue(queue)
        granted = ", ".join(sorted(state.nominal)) if state is not None and state.nominal else "none"
        which = " or ".join(shape.models) or "such GPUs"
        return f"{need}; queue {queue} has no quota for {which} (it has: {granted})"
    limits = " and ".join(f"{quota.nominal(queue, e)}{_entry_name(e)} GPUs" for e in entries)
    return f"{need}, {shape.all_gpus} together; the whole quota of queue {queue} is {limits}: lower workers or raise it"


def quota_exceeded(shape: Shape, quota: QuotaBook, queue: str, entries: Sequence[str]) -> str:
    """The quota is in use."""
    parts = []
    for entry in entries:
        limit, used = quota.nominal(queue, entry), quota.used(queue, entry)
        holders = [counted(quota.users(queue, entry, Holder.GANGS), "job")]
        replicas = quota.users(queue, entry, Holder.PODS)
        if replicas:
            holders.append(counted(replicas, "replica"))
        name = _entry_name(entry)
        parts.append(
            f"{max(limit - used, 0)} of {limit}{name} GPUs of quota left; {used} in use by {' and '.join(holders)}"
        )
    return f"needs {demand(shape)}; queue {queue} has {'; and '.join(parts)}"


def behind_quota(shape: Shape, quota: QuotaBook, queue: str, entries: Sequence[str], keeper: str) -> str:
    """Room in the quota is kept for a gang ahead."""
    left = " and ".join(
        f"{max(quota.room(queue, e), 0)} of {quota.nominal(queue, e)}{_entry_name(e)}" for e in entries
    )
    return f"needs {demand(shape)}; the {left} GPUs of quota left in queue {queue} are kept for {keeper}, ahead of it"


def behind_nodes(shape: Shape, keeper: str, nodes: int) -> str:
    """Nodes are set aside for a gang ahead."""
    aside = f"{counted(nodes, 'node')} {'is' if nodes == 1 else 'are'} kept free for {keeper}, ahead of it"
    return f"needs {demand(shape)}; it would fit, but {aside}"


def never_in_hall(nodes: NodeArrays, shape: Shape) -> str:
    """Not even the empty hall holds it."""
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
    counts = workers_that_fit(nodes.total, shape, columns)
    room = max(int(np.where(has_model(nodes, shape, m), counts, 0).sum()) for m in models or [""])
    if room == 0:
        enough = columns & (nodes.total[GPU] >= shape.gpus)
        cpu, memory = (int(nodes.total[r, enough].max()) for r in (CPU, MEMORY))
        return (
            f"can never fit: needs {demand(shape, everything=True)} {_on_one_node(shape)}; "
            f"the largest nodes have {cores(cpu)} CPU and {size(memory)}: lower resources.cpu or resources.memory"
        )
    return f"{need}; the empty hall holds {counted(room, 'such worker')}: lower workers"


def insufficient(
    nodes: NodeArrays, shape: Shape, models: Sequence[str], *, attainable: bool
) -> tuple[bool, str]:
    """The hall is too full now.

    Args:
        nodes: The hall.
        shape: What does not fit.
        models: The GPU models it may use now.
        attainable: Whether it would fit once every held gang has ended.

    Returns:
        Whether GPUs are what is missing (else CPU or memory), and the sentence.
    """
    free = nodes.free()
    columns = np.zeros(nodes.columns, dtype=np.bool_)
    only_gpus = shape._replace(cpu_milli=0, memory_bytes=0)
    fit = fit_by_gpus = 0
    for model in models:
        here = eligible(nodes, shape, model)
        columns |= here
        fit = max(fit, int(workers_that_fit(free, shape, here).sum()))
        fit_by_gpus = max(fit_by_gpus, int(workers_that_fit(free, only_gpus, here).sum()))
    gpus_missing = shape.gpus > 0 and fit_by_gpus < shape.workers
    everything = not gpus_missing
    need = f"needs {demand(shape, everything=everything)}"
    if not columns.any():
        avoided = f", or avoided by this job ({len(shape.avoid)})" if shape.avoid else ""
        return gpus_missing, f"{need}; each node that could hold it is cordoned or not ready{avoided}"
    if gpus_missing:
        all_free, in_all = int(free[GPU, columns].clip(0).sum()), int(nodes.total[GPU, columns].sum())
        now = _now(shape, fit_by_gpus)
        best = f"the best node has {max(int(free[GPU, columns].max()), 0)} free"
        text = f"{need}{now}; {best} (hall: {all_free} of {in_all} free)"
    else:
        enough = columns & (free[GPU] >= shape.gpus)
        cpu, memory = (max(int(free[r, enough].max()), 0) if enough.any() else 0 for r in (CPU, MEMORY))
        with_gpus = " with enough free GPUs" if shape.gpus else ""
        best = f"nodes{with_gpus} have at most {cores(cpu)} CPU and {size(memory)} free"
        text = f"{need}{_now(shape, fit)}; {best}"
    if not attainable:
        text += "; pods that are not jobs of a queue, or cordoned nodes, hold what is missing"
    return gpus_missing, text


def _on_one_node(shape: Shape) -> str:
    return "on one node" if shape.workers == 1 else "each on one node"


def _now(shape: Shape, fit: int) -> str:
    if shape.workers == 1:
        return " on one node"
    return f" at once, and {fit} of {shape.workers} workers fit now"


def _any_of(nodes: NodeArrays, shape: Shape, models: Sequence[str]) -> BoolArray:
    if shape.gpus == 0:
        return nodes.known.copy()
    columns: BoolArray = np.zeros(nodes.columns, dtype=np.bool_)
    for model in models:
        columns |= has_model(nodes, shape, model)
    return columns
