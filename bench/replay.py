"""Replays a pod list on the trace's hall by one policy, with books of its own.

Every placement is checked against these books, and every refusal against all nodes, outside the time that is measured.
Time is what the process's threads spent on CPUs, so that others on the machine change it little.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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

WINDOW = 32
"""Pods of one micro-batch: some 100 ms of arrivals in a busy hall."""
MOVES_PER_ARRIVAL = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to.

    Attributes:
        allocated: GPUs allocated by the arrived demand, both in per cent of all GPUs, [0..130]; the mean over the
            arrivals whose demand rounds to the per cent, as the authors of FGD read it.
        watts: Modelled watts of the hall by the arrived demand, [0..130].
        seconds: CPU time spent planning, all threads together.
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
def _trace(place: Path, trace: str) -> tuple[Hall, tuple[PodClass, ...], Mix]:
    listed = openb.pods(place, trace)
    return openb.hall(place), tuple(listed), Mix.of(listed)


def run(trace: str, policy: str, seed: int) -> Outcome:
    """Replay a trace once."""
    listed_hall, listed, mix = _trace(openb.folder(), trace)
    hall = listed_hall.shuffled(seed)
    capacity = hall.gpu_milli
    arrivals = openb.arrivals(listed, capacity, seed)
    books, model = Books(hall), watt_model(hall)
    started = time.process_time()
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
    seconds = time.process_time() - started
    readings: list[list[float]] = [[] for _ in range(131)]
    watts = np.full(131, np.nan)
    watts[0] = _watts(states, model)
    asked = got = wrong = moves = 0
    seated: list[tuple[PodClass, Seat]] = []
    for pod in _in_batches(arrivals, WINDOW if POLICIES[policy] == "microbatch" else 1):
        started = time.process_time()
        place, move = (packer.place(pod), None) if mover is None else mover.place(pod)
        seconds += time.process_time() - started
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
            watts[percent] = _watts(states, model)
        readings[round(asked * 100 / capacity)].append(got * 100 / capacity)
    allocated = np.array([float(np.mean(values)) if values else np.nan for values in readings])
    allocated[0] = np.nan_to_num(allocated[0])
    return Outcome(_filled(allocated), _filled(watts), seconds, wrong, moves)


def _watts(states: NodeStates, model: WattModel) -> float:
    """Modelled watts of the hall as it is."""
    occupied = states.occupied()
    return float(model.of(states.rows[occupied]) @ states.count[occupied])


def _in_batches(arrivals: Sequence[PodClass], window: int) -> Iterator[PodClass]:
    """Arrivals window by window, the largest of each first."""
    for start in range(0, len(arrivals), window):
        batch = arrivals[start : start + window]
        yield from sorted(batch, key=lambda pod: (-pod.all_gpu_milli, -pod.cpu_milli))


def _filled(
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Per cents of load that no arrival ended on take the value before."""
    last = values[0]
    for i, value in enumerate(values):
        last = values[i] = last if np.isnan(value) else value
    return values
