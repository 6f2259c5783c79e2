"""`make bench-packing`: how full a hall gets, by ours and by the published rules, on the openb trace.

FGD's protocol (Weng et al., USENIX ATC 2023): 1,213 nodes with 6,212 GPUs; a pod list in random order, cut or
lengthened to 130 % of the GPUs; pods come one by one, never leave, and are not tried again. Every placement is checked
against the bench's own books, and every refusal against all nodes, outside the time that is measured.

Lines on standard output: one per trace, policy and mode; then the power table, one per trace, policy and load.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from bench import openb
from bench.openb import Hall
from datahall.planning.packing.baselines import (
    BestFit,
    DotProduct,
    FragmentationGradientDescent,
    GpuClustering,
    GpuPacking,
    PowerAndFragmentation,
    RandomFit,
)
from datahall.planning.packing.demand import Mix, PodClass
from datahall.planning.packing.learning import LearningPacker
from datahall.planning.packing.moves import Mover, Seat
from datahall.planning.packing.packer import Packer, Place, Rule
from datahall.planning.packing.slots import SlotValue
from datahall.planning.packing.states import WHOLE, NodeStates
from datahall.planning.packing.watts import WattModel

FIRST_SEED = 42
WINDOW = 32
"""Pods of one micro-batch: some 100 ms of arrivals in a busy hall."""
MOVES_PER_ARRIVAL = 0.02
LOADS = range(10, 101, 10)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to.

    Attributes:
        allocated: GPUs allocated by the arrived demand, both in per cent of all GPUs, [0..130].
        watts: Modelled watts of the hall by the arrived demand, [0..130].
        seconds: Time spent planning, one core.
        refused_though_fitting: Pods refused while some node could take them.
        moves: Pods that were moved to make room for others.
    """

    allocated: np.ndarray[tuple[int], np.dtype[np.float64]]
    watts: np.ndarray[tuple[int], np.dtype[np.float64]]
    seconds: float
    refused_though_fitting: int
    moves: int


class Books:
    """The bench's own account of every node and GPU, kept apart from the planner's."""

    def __init__(self, hall: Hall) -> None:
        kinds = [hall.kinds[kind] for kind in hall.nodes]
        self._cpu = np.array([kind.cpu_milli for kind in kinds])
        self._memory = np.array([kind.memory_mib for kind in kinds])
        self._models = np.array([kind.model for kind in kinds])
        self._free = np.zeros((len(kinds), max(kind.gpus for kind in kinds)), dtype=np.int64)
        for node, kind in enumerate(kinds):
            self._free[node, : kind.gpus] = WHOLE

    def enter(self, pod: PodClass, place: Place) -> None:
        """Book a placement that names no GPU: any with the piece that it means."""
        free = self._free[place.node]
        wanted = place.piece if pod.shares else WHOLE
        self.take(pod, place.node, np.flatnonzero(free == wanted)[: pod.gpus].tolist())

    def take(self, pod: PodClass, node: int, gpus: Sequence[int], sign: int = 1) -> None:
        """Book a pod on GPUs of a node, or with a sign of -1 take it off.

        Raises:
            AssertionError: The node does not have what the pod takes there.
        """
        assert len(gpus) == pod.gpus
        assert not pod.models or self._models[node] in pod.models
        self._cpu[node] -= sign * pod.cpu_milli
        self._memory[node] -= sign * pod.memory_mib
        self._free[node, list(gpus)] -= sign * pod.gpu_milli
        assert min(self._cpu[node], self._memory[node], *self._free[node]) >= 0

    def fits_somewhere(self, pod: PodClass) -> bool:
        """Whether any node could take a pod."""
        able = (self._cpu >= pod.cpu_milli) & (self._memory >= pod.memory_mib)
        if pod.models:
            able &= np.isin(self._models, list(pod.models))
        if pod.gpus:
            able &= (self._free >= pod.gpu_milli).sum(axis=1) >= pod.gpus
        return bool(able.any())


