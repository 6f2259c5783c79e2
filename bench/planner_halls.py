"""Halls, queues and jobs for `bench.planner`: made from fixed seeds, so that every run decides on the same things.

A hall is of 8-GPU nodes, 16 to a rack and 32 racks to a block. Jobs are drawn from templates: sizes as in published
traces of training clusters (most jobs take one GPU, most GPUs go to jobs of eight and more), with more than one limit
of CPU and memory, so that few jobs are alike in everything.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np

from datahall.planning import (
    Admit,
    Evict,
    GangProgress,
    GangRequest,
    Level,
    Limits,
    NodeState,
    Planner,
    QueueState,
)

GIB = 1 << 30
GPUS_PER_NODE = 8
SIZES = (
    (1, 1, 0.35),
    (1, 2, 0.12),
    (1, 4, 0.12),
    (1, 8, 0.18),
    (2, 8, 0.1),
    (4, 8, 0.07),
    (8, 8, 0.04),
    (16, 8, 0.02),
)
"""Workers, GPUs of each, and how many of all jobs are so."""


def collect_as_the_operator_does() -> None:
    """Python's collector as the operator sets it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def node(i: int) -> NodeState:
    """Node number i."""
    return NodeState(
        f"n{i:05}",
        "H100",
        GPUS_PER_NODE,
        96_000,
        1024 * GIB,
        f"r{i // 16:04}",
        f"b{i // 512:02}",
        gpu_watts=700,
    )


def hall(nodes: int, *queues: QueueState) -> Planner:
    """A planner with nodes and queues."""
    planner = Planner()
    for i in range(nodes):
        planner.upsert_node(node(i))
    for queue in queues:
        planner.upsert_queue(queue)
    return planner


def gang(
    key: str,
    workers: int,
    gpus: int,
    *,
    queue: str = "team",
    priority: int = 0,
    created_seconds: float = 0.0,
    cpu_milli: int = 0,
    level: Level | None = None,
    required: bool = False,
    preemptible: bool = True,
    run_seconds: float | None = None,
) -> GangRequest:
    """A gang whose workers take their GPUs' part of a node, or other CPU if that is told."""
    return GangRequest(
        key,
        f"{queue}/{key}",
        queue,
        queue,
        priority,
        created_seconds,
        workers,
        gpus,
        ("H100",),
        cpu_milli or 10_000 * gpus,
        96 * GIB * gpus,
        level=level,
        required=required,
        preemptible=preemptible,
        run_seconds=run_seconds,
    )


def queue_tree(gpus: int, *, departments: int, teams: int, minimum_run_seconds: float) -> list[QueueState]:
    """Departments under one root, teams under each; quota in equal parts, all of it lent."""
    each = gpus // (departments * teams)
    queues = [QueueState("root", {"H100": Limits(gpus - each * departments * teams)})]
    for d in range(departments):
        queues.append(QueueState(f"d{d}", {"H100": Limits(0)}, "root"))
        queues += [
            QueueState(
                f"d{d}t{t}",
                {"H100": Limits(each)},
                f"d{d}",
                weight=float(1 + t % 3),
                minimum_run_seconds=minimum_run_seconds,
            )
            for t in range(teams)
        ]
    return queues


class Jobs:
    """A stream of jobs over some queues, without end."""

    def __init__(self, queues: list[str], *, templates: int, seed: int) -> None:
        """Begin.

        Args:
            queues: Who submits.
            templates: How many different jobs each of them has; 0 for no two alike but by chance.
            seed: Seed of everything that is drawn.
        """
        self._rng = np.random.default_rng(seed)
        self._queues = queues
        self._shares = np.array([share for *_, share in SIZES])
        self._templates = {
            queue: [self._draw(queue) for _ in range(templates)] if templates else [] for queue in queues
        }
        self._made = 0

    def __iter__(self) -> Iterator[GangRequest]:
        return self

    def __next__(self) -> GangRequest:
        """The next job; each is created a second after the one before."""
        rng = self._rng
        queue = self._queues[int(rng.integers(len(self._queues)))]
        mine = self._templates[queue]
        draw = mine[int(rng.integers(len(mine)))] if mine else self._draw(queue)
        self._made += 1
        size, priority, cpu, near, run_seconds = draw
        workers, gpus, _ = SIZES[size]
        return gang(
            f"j{self._made:07}",
            workers,
            gpus,
            queue=queue,
            priority=priority,
            created_seconds=float(self._made),
            cpu_milli=cpu * gpus,
            level=Level.RACK if near else None,
            required=near == 2,
            run_seconds=run_seconds,
        )

    def _draw(self, queue: str) -> tuple[int, int, int, int, float | None]:
        """Size, priority, CPU thousandths per GPU, nearness (none, preferred, required), and how long it runs."""
        del queue  # every queue has its own draws, of the same kind
        rng = self._rng
        size = int(rng.choice(len(SIZES), p=self._shares / self._shares.sum()))
        near = int(rng.choice(3, p=[0.5, 0.35, 0.15])) if SIZES[size][0] > 1 else 0
        hours = float(rng.choice([1, 4, 24]))
        return (
            size,
            int(rng.choice(3, p=[0.7, 0.2, 0.1])) * 10,
            int(rng.choice([4, 8, 10, 12])) * 1000,
            near,
            3600.0 * hours if rng.random() < 0.3 else None,
        )


def fill(planner: Planner, now_seconds: float, *, progress: np.random.Generator) -> int:
    """Let gangs start until nothing starts any more; half of them tell when they will end. How many started."""
    started = 0
    while True:
        decisions = planner.cycle(now_seconds)
        begun = [decision.key for decision in decisions if isinstance(decision, Admit)]
        started += len(begun)
        for key in begun:
            ran = float(progress.uniform(0, 20_000))
            ends = now_seconds + float(progress.uniform(60, 40_000)) if progress.random() < 0.5 else None
            planner.progress(key, GangProgress(now_seconds - ran, now_seconds - min(ran, 900.0), ends))
        for decision in decisions:
            if isinstance(decision, Evict):
                planner.requeue(decision.key)
        if not decisions:
            return started
