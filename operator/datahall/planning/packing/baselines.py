"""The published rules, as their simulator has them, so that ours is compared with what they are.

Source: Weng et al., "Beware of Fragmentation" (USENIX ATC 2023) and its simulator. Scores there are cut to whole
numbers from 0 to 100 and ties go to the node with the lowest name; both matter much to the results, so both are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from typing_extensions import override

from datahall.planning.packing.demand import Floats, Mix, PodClass
from datahall.planning.packing.packer import Candidates, Known, Rule
from datahall.planning.packing.states import CPU, FREE, KIND, TAG, WHOLE, NodeKind, NodeStates, Rows
from datahall.planning.packing.watts import WattModel

_MOST_CPU_MILLI = 128_000
_MOST_GPU_MILLI = 8_000


class _Published(Rule):
    """What most published rules share: a score that never changes."""

    tightest_gpu_only = True

    @override
    def scores(self, pod: PodClass, known: Known) -> Floats:
        return known.features


class RandomFit(_Published):
    """Any node that fits, then any of its GPUs that fits."""

    tightest_gpu_only = False

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        if not pod.shares:
            return np.ones(len(ways))
        fitting = (ways.before[:, FREE:] >= pod.gpu_milli).sum(axis=1)
        scores: Floats = ways.alike / fitting
        return scores

    @override
    def arrived(self, states: NodeStates) -> None:
        self.version += 1

    @override
    def scores(self, pod: PodClass, known: Known) -> Floats:
        # The way with the greatest u**(1/weight) is a draw by weight (Efraimidis and Spirakis, 2006).
        weight = np.maximum(known.features * known.nodes, 1e-9)
        return np.log(self._random.random(len(weight))) / weight


class DotProduct(_Published):
    """Least product of what is free and what is asked, of CPU and GPU (Tetris)."""

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        free_gpu = ways.before[:, FREE:].sum(axis=1) / _MOST_GPU_MILLI
        free_cpu = ways.before[:, CPU] / _MOST_CPU_MILLI
        product = free_cpu * pod.cpu_milli / _MOST_CPU_MILLI + free_gpu * pod.all_gpu_milli / _MOST_GPU_MILLI
        scores: Floats = np.trunc(100 * (1 - product / 2))
        return scores


class GpuClustering(_Published):
    """Like with like: a node that has pods with the same number of GPUs, and only those if possible."""

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        if pod.gpus == 0:
            return np.zeros(len(ways))
        used = (25 * (_MOST_GPU_MILLI - ways.before[:, FREE:].sum(axis=1, dtype=np.int64))) // _MOST_GPU_MILLI
        tags = ways.before[:, TAG]
        same = (tags & self._bit(pod)) != 0
        base = np.where(same, np.where(tags == self._bit(pod), 75, 50), np.where(tags == 0, 25, 0))
        scores: Floats = (used + base).astype(np.float64)
        return scores

    @override
    def mark(self, pod: PodClass, tag: int) -> int:
        return tag | self._bit(pod) if pod.gpus else tag

    @staticmethod
    def _bit(pod: PodClass) -> int:
        return 1 if pod.shares else 1 << min(pod.gpus, 20)


class GpuPacking(_Published):
    """First GPUs in use, then idle GPUs of nodes in use, then idle nodes."""

    def __init__(self, kinds: Sequence[NodeKind]) -> None:
        self._gpus = np.array([kind.gpus for kind in kinds])

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        if pod.gpus == 0:
            return np.zeros(len(ways))
        free = ways.before[:, FREE:]
        idle = (free == WHOLE).sum(axis=1)
        idle_node = np.maximum(33 - idle, idle)
        if pod.shares:
            tightest = np.where(free >= pod.gpu_milli, free, WHOLE).min(axis=1)
            takes_idle = (tightest == WHOLE).astype(np.int64)
            in_use = np.maximum(100 - (tightest * 100 // WHOLE) // 10, 50)
        else:
            takes_idle = np.full(len(ways), pod.gpus)
            in_use = np.zeros(len(ways), dtype=np.int64)
        idle_gpu = np.maximum(50 - takes_idle, 33)
        used_node = np.where(takes_idle > 0, idle_gpu, in_use)
        scores: Floats = np.where(idle == self._gpus[ways.before[:, KIND]], idle_node, used_node).astype(
            np.float64
        )
        return scores


class BestFit(_Published):
    """Least left over of CPU and GPU together, each as a part of the largest node."""

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        cpu = (ways.before[:, CPU] - pod.cpu_milli) / _MOST_CPU_MILLI
        gpu = (ways.before[:, FREE:].sum(axis=1) - pod.all_gpu_milli) / _MOST_GPU_MILLI
        scores: Floats = np.trunc(100 * (1 - (cpu * 0.5 + gpu * 0.5)))
        return scores


class Fragmentation:
    """Idle GPU that typical pods cannot use, in thousandths of a GPU."""

    def __init__(self, mix: Mix, kinds: Sequence[NodeKind]) -> None:
        """Prepare tables.

        Args:
            mix: The typical pods.
            kinds: The builds of nodes.
        """
        self._shares = mix.shares
        self._cpu = np.array([pod.cpu_milli for pod in mix.classes])
        self._gpus = np.array([pod.gpus for pod in mix.classes])
        self._uses_gpu = self._gpus > 0
        self._allowed = np.stack([pod.allowed(kinds) for pod in mix.classes], axis=1)
        milli = np.array([pod.gpu_milli for pod in mix.classes])
        free = np.arange(WHOLE + 1)[:, None]
        self._holds = ((free >= milli) & (free > 0)).astype(np.int8)
        self._too_small = np.where(free < milli, free, 0).astype(np.int16)

    def of(self, rows: Rows) -> Floats:
        """Fragmentation of nodes in the given states, [row]."""
        free = rows[:, FREE:]
        total = free.sum(axis=1, dtype=np.int64)[:, None]
        held = self._holds[free].sum(axis=1, dtype=np.int64)
        scraps = self._too_small[free].sum(axis=1, dtype=np.int64)
        usable = (
            (held >= self._gpus)
            & self._uses_gpu
            & self._allowed[rows[:, KIND]]
            & (rows[:, CPU, None] >= self._cpu)
        )
        result: Floats = np.where(usable, scraps, total) @ self._shares
        return result


class FragmentationGradientDescent(_Published):
    """Least growth of fragmentation (FGD)."""

    tightest_gpu_only = False

    def __init__(self, mix: Mix, kinds: Sequence[NodeKind]) -> None:
        self._fragmentation = Fragmentation(mix, kinds)

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        gain = self._fragmentation.of(ways.before) - self._fragmentation.of(ways.after)
        return np.trunc(100 / (1 + np.exp(-gain / WHOLE)))


class PowerAndFragmentation(_Published):
    """Least added watts and least growth of fragmentation, a tenth of the one and nine of the other (PWR+FGD)."""

    tightest_gpu_only = False

    def __init__(
        self, mix: Mix, kinds: Sequence[NodeKind], watts: WattModel, *, power_share: float = 0.1
    ) -> None:
        self._descent = FragmentationGradientDescent(mix, kinds)
        self._watts = watts
        self._power_share = power_share

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        added = self._watts.of(ways.after) - self._watts.of(ways.before)
        if pod.shares:
            # The node is judged by its best GPU for power, and the GPU then chosen by fragmentation alone.
            used = (ways.before[:, FREE:] >= pod.gpu_milli) & (ways.before[:, FREE:] < WHOLE)
            takes_idle = ways.before[np.arange(len(ways)), FREE + ways.gpu] == WHOLE
            step = self._watts.gpu_step(ways.before)
            added = added - np.where(takes_idle & used.any(axis=1), step, 0.0)
        return np.stack([self._descent.features(pod, ways), np.trunc(-added)], axis=1)

    @override
    def arrived(self, states: NodeStates) -> None:
        self.version += 1

    @override
    def scores(self, pod: PodClass, known: Known) -> Floats:
        fragmentation, power = known.features[:, 0], known.features[:, 1]
        live = power[known.nodes > 0]
        span = float(live.max() - live.min()) if len(live) else 0.0
        scaled = np.trunc((power - live.min()) * 100 / span) if span else np.full(len(power), 100.0)
        return self._power_share * scaled + (1 - self._power_share) * fragmentation
