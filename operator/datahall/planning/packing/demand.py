"""What asks for room: classes of equal pods, and how often each comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datahall.planning.packing.states import WHOLE, NodeKind

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PodClass:
    """Pods that ask for the same.

    Attributes:
        cpu_milli: CPU thousandths.
        memory_mib: MiB.
        gpus: GPUs; 0 is legal.
        gpu_milli: Thousandths of each GPU: 1000 for whole ones; less, with `gpus` of 1, for a share of one.
        models: GPU models allowed; empty for any.
    """

    cpu_milli: int
    memory_mib: int
    gpus: int
    gpu_milli: int
    models: frozenset[str] = frozenset()

    @property
    def shares(self) -> bool:
        """Whether it takes a part of one GPU."""
        return self.gpus == 1 and self.gpu_milli < WHOLE

    @property
    def all_gpu_milli(self) -> int:
        """GPU thousandths that it takes in all."""
        return self.gpus * self.gpu_milli

    def allowed(self, kinds: Sequence[NodeKind]) -> npt.NDArray[np.bool_]:
        """Which kinds of node have a model that it accepts, [kind]."""
        return np.array([not self.models or kind.model in self.models for kind in kinds], dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Mix:
    """Classes of pods with their shares of the arrivals.

    Attributes:
        classes: The classes.
        shares: How much of all arrivals each is, adding up to 1, [class].
    """

    classes: tuple[PodClass, ...]
    shares: Floats

    @classmethod
    def of(cls, pods: Sequence[PodClass]) -> Mix:
        """The mix of a sample of pods, most frequent classes first."""
        counts = Counter(pods)
        ordered = sorted(counts, key=lambda pod: -counts[pod])
        return cls(tuple(ordered), np.array([counts[pod] / len(pods) for pod in ordered]))

    def covering(self, part: float) -> Mix:
        """Only the most frequent classes, as few as make up this part of the arrivals."""
        order = np.argsort(-self.shares, kind="stable")
        kept = order[: int(np.searchsorted(self.shares[order].cumsum(), part - 1e-9)) + 1]
        shares = self.shares[kept]
        return Mix(tuple(self.classes[i] for i in kept), shares / shares.sum())

    def without_memory(self) -> Mix:
        """Classes that differ in memory alone made one, with their mean memory."""
        together: dict[tuple[int, int, int, frozenset[str]], list[int]] = {}
        for i, pod in enumerate(self.classes):
            together.setdefault((pod.cpu_milli, pod.gpus, pod.gpu_milli, pod.models), []).append(i)
        classes, shares = [], []
        for (cpu, gpus, milli, models), members in together.items():
            share = float(self.shares[members].sum())
            memory = sum(self.shares[i] * self.classes[i].memory_mib for i in members) / share
            classes.append(PodClass(cpu, round(memory), gpus, milli, models))
            shares.append(share)
        return Mix(tuple(classes), np.array(shares))
