"""The openb trace of Alibaba's GPU clusters, and the way in which FGD's authors replay it.

Nodes and pod lists are CSV files (cluster-trace-gpu-v2023); DATAHALL_OPENB names their folder.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datahall.planning.packing.demand import PodClass
from datahall.planning.packing.states import WHOLE, NodeKind
from datahall.planning.packing.watts import WattPoints

NODES = "openb_node_list_gpu_node.csv"
LIST = "openb_pod_list_"
ARRIVED = 1.3
"""Arrivals end when they have asked for this many times the GPUs there are."""


@dataclass(frozen=True, slots=True)
class Hall:
    """The nodes: builds, and the build of each node."""

    kinds: tuple[NodeKind, ...]
    nodes: tuple[int, ...]

    def shuffled(self, seed: int) -> Hall:
        """The same nodes in random order.

        The published rules give ties to the lowest node name. In the trace as published, names follow an order (builds
        come in runs) that its authors' runs cannot have had: with it FGD falls short of its own published figures by
        up to 1.9 points (list cpu250), with a random order it meets them within 0.3.
        """
        order = np.random.default_rng(seed).permutation(len(self.nodes))
        return Hall(self.kinds, tuple(self.nodes[i] for i in order))

    @property
    def gpu_milli(self) -> int:
        """Capacity in GPU thousandths."""
        return sum(self.kinds[kind].gpus for kind in self.nodes) * WHOLE


def folder() -> Path:
    """Where the trace is."""
    return Path(os.environ.get("DATAHALL_OPENB") or Path(__file__).parents[2] / "shared" / "data" / "openb")


def hall(place: Path) -> Hall:
    """Read the nodes."""
    with (place / NODES).open(newline="") as file:
        rows = [
            NodeKind(row["model"], int(row["gpu"]), int(row["cpu_milli"]), int(row["memory_mib"]))
            for row in csv.DictReader(file)
        ]
    kinds = tuple(sorted(set(rows), key=lambda kind: -Counter(rows)[kind]))
    number = {kind: index for index, kind in enumerate(kinds)}
    return Hall(kinds, tuple(number[row] for row in rows))


def pods(place: Path, trace: str) -> list[PodClass]:
    """Read a pod list."""
    path = place / f"{LIST}{trace}.csv"
    with path.open(newline="") as file:
        return [_pod(row) for row in csv.DictReader(file)]


def _pod(row: dict[str, str]) -> PodClass:
    gpus = int(row["num_gpu"])
    models = (
        frozenset(model for model in (row.get("gpu_spec") or "").split("|") if model) if gpus else frozenset()
    )
    milli = min(WHOLE, int(float(row["gpu_milli"]))) if gpus else 0
    return PodClass(int(row["cpu_milli"]), int(row["memory_mib"]), gpus, milli, models)


def arrivals(listed: Sequence[PodClass], capacity_milli: int, seed: int) -> list[PodClass]:
    """A list in random order, cut or lengthened by draws from itself until it asks for `ARRIVED` of the capacity."""
    random = np.random.default_rng(seed)
    order = [listed[i] for i in random.permutation(len(listed))]
    asked = sum(pod.all_gpu_milli for pod in listed)
    most = ARRIVED * capacity_milli
    while asked > most:
        asked -= order.pop(int(random.integers(len(order)))).all_gpu_milli
    while True:
        pod = listed[int(random.integers(len(listed)))]
        if asked + pod.gpu_milli > most:
            return order
        asked += pod.all_gpu_milli
        order.append(pod)


# Idle and busy watts as in the power study of the same trace (Lettich et al. 2024, its simulator's tables): data sheets
# for the busy ones. G2 and G3 are not named in the trace; they are taken for A10 and A100, as there.
_GPU_WATTS = {
    "T4": (10, 70),
    "A10": (30, 150),
    "G2": (30, 150),
    "P100": (25, 250),
    "V100M16": (30, 300),
    "V100M32": (30, 300),
    "G3": (50, 400),
}
_XEON_8369B = (20, 270, 64_000)
_XEON_6326 = (20, 185, 32_000)
_SOCKETS = {"T4": (20, 165, 48_000), "P100": (15, 120, 32_000), "V100M16": _XEON_6326, "V100M32": _XEON_6326}


def watt_points(kinds: Sequence[NodeKind]) -> list[WattPoints]:
    """Idle and busy watts of the parts of each kind of node."""
    return [WattPoints(*_GPU_WATTS[kind.model], *_SOCKETS.get(kind.model, _XEON_8369B)) for kind in kinds]
