"""The sets that the peers publish: how many jobs of which shape, when each is created, and what they measured.

Kueue's are its own scheduler tests (test/performance/scheduler/configs), KAI's its scale tests (docs/scale-tests, with
the code in test/e2e/scale). A unit of Kueue's quota is a GPU here. Nothing in this module talks to a cluster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

MOST_GPUS = 16
"""GPUs that one worker can ask for (the API's bound): a unit shape above it becomes a gang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClass:
    """Equal jobs of one queue, created one after the other.

    Attributes:
        name: the class, as the peer names it.
        count: jobs per queue.
        every_seconds: time between two of them.
        runtime_seconds: how long each runs once all its workers are bound.
        priority: spec.priority.
        workers: pods of the gang.
        gpus: GPUs per pod.
        topology: spec.topology, or None.
    """

    name: str
    count: int
    every_seconds: float
    runtime_seconds: float
    priority: int
    workers: int
    gpus: int
    topology: Mapping[str, str] | None = None

    @property
    def units(self) -> int:
        """GPUs of the whole gang."""
        return self.workers * self.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """The nodes of the hall."""

    count: int
    gpus: int = 8
    per_rack: int = 4
    racks_per_block: int = 8


@dataclass(frozen=True, slots=True)
class Published:
    """What a peer measured: its name, the machine, and its figures by the names that we use."""

    peer: str
    cores: int
    where: str
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSet:
    """A set of queues with jobs that arrive, run and end (Kueue's)."""

    name: str
    cohorts: int
    queues: int
    """Queues per cohort."""
    nominal: int
    borrowing: int
    classes: tuple[JobClass, ...]
    nodes: Nodes
    scaled: str = "jobs"
    """What a smaller run has fewer of: "jobs" per queue, or "queues" per cohort."""
    published: tuple[Published, ...] = ()

    @property
    def workloads(self) -> int:
        """Jobs in all."""
        return self.cohorts * self.queues * sum(one.count for one in self.classes)

    @property
    def pods(self) -> int:
        """Pods in all, if nothing is preempted."""
        return self.cohorts * self.queues * sum(one.count * one.workers for one in self.classes)

    @property
    def nominal_gpus(self) -> int:
        """The quota of all queues."""
        return self.cohorts * self.queues * self.nominal

    @property
    def gpu_seconds(self) -> float:
        """What the jobs use while they run, and no longer."""
        each = sum(one.count * one.units * one.runtime_seconds for one in self.classes)
        return self.cohorts * self.queues * each

    def at(self, scale: float) -> QueueSet:
        """The same set, smaller: a tenth of the jobs for 0.1, at least one of each class."""
        if scale == 1:
            return self
        if self.scaled == "queues":
            return replace(self, queues=max(1, round(self.queues * scale)))
        fewer = tuple(replace(one, count=max(1, round(one.count * scale))) for one in self.classes)
        return replace(self, classes=fewer)

    def queue_names(self) -> list[tuple[str, str]]:
        """Every queue with its cohort."""
        return [
            (f"cohort-{cohort}-queue-{queue}", f"cohort-{cohort}")
            for cohort in range(self.cohorts)
            for queue in range(self.queues)
        ]


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """One job to be created: when (seconds from the start), where, and what."""

    due_seconds: float
    queue: str
    name: str
    job: JobClass = field(compare=False)


def arrivals(of: QueueSet) -> list[Arrival]:
    """Every job of a set in the order of its creation: the first of a class comes one interval after the start."""
    return sorted(
        Arrival((number + 1) * one.every_seconds, queue, f"{one.name}-{number}", one)
        for queue, _ in of.queue_names()
        for one in of.classes
        for number in range(one.count)
    )


def gang(units: int) -> tuple[int, int]:
    """Workers, and GPUs of each, for so many units in the fewest equal pods.

    >>> gang(5), gang(20)
    ((1, 5), (2, 10))
    """
    workers = math.ceil(units / MOST_GPUS)
    while units % workers:
        workers += 1
    return workers, units // workers


def _class(name: str, count: int, units: int, *, every: int, runtime: int, priority: int) -> JobClass:
    """A class as Kueue writes it, times in milliseconds."""
    workers, gpus = gang(units)
    return JobClass(
        name=name,
        count=count,
        every_seconds=every / 1000,
        runtime_seconds=runtime / 1000,
        priority=priority,
        workers=workers,
        gpus=gpus,
    )


_REQUIRED = {"level": "rack", "mode": "Required"}
_PREFERRED = {"level": "rack", "mode": "Preferred"}


def _by_rack(base: JobClass, shares: tuple[int, int, int], workers: int, gpus: int) -> tuple[JobClass, ...]:
    """A class of Kueue's topology set, shared among its three modes.

    "Balanced" asks there for slices that each lie in one rack; the nearest of ours is Preferred.
    """
    modes = (("required", _REQUIRED), ("preferred", _PREFERRED), ("balanced", _PREFERRED))
    return tuple(
        replace(base, name=f"{base.name}-{mode}", count=count, workers=workers, gpus=gpus, topology=topology)
        for (mode, topology), count in zip(modes, shares, strict=True)
    )


_SMALL = _class("small", 350, 1, every=100, runtime=200, priority=50)
_MEDIUM = _class("medium", 100, 5, every=500, runtime=500, priority=100)
_LARGE = _class("large", 50, 20, every=1200, runtime=1000, priority=200)

_CI = "its CI, 6 CPUs, 9 GiB; client limited to 50 requests/s; no pods"
_OURS = "Kueue on a machine of 2 cores; no pods"

KUEUE_BASELINE = QueueSet(
    name="kueue-baseline",
    cohorts=5,
    queues=6,
    nominal=20,
    borrowing=100,
    classes=(_SMALL, _MEDIUM, _LARGE),
    nodes=Nodes(count=100, gpus=16),
    published=(
        Published(
            "Kueue",
            6,
            _CI,
            {
                "seconds": 351.1,
                "per_second": 42.7,
                "utilisation_percent": 55.9,
                "mean_admission_seconds": {"large": 16.5, "medium": 76.8, "small": 215.5},
            },
        ),
        Published(
            "Kueue",
            2,
            _OURS,
            {"seconds": 389, "utilisation_percent": 48.9, "cpu_seconds": 98, "rss_mb": 672},
        ),
    ),
)

KUEUE_TAS = QueueSet(
    name="kueue-tas",
    cohorts=5,
    queues=6,
    # Its pods ask for 0.5, 1.25 and 2.5 units: GPUs are whole, so all amounts are four times theirs.
    nominal=80,
    borrowing=400,
    classes=(
        *_by_rack(_SMALL, (120, 120, 110), 2, 2),
        *_by_rack(_MEDIUM, (34, 33, 33), 4, 5),
        *_by_rack(_LARGE, (17, 17, 16), 8, 10),
    ),
    nodes=Nodes(count=640, gpus=16, per_rack=64, racks_per_block=10),
    published=(
        Published(
            "Kueue",
            6,
            _CI,
            {
                "seconds": 401.5,
                "per_second": 37.4,
                "utilisation_percent": 62.4,
                "mean_admission_seconds": {"large": 39, "medium": 106.6, "small": 243.6},
            },
        ),
        Published("Kueue", 2, _OURS, {"seconds": 388, "utilisation_percent": 57.7, "rss_mb": 734}),
    ),
)

KUEUE_LARGE_SCALE = QueueSet(
    name="kueue-large-scale",
    cohorts=10,
    queues=100,
    nominal=20,
    borrowing=100,
    classes=(
        _class("small", 35, 1, every=60, runtime=150, priority=50),
        _class("medium", 11, 5, every=300, runtime=350, priority=100),
        _class("large", 4, 20, every=700, runtime=700, priority=200),
    ),
    nodes=Nodes(count=2000, gpus=16),
    scaled="queues",
    published=(
        Published(
            "Kueue",
            6,
            _CI,
            {
                "seconds": 1179.4,
                "per_second": 42.4,
                "utilisation_percent": 38.6,
                "mean_admission_seconds": {"large": 105.6, "medium": 256.4, "small": 700.4},
            },
        ),
        Published(
            "Kueue",
            2,
            _OURS,
            {"seconds": 1211, "utilisation_percent": 34.0, "cpu_seconds": 359, "rss_mb": 2600},
        ),
    ),
)

QUEUE_SETS = {one.name: one for one in (KUEUE_BASELINE, KUEUE_TAS, KUEUE_LARGE_SCALE)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HallSet:
    """A set that fills a hall once and then asks for something (KAI's)."""

    name: str
    nodes: Nodes
    published: tuple[Published, ...]

    def at(self, scale: float) -> HallSet:
        """The same set in a smaller hall, of at least one gang's ten nodes."""
        count = max(10, round(self.nodes.count * scale))
        return replace(self, nodes=replace(self.nodes, count=count))

    @property
    def gpus(self) -> int:
        """GPUs of the hall."""
        return self.nodes.count * self.nodes.gpus


GANG_PODS = 10
"""Pods of a distributed job in KAI's tests."""

_NIGHTLY = "its nightly run, 5 real nodes; scheduler limited to 5 CPUs and 7 GiB"
_KAI_NODES = Nodes(count=500)


def _kai(name: str, nodes: Nodes, **figures: float) -> HallSet:
    return HallSet(name=name, nodes=nodes, published=(Published("KAI", 5, _NIGHTLY, figures),))


HALL_SETS = {
    one.name: one
    for one in (
        _kai("kai-fill", _KAI_NODES, seconds=460.5, workloads=4000),
        _kai("kai-fill-backlog", _KAI_NODES, seconds=397.8, workloads=4000),
        _kai("kai-gang", Nodes(count=512, per_rack=2), seconds=48.7, pods=512),
        _kai("kai-reclaim", _KAI_NODES, seconds=694.5, workloads=4000),
        _kai("kai-reclaim-gangs", _KAI_NODES, seconds=716.9, workloads=50, pods=500),
        _kai("kai-reclaim-large", _KAI_NODES, seconds=102, workloads=1, pods=250),
        _kai("kai-reclaim-one", _KAI_NODES, seconds=13.9),
        _kai("kai-consolidation", _KAI_NODES, seconds=455.7, workloads=41, pods=410),
        _kai("kai-unschedulable", _KAI_NODES, seconds=249.5),
    )
}

NAMES = (*QUEUE_SETS, *HALL_SETS)
CONTROL = ("kueue-baseline", "kueue-tas", "kai-fill", "kai-gang")
"""The sets that kube-scheduler alone can play: it knows no quota and takes nothing back."""
