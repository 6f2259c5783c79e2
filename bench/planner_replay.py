"""For `bench.planner`: Kueue's baseline set by the planner alone, without an API server.

Queues, jobs and their arrival are those of `bench.admission`; what a control plane does to them is played: a few jobs
end in each cycle, the longest running first, and whoever is ended for others is gone some cycles later. So most of the
set waits most of the time, as it does on a small machine, and every cycle has a little to decide on.
"""

from __future__ import annotations

import time
from collections import Counter, deque

from bench.admission_sets import KUEUE_BASELINE, Arrival, Nodes, QueueSet, arrivals
from bench.timing import Times
from datahall.planning import Admit, Evict, GangRequest, Limits, NodeState, Planner, QueueState

CYCLE_SECONDS = 0.1
"""Between two cycles, of the jobs' time."""
ENDS_PER_CYCLE = 3
"""Jobs that end in each cycle, while others wait for their reports."""
CYCLES_TO_SAVE = 5
"""How long a job that is ended for others holds its place."""


def node_of(of: Nodes, number: int) -> NodeState:
    """A node of a set."""
    rack = number // of.per_rack
    return NodeState(
        f"n{number:04}",
        "NVIDIA-H100",
        of.gpus,
        192_000,
        2 << 40,
        f"r{rack:03}",
        f"b{rack // of.racks_per_block:02}",
        gpu_watts=700,
    )


def hall_of(of: QueueSet) -> Planner:
    """A planner with the nodes and the queues of a set."""
    planner = Planner()
    for i in range(of.nodes.count):
        planner.upsert_node(node_of(of.nodes, i))
    for name, cohort in of.queue_names():
        planner.upsert_queue(QueueState(cohort, {}))
        planner.upsert_queue(QueueState(name, {"Any": Limits(of.nominal, of.borrowing)}, cohort))
    return planner


def gang_of(arrival: Arrival, started_seconds: float) -> GangRequest:
    """A job as the operator tells it."""
    job = arrival.job
    return gang_of_class(
        arrival.queue,
        arrival.name,
        started_seconds + arrival.due_seconds,
        workers=job.workers,
        gpus=job.gpus,
        priority=job.priority,
    )


def gang_of_class(
    queue: str, name: str, created_seconds: float, *, workers: int, gpus: int, priority: int = 0
) -> GangRequest:
    """A job of its queue's namespace, with as little CPU and memory as in `bench.admission`."""
    return GangRequest(
        f"{queue}/{name}",
        f"{queue}/{name}",
        queue,
        queue,
        priority,
        created_seconds,
        workers,
        gpus,
        (),
        10,
        16 << 20,
    )


def replay(*, scale: float) -> dict[str, object]:
    """Every job from its arrival to its end; `cycle` alone is timed, as the operator's `planner_seconds` is.

    Args:
        scale: The part of the jobs that come.
    """
    of = KUEUE_BASELINE.at(scale)
    planner = hall_of(of)
    start = now = 1_000_000.0
    coming = deque(arrivals(of))
    total, ended = len(coming), 0
    running: dict[str, None] = {}
    leaving: deque[tuple[int, str]] = deque()
    times, counts, most_waiting = Times(), Counter[str](), 0
    told_seconds = 0.0
    cycle = 0
    while ended < total:
        cycle += 1
        now += CYCLE_SECONDS
        begin = time.process_time()
        while coming and start + coming[0].due_seconds <= now:
            planner.submit(gang_of(coming.popleft(), start))
        for key in list(running)[:ENDS_PER_CYCLE]:
            del running[key]
            planner.withdraw(key)
            ended += 1
        while leaving and leaving[0][0] <= cycle:
            planner.requeue(leaving.popleft()[1])
        told_seconds += time.process_time() - begin
        with times.one():
            decisions = planner.cycle(now)
        for decision in decisions:
            counts[type(decision).__name__] += 1
            if isinstance(decision, Admit):
                running[decision.key] = None
            elif isinstance(decision, Evict):
                del running[decision.key]
                leaving.append((cycle + CYCLES_TO_SAVE, decision.key))
        most_waiting = max(most_waiting, total - len(coming) - ended - len(running) - len(leaving))
    cpu_seconds = sum(times.cpu) / 1000
    return times.line() | {
        "jobs": total,
        "cycles": cycle,
        "most_waiting": most_waiting,
        "starts": counts["Admit"],
        "evictions": counts["Evict"],
        "told": counts["Wait"],
        "planner_cpu_seconds": round(cpu_seconds, 2),
        "telling_cpu_seconds": round(told_seconds, 2),
        "cpu_milliseconds_per_job": round(1000 * cpu_seconds / total, 3),
    }
