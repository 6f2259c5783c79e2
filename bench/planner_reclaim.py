"""For `bench.planner`: KAI's reclaim sets by the planner alone, without an API server.

A hall is full of one-GPU jobs that hold what another queue owns; the owner's jobs come, and take it back. What a
control plane does is played: jobs come some per cycle, and whoever is ended is gone some cycles later, a few at a time,
as an API server takes a few writes between two cycles.
"""

from __future__ import annotations

import time
from collections import Counter, deque

from bench.admission_sets import GANG_PODS, HALL_SETS
from bench.planner_replay import CYCLE_SECONDS, gang_of_class, node_of
from bench.timing import Times
from datahall.planning import Admit, Evict, Limits, Planner, QueueState

COME_PER_CYCLE = 10
"""Jobs of the owner that come in each cycle."""
CYCLES_TO_SAVE = 10
"""How long a job that is ended holds its place, at least."""
GONE_PER_CYCLE = 10
"""How many of those are gone in one cycle, at most."""


def replay(*, scale: float, gangs: bool) -> dict[str, object]:
    """From the first of the owner's jobs to the start of the last; `cycle` alone is timed.

    Args:
        scale: The part of the hall.
        gangs: Whether the owner asks for gangs of ten workers of five GPUs, and not for one-GPU jobs.
    """
    of = HALL_SETS["kai-reclaim-gangs" if gangs else "kai-reclaim"].at(scale)
    planner = Planner()
    for i in range(of.nodes.count):
        planner.upsert_node(node_of(of.nodes, i))
    planner.upsert_queue(QueueState("department", {}))
    for name, own in (("filler", 0), ("asker", of.gpus)):
        planner.upsert_queue(QueueState(name, {"Any": Limits(own)}, "department"))
    now = 1_000_000.0
    started = 0
    for i in range(of.gpus):
        planner.submit(gang_of_class("filler", f"one-{i}", now, workers=1, gpus=1))
    while started < of.gpus:
        now += CYCLE_SECONDS
        started += sum(isinstance(decision, Admit) for decision in planner.cycle(now))
    now += 60.0
    workers, gpus = (GANG_PODS, 5) if gangs else (1, 1)
    total = of.nodes.count // GANG_PODS if gangs else of.gpus
    coming = deque(range(total))
    leaving: deque[tuple[int, str]] = deque()
    times, counts, most_in_a_cycle = Times(), Counter[str](), 0
    cycle = owned = 0
    told_seconds = 0.0
    while owned < total:
        cycle += 1
        now += CYCLE_SECONDS
        begin = time.process_time()
        for _ in range(min(len(coming), COME_PER_CYCLE)):
            key = f"owned-{coming.popleft()}"
            planner.submit(gang_of_class("asker", key, now, workers=workers, gpus=gpus))
        for _ in range(GONE_PER_CYCLE):
            if leaving and leaving[0][0] <= cycle:
                planner.requeue(leaving.popleft()[1])
        told_seconds += time.process_time() - begin
        with times.one():
            decisions = planner.cycle(now)
        evicted = 0
        for decision in decisions:
            counts[type(decision).__name__] += 1
            if isinstance(decision, Admit):
                owned += "owned" in decision.key
                counts["came_back"] += "owned" not in decision.key
            elif isinstance(decision, Evict):
                evicted += 1
                leaving.append((cycle + CYCLES_TO_SAVE, decision.key))
        most_in_a_cycle = max(most_in_a_cycle, evicted)
    cpu_seconds = sum(times.cpu) / 1000
    return times.line() | {
        "jobs": total,
        "cycles": cycle,
        "starts": owned,
        "came_back": counts["came_back"],
        "evictions": counts["Evict"],
        "evictions_in_a_cycle": most_in_a_cycle,
        "gpus_asked_for": total * workers * gpus,
        "told": counts["Wait"],
        "planner_cpu_seconds": round(cpu_seconds, 2),
        "telling_cpu_seconds": round(told_seconds, 2),
        "cpu_milliseconds_per_eviction": round(1000 * cpu_seconds / max(1, counts["Evict"]), 3),
    }