POLICIES = {
    "random": "online",
    "dotprod": "online",
    "gpuclustering": "online",
    "gpupacking": "online",
    "bestfit": "online",
    "fgd": "online",
    "pwr+fgd": "online",
    "datahall": "online",
    "datahall-learning": "online",
    "datahall-power": "online",
    "datahall-microbatch": "microbatch",
    "datahall-moves": "moves",
}
"""Each policy and the mode in which it works."""


def rule(policy: str, hall: Hall, mix: Mix, seed: int) -> Rule:
    """A policy's rule, told of the whole mix, as FGD is; FGD itself keeps the most frequent 95 % of it.

    The policy datahall-learning has no rule from the start: it is told nothing.
    """
    told = mix.without_memory().covering(0.95)
    match policy:
        case "random":
            return RandomFit(seed)
        case "dotprod":
            return DotProduct()
        case "gpuclustering":
            return GpuClustering()
        case "gpupacking":
            return GpuPacking(hall.kinds)
        case "bestfit":
            return BestFit()
        case "fgd":
            return FragmentationGradientDescent(told, hall.kinds)
        case "pwr+fgd":
            return PowerAndFragmentation(told, hall.kinds, watt_model(hall))
        case "datahall-power":
            return SlotValue(mix, hall.kinds, watts=watt_model(hall))
        case _:
            return SlotValue(mix, hall.kinds)


def watt_model(hall: Hall) -> WattModel:
    """Modelled watts of the trace's nodes."""
    return WattModel(hall.kinds, openb.watt_points(hall.kinds))


@cache
def _trace(trace: str) -> tuple[Hall, tuple[PodClass, ...], Mix]:
    place = openb.folder()
    listed = openb.pods(place, trace)
    return openb.hall(place), tuple(listed), Mix.of(listed)


