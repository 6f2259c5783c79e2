"""For `bench.planner`: how long a preemption plan alone takes, and what it costs beside the usual way.

Full halls of 8-GPU nodes, where gangs of 1 to many workers share nodes; what no gang holds is foreign. The usual way
takes candidates in one fixed order, cheapest first, until the preemptor fits, and then gives back from the end what is
not needed; its time is not measured, because it is written for clarity.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.timing import Times
from datahall.planning.candidates import Candidate, Candidates
from datahall.planning.offers import Room
from datahall.planning.preemption import Plan, Preemptor, plan
from datahall.planning.state import IntArray

REPETITIONS = 20
WORKER = np.array([1, 4_000, 32 << 30], dtype=np.int64)
"""What goes with one GPU: GPUs, CPU thousandths, bytes."""
NODE = np.array([8, 96_000, 1024 << 30], dtype=np.int64)


def hall(nodes: int, gangs: int, seed: int) -> tuple[IntArray, Candidates]:
    """Free amounts, [resource, column], and the gangs of a full hall."""
    rng = np.random.default_rng(seed)
    free = np.repeat(NODE[:, None], nodes, axis=1)
    mean_workers = 8 * nodes / gangs / 4
    made = []
    for i in range(gangs):
        gpus = int(rng.choice([1, 2, 4, 8]))
        workers = int(rng.geometric(min(1.0, 1 / mean_workers)))
        fitting = np.flatnonzero(free[0] >= gpus)
        # Half of the gangs keep to few nodes, as a packer would have it; the others are scattered.
        chosen = (
            fitting[:workers]
            if i % 2
            else rng.choice(fitting, size=min(workers, len(fitting)), replace=False)
        )
        if len(chosen) == 0:
            continue
        amounts = np.repeat((WORKER * gpus)[:, None], len(chosen), axis=1)
        free[:, chosen] -= amounts
        held = gpus * len(chosen)
        made.append(
            Candidate(
                key=f"gang-{i}",
                columns=chosen,
                amounts=amounts,
                priority=0,
                started_seconds=float(rng.integers(0, 10_000)),
                lost_gpu_seconds=float(rng.integers(0, 3_600) * held),
                restart_gpu_seconds=120.0 * held,
                evictions=int(rng.integers(0, 3)),
            )
        )
    free[0] = 0
    return free, Candidates.of(made)


def the_usual_way(free: IntArray, preemptor: Preemptor, candidates: Candidates) -> tuple[int, int]:
    """Victims and cost of one fixed order, in the best domain."""
    found = []
    domains = preemptor.domains()
    nothing = np.zeros(0, dtype=np.int64)
    for domain in np.unique(domains).tolist():
        here = domains == domain
        slots = np.where(here, preemptor.slots(free), 0)
        after, gone = free.copy(), []
        most = np.where(here, preemptor.workers, 0)
        for gang in np.argsort(candidates.rank).tolist():
            if slots.sum() >= preemptor.workers:
                break
            mine = candidates.gang == gang
            if not here[candidates.column[mine]].any():
                continue
            after[:, candidates.column[mine]] += candidates.amounts[:, mine]
            slots = np.where(here, preemptor.slots(after), 0)
            gone.append(gang)
        room = Room(free=after, ask=preemptor.amounts, most=most, workers=preemptor.workers, short=nothing)
        if room.fits:
            kept = []
            for gang in reversed(gone):
                mine = candidates.gang == gang
                if not room.take_back(candidates.column[mine], candidates.amounts[:, mine], nothing):
                    kept.append(gang)
            found.append((int(candidates.cost_gpu_seconds[kept].sum()), len(kept)))
    cost, victims = min(found)
    return victims, cost


def measure(nodes: int, gangs: int, asked: tuple[int, int, int | None]) -> dict[str, object]:
    """One case: workers, GPUs of each, and how many nodes make a domain."""
    workers, gpus, domain = asked
    free, candidates = hall(nodes, gangs, seed=1)
    domain_of = None if domain is None else np.arange(nodes) // domain
    preemptor = Preemptor(workers, WORKER * gpus, np.ones(nodes, dtype=np.bool_), domain_of)
    allowed = np.ones(len(candidates), dtype=np.bool_)
    times = Times()
    for _ in range(REPETITIONS):
        with times.one():
            found = plan(free, preemptor, candidates, allowed)
    line = times.line() | {"candidates": len(candidates)}
    if isinstance(found, Plan):
        victims, cost = the_usual_way(free, preemptor, candidates)
        line |= {
            "victims": len(found.victims),
            "cost_gpu_seconds": found.cost_gpu_seconds,
            "usual_victims": victims,
            "usual_cost_gpu_seconds": cost,
        }
    return line


def _case(nodes: int, gangs: int, asked: tuple[int, int, int | None]) -> Callable[[], dict[str, object]]:
    return lambda: measure(nodes, gangs, asked)


CASES = {
    f"{name}, {nodes:,} nodes": _case(nodes, gangs, asked)
    for nodes, gangs in ((2_000, 700), (10_000, 5_000))
    for name, asked in {
        "64 x 8 GPUs": (64, 8, None),
        "64 x 8 GPUs in a block of 500": (64, 8, 500),
        "8 x 8 GPUs in a rack of 16": (8, 8, 16),
        "1 x 8 GPUs": (1, 8, None),
        "1 x 1 GPU": (1, 1, None),
        "hopeless": (nodes + 1, 8, None),
        "hopeless in a rack": (17, 8, 16),
    }.items()
}
"""By name: halls of 700 and of 5,000 gangs, and who asks."""
