"""`make bench-planner`: how long the planner takes, case by case.

Each case has a process of its own, so that memory is its own. Python's collector is on, set as the operator sets it.
`milliseconds` are of the wall, `cpu_milliseconds` of the processor: on a machine that others use, the second are the
planner's own. What is timed is what the operator does between an event and the decision: telling the planner, and one
`cycle`.

Lines on standard output: one per case. Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import numpy as np

from bench import planner_plans, planner_reclaim, planner_replay
from bench.planner_halls import (
    GPUS_PER_NODE,
    Jobs,
    collect_as_the_operator_does,
    fill,
    gang,
    hall,
    node,
    queue_tree,
)
from bench.timing import Times
from datahall.planning import Admit, Evict, Level, Limits, QueueState, Wait, WaitReason
from datahall.planning.waiting import KindKey

SEED = 7
ALL = {"H100": Limits(1_000_000)}


def say(text: str) -> None:
    """Tell of progress."""
    print(text, file=sys.stderr, flush=True)


# ---- cases: one decision


def one_gang_of_a_thousand(*, gpus: int, half_full: bool) -> dict[str, object]:
    """A gang of 1,000 workers that prefers a rack, on 10,000 nodes."""
    planner = hall(10_000, QueueState("team", ALL))
    if half_full:
        rng = np.random.default_rng(SEED)
        for i, size in enumerate(rng.choice([1, 2, 4, 8], size=12_000).tolist()):
            planner.submit(gang(f"r{i}", 1, size))
        fill(planner, 0.0, progress=rng)
    times, told = Times(), ""
    for i in range(100):
        with times.one():
            planner.submit(gang(f"g{i}", 1000, gpus, level=Level.RACK, created_seconds=float(i)))
            (decision,) = planner.cycle(float(i))
        assert isinstance(decision, Admit), "it fits"
        assert len(decision.placements) == 1000, "all of it"
        planner.withdraw(f"g{i}")
        told = decision.spread
    return times.line() | {"spread": told}


def never_fits(*, by: str) -> dict[str, object]:
    """What can never start, on 10,000 nodes: told by the hall, or by quota. No two ask for the same."""
    quota = {"H100": Limits(79_000)} if by == "quota" else ALL
    planner = hall(10_000, QueueState("team", quota))
    times = Times()
    for i in range(50):
        if by == "rack":
            asked = gang(f"g{i}", 17, 8, level=Level.RACK, required=True, cpu_milli=1000 + i)
        else:
            asked = gang(f"g{i}", 10_001 if by == "hall" else 9_999, 8, cpu_milli=1000 + i)
        with times.one():
            planner.submit(asked)
            (decision,) = planner.cycle(float(i))
        assert isinstance(decision, Wait), "it does not fit"
        expected = WaitReason.QUOTA_TOO_SMALL if by == "quota" else WaitReason.NEVER_FITS
        assert decision.reason == expected, decision
        planner.withdraw(f"g{i}")
    return times.line()


def no_victim_helps() -> dict[str, object]:
    """A gang with the right to end 4,000 others, and even that would not make it start: services hold too much."""
    planner = hall(10_000, QueueState("team", ALL))
    for i in range(5_000):
        planner.submit(gang(f"r{i}", 2 if i % 5 else 1, 8, preemptible=i % 5 != 0))
    for i in range(1_000):
        planner.submit(gang(f"s{i}", 1, 8, preemptible=False))
    rng = np.random.default_rng(SEED)
    fill(planner, 0.0, progress=rng)
    times, told = Times(), list[str]()
    for i in range(30):
        asked = gang(f"g{i}", 8_500, 8, priority=1, cpu_milli=1000 + i, created_seconds=float(i))
        with times.one():
            planner.submit(asked)
            decisions = planner.cycle(30_000.0 + i)
        assert not any(isinstance(decision, Admit | Evict) for decision in decisions), "nobody starts or ends"
        wait = planner.waiting(asked.key)
        assert wait is not None, "it waits"
        told = [blocker.message for blocker in wait.blockers]
        planner.withdraw(asked.key)
    return times.line() | {"told": told}


# ---- cases: preemption


def preemption(*, workers: int, gpus: int, rack: bool) -> dict[str, object]:
    """A gang that others must end for, among 700 on 2,000 nodes; each repetition has a planner of its own."""
    times = Times()
    victims = 0
    for i in range(20):
        rng = np.random.default_rng(SEED + i)
        planner = hall(2_000, QueueState("team", ALL))
        sizes = np.minimum(1 + rng.geometric(1 / 23, size=700), 400)
        sizes = np.maximum(1, sizes * 2_000 // sizes.sum())
        sizes[: 2_000 - int(sizes.sum())] += 1
        for number, size in enumerate(sizes.tolist()):
            planner.submit(gang(f"r{number}", size, 8, created_seconds=float(number)))
        fill(planner, 0.0, progress=rng)
        asked = gang("high", workers, gpus, priority=1, level=Level.RACK if rack else None, required=rack)
        with times.one():
            planner.submit(asked)
            decisions = planner.cycle(30_000.0)
        victims = sum(isinstance(decision, Evict) for decision in decisions)
        assert victims, "others end for it"
    return times.line() | {"candidates": 700, "victims": victims}


# ---- cases: many


def steady(*, templates: int) -> dict[str, object]:
    """A full hall of 10,000 nodes and 50,000 waiting jobs of 100 queues: one gang ends and one comes, each cycle."""
    queues = queue_tree(80_000, departments=10, teams=10, minimum_run_seconds=600.0)
    planner = hall(10_000, *queues)
    teams = [queue.name for queue in queues if queue.parent.startswith("d")]
    jobs = Jobs(teams, templates=templates, seed=SEED)
    rng = np.random.default_rng(SEED)
    asked = {}
    now = 100_000.0
    begin = time.process_time()
    waiting = 0
    while waiting < 50_000:
        for job in islice(jobs, 50_000 - waiting):
            asked[job.key] = job
            planner.submit(job)
        fill(planner, now, progress=rng)
        waiting = sum(planner.queue_counts(team).waiting for team in teams)
    say(f"  filled in {time.process_time() - begin:.0f} s of CPU time")
    held = {key: None for key in asked if planner.held(key) is not None}
    kinds = {KindKey.of(job) for key, job in asked.items() if key not in held}
    line = {"waiting": waiting, "held": len(held), "kinds": len(kinds), "queues": len(teams)}
    times, starts, evictions = Times(), 0, 0
    leaving: list[str] = []
    for cycle in range(300):
        now += 1.0
        ends = list(held)[int(rng.integers(len(held)))]
        del held[ends]
        job = next(jobs)
        with times.one():
            planner.withdraw(ends)
            for key in leaving:
                planner.requeue(key)
            planner.submit(job)
            decisions = planner.cycle(now)
        begun = [decision.key for decision in decisions if isinstance(decision, Admit)]
        leaving = [decision.key for decision in decisions if isinstance(decision, Evict)]
        held |= dict.fromkeys(begun)
        for key in leaving:
            del held[key]
        starts, evictions = starts + len(begun), evictions + len(leaving)
        if cycle % 50 == 49:
            say(f"  {cycle + 1} cycles: {times.line()}")
    return times.line() | line | {"starts": starts, "evictions": evictions}


def throughput(*, gpus: int, nodes: int) -> dict[str, object]:
    """Gangs of one worker start until the hall is full; told one by one, decided on in as few cycles as that takes."""
    planner = hall(nodes, QueueState("team", ALL))
    gangs = nodes * GPUS_PER_NODE // gpus
    cpu, wall = time.process_time(), time.perf_counter()
    for i in range(gangs):
        planner.submit(gang(f"g{i}", 1, gpus, created_seconds=float(i)))
    times, started = Times(), 0
    while started < gangs:
        with times.one():
            decisions = planner.cycle(0.0)
        started += sum(isinstance(decision, Admit) for decision in decisions)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return times.line() | {
        "gangs": gangs,
        "gangs_per_second": round(gangs / seconds),
        "gangs_per_cpu_second": round(gangs / cpu_seconds),
    }


def nodes_told() -> dict[str, object]:
    """A planner that starts: 10,000 nodes are told, and each of them once more, unchanged and then cordoned."""
    times = Times()
    for _ in range(20):
        with times.one():
            planner = hall(10_000, QueueState("team", ALL))
            for i in range(10_000):
                planner.upsert_node(node(i))
            planner.cycle(0.0)
    return times.line()


CASES: dict[str, Callable[[], dict[str, object]]] = {
    "10,000 nodes are told twice": nodes_told,
    "1,000 pods of 8 GPUs prefer a rack, 10,000 empty nodes": lambda: one_gang_of_a_thousand(
        gpus=8, half_full=False
    ),
    "1,000 pods of 1 GPU prefer a rack, 10,000 nodes half full": lambda: one_gang_of_a_thousand(
        gpus=1, half_full=True
    ),
    "can never fit: hall, 10,000 nodes": lambda: never_fits(by="hall"),
    "can never fit: one rack, 10,000 nodes": lambda: never_fits(by="rack"),
    "can never fit: quota, 10,000 nodes": lambda: never_fits(by="quota"),
    "no victim helps, 10,000 nodes": no_victim_helps,
    "preemption, 64 x 8 GPUs, 2,000 nodes": lambda: preemption(workers=64, gpus=8, rack=False),
    "preemption, 8 x 8 GPUs in one rack, 2,000 nodes": lambda: preemption(workers=8, gpus=8, rack=True),
    "preemption, 1 x 1 GPU, 2,000 nodes": lambda: preemption(workers=1, gpus=1, rack=False),
    "50,000 waiting, 10,000 nodes full, 10 templates a queue": lambda: steady(templates=10),
    "50,000 waiting, 10,000 nodes full, few jobs alike": lambda: steady(templates=0),
    "kueue-baseline without an API server, 15,000 jobs": lambda: planner_replay.replay(scale=1.0),
    "kai-reclaim without an API server, 4,000 jobs": lambda: planner_reclaim.replay(scale=1.0, gangs=False),
    "kai-reclaim-gangs without an API server, 50 gangs": lambda: planner_reclaim.replay(
        scale=1.0, gangs=True
    ),
    "fill 10,000 nodes with 8-GPU gangs": lambda: throughput(gpus=8, nodes=10_000),
    "fill 10,000 nodes with 1-GPU gangs": lambda: throughput(gpus=1, nodes=10_000),
} | {f"plan alone: {name}": case for name, case in planner_plans.CASES.items()}


def measure(name: str) -> dict[str, object]:
    """One case, in this process."""
    collect_as_the_operator_does()
    found = CASES[name]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"case": name} | found | {"rss_mb": round(peak)}


def main() -> None:
    """Run all cases, or those whose name has a text in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="a part of the names of the cases to run")
    only = parser.parse_args().only
    names = [name for name in CASES if only in name]
    if not names:
        parser.error(f'--only: no case has "{only}" in its name; there are: {"; ".join(CASES)}')
    say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, collector on with the operator's thresholds")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for name in names:
            say(name)
            print(json.dumps(pool.submit(measure, name).result()), flush=True)


if __name__ == "__main__":
    main()