def run(trace: str, policy: str, seed: int) -> Outcome:
    """Replay a trace once."""
    listed_hall, listed, mix = _trace(trace)
    hall = listed_hall.shuffled(seed)
    capacity = hall.gpu_milli
    arrivals = openb.arrivals(listed, capacity, seed)
    books, model = Books(hall), watt_model(hall)
    started = time.perf_counter()
    states = NodeStates(hall.kinds, hall.nodes, interchangeable=policy.startswith("datahall"))
    packer = (
        LearningPacker(states)
        if policy == "datahall-learning"
        else Packer(states, rule(policy, hall, mix, seed))
    )
    mover = None
    if POLICIES[policy] == "moves":
        assert isinstance(packer, Packer)
        mover = Mover(packer, per_arrival=MOVES_PER_ARRIVAL)
    seconds = time.perf_counter() - started
    allocated, watts = np.full(131, np.nan), np.full(131, np.nan)
    asked = got = wrong = moves = 0
    seated: list[tuple[PodClass, Seat]] = []
    for pod in _in_batches(arrivals, WINDOW if POLICIES[policy] == "microbatch" else 1):
        started = time.perf_counter()
        place, move = (packer.place(pod), None) if mover is None else mover.place(pod)
        seconds += time.perf_counter() - started
        asked += pod.all_gpu_milli
        if move is not None:
            moves += 1
            other, seat = seated[move.pod]
            books.take(other, seat.node, seat.gpus, -1)
            books.take(other, move.to.node, move.to.gpus)
            seated[move.pod] = (other, move.to)
        if place is None:
            wrong += books.fits_somewhere(pod)
        else:
            got += pod.all_gpu_milli
            if isinstance(place, Seat):
                books.take(pod, place.node, place.gpus)
                seated.append((pod, place))
            else:
                books.enter(pod, place)
        percent = min(130, asked * 100 // capacity)
        if np.isnan(watts[percent]):
            occupied = states.occupied()
            watts[percent] = model.of(states.rows[occupied]) @ states.count[occupied]
        allocated[percent] = got * 100 / capacity
    return Outcome(_filled(allocated), _filled(watts), seconds, wrong, moves)


def _in_batches(arrivals: Sequence[PodClass], window: int) -> Iterator[PodClass]:
    """Arrivals window by window, the largest of each first."""
    for start in range(0, len(arrivals), window):
        batch = arrivals[start : start + window]
        yield from sorted(batch, key=lambda pod: (-pod.all_gpu_milli, -pod.cpu_milli))


def _filled(
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Per cents of load that no arrival ended on take the value before."""
    last = 0.0
    for i, value in enumerate(values):
        last = values[i] = last if np.isnan(value) else value
    return values


def line(trace: str, policy: str, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The line of one trace and policy."""
    at = {load: np.array([outcome.allocated[load] for outcome in outcomes]) for load in (100, 130)}
    sd = {load: float(values.std(ddof=1)) if len(values) > 1 else 0.0 for load, values in at.items()}
    return {
        "trace": trace,
        "policy": policy,
        "mode": POLICIES[policy],
        "allocated_percent_100_mean": round(float(at[100].mean()), 2),
        "allocated_percent_100_sd": round(sd[100], 2),
        "allocated_percent_130_mean": round(float(at[130].mean()), 2),
        "allocated_percent_130_sd": round(sd[130], 2),
        "mean_watts": round(float(np.mean([outcome.watts[:101].mean() for outcome in outcomes]))),
        "refused_though_fitting": sum(outcome.refused_though_fitting for outcome in outcomes),
        "moves_per_run": round(float(np.mean([outcome.moves for outcome in outcomes]))),
        "seconds_per_run": round(float(np.mean([outcome.seconds for outcome in outcomes])), 2),
        "seeds": len(outcomes),
    }


def power_lines(trace: str, outcomes: dict[str, list[Outcome]]) -> list[dict[str, object]]:
    """The power table of one trace: watts and GPUs by load, beside FGD's."""

    def mean(policy: str, field: str, load: int) -> float:
        return float(np.mean([getattr(outcome, field)[load] for outcome in outcomes[policy]]))

    return [
        {
            "table": "power",
            "trace": trace,
            "policy": policy,
            "arrived_percent": load,
            "allocated_percent": round(mean(policy, "allocated", load), 2),
            "watts": round(mean(policy, "watts", load)),
            "watts_below_fgd_percent": round(
                100 - 100 * mean(policy, "watts", load) / mean("fgd", "watts", load), 1
            ),
        }
        for policy in ("fgd", "pwr+fgd", "datahall", "datahall-power")
        if {policy, "fgd"} <= outcomes.keys()
        for load in LOADS
    ]


def main() -> None:
    """Run all and print."""
    found = sorted(
        path.stem.removeprefix("openb_pod_list_") for path in openb.folder().glob("openb_pod_list_*.csv")
    )
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--traces", default=" ".join(found), help="pod lists by name, with spaces; default: all"
    )
    parser.add_argument(
        "--policies", default=" ".join(POLICIES), help="policies by name, with spaces; default: all"
    )
    parser.add_argument("--seeds", type=int, default=10, help="runs for each, from seed 42 on")
    options = parser.parse_args()
    traces, policies = options.traces.split(), options.policies.split()
    if unknown := [name for name in traces if name not in found]:
        sys.exit(
            f"bench-packing: no list {', '.join(unknown)} in {openb.folder()}; there are: {', '.join(found)}"
        )
    if unknown := [name for name in policies if name not in POLICIES]:
        sys.exit(f"bench-packing: no policy {', '.join(unknown)}; there are: {', '.join(POLICIES)}")
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for trace in traces:
            jobs = {policy: [pool.submit(run, trace, policy, seed) for seed in seeds] for policy in policies}
            outcomes = {}
            for policy, runs in jobs.items():
                outcomes[policy] = [each.result() for each in runs]
                print(json.dumps(line(trace, policy, outcomes[policy])), flush=True)
                print(f"{trace}: {policy} done", file=sys.stderr, flush=True)
            for each in power_lines(trace, outcomes):
                print(json.dumps(each), flush=True)


if __name__ == "__main__":
    main()
