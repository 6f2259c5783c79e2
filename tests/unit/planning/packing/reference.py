"""The plainest possible books of a hall, and the rules' formulas pod by pod, to hold the fast ones against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from datahall.planning.packing.demand import Mix, PodClass
from datahall.planning.packing.packer import Place
from datahall.planning.packing.states import NodeKind


@dataclass
class Node:
    """One node, GPU by GPU."""

    kind: NodeKind
    cpu_milli: int
    memory_mib: int
    free: list[int]

    @classmethod
    def empty(cls, kind: NodeKind) -> Node:
        return cls(kind, kind.cpu_milli, kind.memory_mib, [1000] * kind.gpus)

    def copy(self) -> Node:
        return Node(self.kind, self.cpu_milli, self.memory_mib, list(self.free))

    def fits(self, pod: PodClass) -> bool:
        return (
            (not pod.models or self.kind.model in pod.models)
            and self.cpu_milli >= pod.cpu_milli
            and self.memory_mib >= pod.memory_mib
            and sum(free >= pod.gpu_milli for free in self.free) >= pod.gpus
        )

    def add(self, pod: PodClass, piece: int) -> None:
        """Take a pod in; a share goes to a GPU with `piece` free."""
        self.cpu_milli -= pod.cpu_milli
        self.memory_mib -= pod.memory_mib
        assert self.cpu_milli >= 0
        assert self.memory_mib >= 0
        if pod.shares:
            gpu = self.free.index(piece)
            self.free[gpu] -= pod.gpu_milli
            assert self.free[gpu] >= 0
        else:
            for _ in range(pod.gpus):
                self.free[self.free.index(1000)] = 0

    def slots(self, pod: PodClass) -> int:
        """How many pods of a class fit, alone."""
        if pod.models and self.kind.model not in pod.models:
            return 0
        room = (
            sum(free // pod.gpu_milli for free in self.free)
            if pod.shares
            else sum(free == 1000 for free in self.free) // pod.gpus
        )
        for amount, free in ((pod.cpu_milli, self.cpu_milli), (pod.memory_mib, self.memory_mib)):
            if amount:
                room = min(room, free // amount)
        return room

    def fragmentation(self, mix: Mix) -> float:
        """Idle GPU thousandths that typical pods cannot use (Weng et al. 2023, section 3)."""
        amount = 0.0
        for pod, share in zip(mix.classes, mix.shares, strict=True):
            usable = pod.gpus > 0 and self.cpu_milli >= pod.cpu_milli
            usable = usable and (not pod.models or self.kind.model in pod.models)
            usable = usable and sum(free >= pod.gpu_milli for free in self.free) >= pod.gpus
            amount += share * (sum(f for f in self.free if f < pod.gpu_milli) if usable else sum(self.free))
        return amount

    def watts(self, gpu: tuple[float, float], socket: tuple[float, float, int]) -> float:
        busy = sum(free < 1000 for free in self.free)
        sockets = math.ceil(self.kind.cpu_milli / socket[2])
        used = math.ceil((self.kind.cpu_milli - self.cpu_milli) / socket[2])
        return (
            busy * gpu[1] + (len(self.free) - busy) * gpu[0] + used * socket[1] + (sockets - used) * socket[0]
        )


class Books:
    """All nodes."""

    def __init__(self, kinds: Sequence[NodeKind]) -> None:
        self.nodes = [Node.empty(kind) for kind in kinds]

    def enter(self, pod: PodClass, place: Place) -> None:
        assert self.nodes[place.node].fits(pod)
        self.nodes[place.node].add(pod, place.piece)

    def ways(self, pod: PodClass) -> list[tuple[int, int, Node]]:
        """Each node and piece that a pod could take, with the node as it would be."""
        found = []
        for number, node in enumerate(self.nodes):
            if not node.fits(pod):
                continue
            for piece in sorted({f for f in node.free if f >= pod.gpu_milli}) if pod.shares else [0]:
                after = node.copy()
                after.add(pod, piece)
                found.append((number, piece, after))
        return found
