"""Room by one move: when a pod fits nowhere, another pod steps aside to where it fits as well.

What a move costs (a checkpoint, a restart) is the caller's to weigh: here it is bounded by a budget, in moves per pod
that came. Only pods that ask for no more GPU than the newcomer are moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datahall.planning.packing.demand import PodClass
from datahall.planning.packing.packer import Packer, Place
from datahall.planning.packing.states import CPU, FREE, MEMORY, WHOLE, Ints

_TRIES = 8


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a pod is.

    Attributes:
        node: The node's number.
        gpus: Which of the node's GPUs it has, or shares.
    """

    node: int
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """One pod that steps aside.

    Attributes:
        pod: Its number, by order of placement.
        to: Where it goes.
    """

    pod: int
    to: Seat


class Mover:
    """A packer that remembers who is where, and moves one pod for another."""

    def __init__(self, packer: Packer, *, per_arrival: float) -> None:
        """Start with empty nodes.

        Args:
            packer: The packer; all pods must come through the mover from here on.
            per_arrival: The budget: moves that each arriving pod adds to it.
        """
        states = packer.states
        self._packer = packer
        self._per_arrival = per_arrival
        self._budget = 0.0
        self._rows = states.rows[states.of_node].astype(np.int64)
        self._count = 0
        self._pods: list[PodClass] = []
        self._gpus: list[Ints] = []
        # By pod: node, CPU, memory, GPUs, thousandths of each, first GPU.
        self._table: Ints = np.zeros((6, 1024), dtype=np.int64)

    def place(self, pod: PodClass) -> tuple[Seat | None, Move | None]:
        """Place a pod, if need be by moving another first."""
        self._budget += self._per_arrival
        place = self._packer.place(pod)
        if place is not None:
            return self._append(pod, place.node, self._seat(pod, place)), None
        if self._budget < 1:
            return None, None
        found = self._make_room(pod)
        if found is None:
            return None, None
        self._budget -= 1
        return found

    def _make_room(self, pod: PodClass) -> tuple[Seat, Move] | None:
        movable = self._movable_for(pod)
        tried: set[PodClass] = set()
        for number in movable[np.argsort(self._cost()[movable], kind="stable")].tolist():
            other = self._pods[number]
            if other in tried:
                continue
            tried.add(other)
            if len(tried) > _TRIES:
                return None
            if (found := self._swap(pod, number)) is not None:
                return found
        return None

    def _movable_for(self, pod: PodClass) -> Ints:
        """Pods that leave room for another where they are."""
        node, cpu, memory, gpus, milli, gpu = self._table[:, : self._count]
        free = self._rows[:, FREE:]
        allowed = pod.allowed(self._packer.states.kinds)[self._rows[:, 0]]
        fits = allowed[node] & (self._rows[node, CPU] + cpu >= pod.cpu_milli)
        fits &= self._rows[node, MEMORY] + memory >= pod.memory_mib
        fits &= gpus * milli <= pod.all_gpu_milli
        if pod.gpus:
            after = np.where(gpus > 0, free[node, gpu] + milli, 0)
            if pod.shares:
                fits &= (free.max(axis=1)[node] >= pod.gpu_milli) | (after >= pod.gpu_milli)
            else:
                whole = (free == WHOLE).sum(axis=1)[node]
                fits &= whole + np.where(after == WHOLE, gpus, 0) >= pod.gpus
        return np.flatnonzero(fits)

    def _cost(self) -> Ints:
        """The less a pod holds, the sooner it is moved."""
        return (
            self._table[3, : self._count] * self._table[4, : self._count] * 1000
            + self._table[1, : self._count]
        )

    def _swap(self, pod: PodClass, number: int) -> tuple[Seat, Move] | None:
        """Put a pod where another was and the other elsewhere; None, with nothing changed, if that has no place."""
        states = self._packer.states
        node = int(self._table[0, number])
        other = self._pods[number]
        before = self._rows[node].copy()
        self._take(other, node, self._gpus[number], -1)
        gpus = self._choose(pod, node)
        self._take(pod, node, gpus, 1)
        states.move(node, self._rows[node].astype(np.int32))
        to = self._packer.place(other)
        if to is None:
            self._rows[node] = before
            states.move(node, before.astype(np.int32))
            return None
        self._gpus[number] = self._seat(other, to)
        self._table[:, number] = _column(other, to.node, self._gpus[number])
        return self._append(pod, node, gpus), Move(number, Seat(to.node, tuple(self._gpus[number].tolist())))

    def _seat(self, pod: PodClass, place: Place) -> Ints:
        """Take the GPUs that a place means."""
        gpus = self._choose(pod, place.node, place.piece)
        self._take(pod, place.node, gpus, 1)
        return gpus

    def _append(self, pod: PodClass, node: int, gpus: Ints) -> Seat:
        if self._count == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        self._pods.append(pod)
        self._gpus.append(gpus)
        self._table[:, self._count] = _column(pod, node, gpus)
        self._count += 1
        return Seat(node, tuple(gpus.tolist()))

    def _choose(self, pod: PodClass, node: int, piece: int | None = None) -> Ints:
        """GPUs of a node for a pod: with the given piece free, or the fullest that holds it."""
        free = self._rows[node, FREE:]
        if pod.gpus == 0:
            return np.zeros(0, dtype=np.int64)
        if not pod.shares:
            return np.flatnonzero(free == WHOLE)[: pod.gpus]
        if piece is not None:
            return np.flatnonzero(free == piece)[:1]
        holds = np.flatnonzero(free >= pod.gpu_milli)
        return holds[[int(free[holds].argmin())]]

    def _take(self, pod: PodClass, node: int, gpus: Ints, sign: int) -> None:
        row = self._rows[node]
        row[CPU] -= sign * pod.cpu_milli
        row[MEMORY] -= sign * pod.memory_mib
        row[FREE + gpus] -= sign * pod.gpu_milli


def _column(pod: PodClass, node: int, gpus: Ints) -> tuple[int, ...]:
    first = int(gpus[0]) if len(gpus) else 0
    return node, pod.cpu_milli, pod.memory_mib, pod.gpus, pod.gpu_milli, first
