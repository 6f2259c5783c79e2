"""What a piece of GPU, a core and a byte are worth, as the dual prices of a linear program.

The program places the demand to come (the mix, scaled to a little more than what is idle) into the pieces that are
free, per kind of node: shares flow through residues of a GPU (arc flow, Valerio de Carvalho 1999), whole GPUs leave
from the residue 1000, CPU and memory are pooled over the nodes of a kind. Its dual prices say what taking a share from
a piece costs and what the rest is worth, so that pairs that fill a GPU are free and scraps are dear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import highspy
import numpy as np

from datahall.planning.packing.demand import Floats, Mix, PodClass
from datahall.planning.packing.states import CPU, FREE, KIND, MEMORY, WHOLE, Ints, NodeKind, Rows

_CORE_WORTH = 0.05
"""Worth of one core of a pod without GPU, in GPUs: enough to place it, too little to displace anything."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Dual prices, in GPUs.

    Attributes:
        piece: Worth of a free piece of GPU, [kind, thousandths].
        cpu: Worth of a CPU thousandth, [kind].
        memory: Worth of a MiB, [kind].
    """

    piece: Floats
    cpu: Floats
    memory: Floats

    def gain(self, pod: PodClass, kind: Ints, piece: Ints) -> Floats:
        """Worth after minus worth before, of nodes that take a pod, [way].

        Args:
            pod: The pod.
            kind: The node's kind, [way].
            piece: Thousandths free of the GPU that it shares, [way]; without meaning where it shares none.
        """
        change: Floats = -self.cpu[kind] * pod.cpu_milli - self.memory[kind] * pod.memory_mib
        if pod.shares:
            change += self.piece[kind, piece - pod.gpu_milli] - self.piece[kind, piece]
        else:
            change -= pod.gpus * self.piece[kind, WHOLE]
        return change


class PriceModel:
    """The linear program, built once per mix and solved again as the hall fills."""

    def __init__(self, mix: Mix, kinds: Sequence[NodeKind]) -> None:
        self._kinds = tuple(kinds)
        merged = mix.without_memory()
        self._classes, self._shares = merged.classes, merged.shares
        shared = sorted({pod.gpu_milli for pod in self._classes if pod.shares})
        self._residues = _residues(shared)
        self._build(shared)

    def _build(self, shared: list[int]) -> None:
        kinds, classes, residues = self._kinds, self._classes, self._residues
        at = {residue: i for i, residue in enumerate(residues)}
        piece_rows, size_rows = len(kinds) * len(residues), len(kinds) * len(shared)
        size_at = {milli: i for i, milli in enumerate(shared)}
        self._first_cpu = piece_rows + size_rows
        self._first_memory = self._first_cpu + len(kinds)
        self._first_class = self._first_memory + len(kinds)
        rows = self._first_class + len(classes)
        starts: list[int] = []
        index: list[int] = []
        value: list[float] = []
        cost: list[float] = []

        def column(worth: float, entries: list[tuple[int, float]]) -> None:
            starts.append(len(index))
            cost.append(worth)
            for row, amount in entries:
                index.append(row)
                value.append(amount)

        for t in range(len(kinds)):
            piece = t * len(residues)
            size = piece_rows + t * len(shared)
            for k, pod in enumerate(classes):
                if not pod.allowed(kinds)[t] or pod.gpus > kinds[t].gpus:
                    continue
                worth = pod.all_gpu_milli / WHOLE if pod.gpus else _CORE_WORTH * pod.cpu_milli / 1000
                entries = [
                    (self._first_cpu + t, pod.cpu_milli / 1000),
                    (self._first_memory + t, pod.memory_mib / 1024),
                    (self._first_class + k, 1.0),
                ]
                if pod.shares:
                    entries.append((size + size_at[pod.gpu_milli], 1.0))
                elif pod.gpus:
                    entries.append((piece + at[WHOLE], float(pod.gpus)))
                column(worth, entries)
            for residue in residues:
                for milli in shared:
                    if milli <= residue:
                        entries = [(piece + at[residue], 1.0), (size + size_at[milli], -1.0)]
                        if residue - milli in at:
                            entries.append((piece + at[residue - milli], -1.0))
                        column(0.0, entries)
            for smaller, larger in pairwise(residues):
                column(0.0, [(piece + at[larger], 1.0), (piece + at[smaller], -1.0)])
        starts.append(len(index))
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(cost), rows
        lp.sense_ = highspy.ObjSense.kMaximize
        lp.col_cost_ = np.array(cost)
        lp.col_lower_ = np.zeros(len(cost))
        lp.col_upper_ = np.full(len(cost), highspy.kHighsInf)
        lower = np.full(rows, -highspy.kHighsInf)
        upper = np.zeros(rows)
        lower[piece_rows : piece_rows + size_rows] = 0.0
        lp.row_lower_, lp.row_upper_ = lower, upper
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = np.array(starts)
        lp.a_matrix_.index_ = np.array(index)
        lp.a_matrix_.value_ = np.array(value)
        self._rows = rows
        self._size_rows = slice(piece_rows, piece_rows + size_rows)
        self._solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        self._solver.setOptionValue("output_flag", False)
        self._solver.setOptionValue("threads", 1)
        self._solver.passModel(lp)

    def solve(self, rows: Rows, count: Ints, demand: float) -> Prices:
        """Prices for a hall.

        Args:
            rows: States that nodes are in, [state, column].
            count: How many nodes are in each, [state].
            demand: GPUs that the demand to come asks for, as a multiple of what is idle.
        """
        kinds, residues = self._kinds, np.array(self._residues)
        pieces = np.zeros((len(kinds), WHOLE + 1))
        for column in range(FREE, rows.shape[1]):
            np.add.at(pieces, (rows[:, KIND], rows[:, column]), count)
        pieces[:, 0] = 0
        idle = float((pieces * np.arange(WHOLE + 1)).sum()) / WHOLE
        binned = np.zeros((len(kinds), len(residues)))
        # A piece between two residues is worth what the lower one is: the highest residue that it reaches.
        to = np.searchsorted(residues, np.arange(WHOLE + 1), side="right") - 1
        for t in range(len(kinds)):
            binned[t] = np.bincount(to, weights=pieces[t], minlength=len(residues))[: len(residues)]
        gpus = np.array([pod.all_gpu_milli / WHOLE for pod in self._classes])
        # Pods of a mix without any GPU never compete for pieces; one of each is demand enough to price CPU.
        coming = self._shares * demand * max(idle, 1.0) / max(float(self._shares @ gpus), 1e-3)
        upper = np.zeros(self._rows)
        upper[: binned.size] = binned.ravel()
        for first, column, unit in ((self._first_cpu, CPU, 1000), (self._first_memory, MEMORY, 1024)):
            free = np.bincount(rows[:, KIND], rows[:, column] * count, len(kinds))
            upper[first : first + len(kinds)] = free / unit
        upper[self._first_class :] = coming
        lower = np.full(self._rows, -highspy.kHighsInf)
        lower[self._size_rows] = 0.0
        for row in range(self._rows):
            self._solver.changeRowBounds(row, lower[row], upper[row])
        self._solver.run()
        dual = np.abs(np.array(self._solver.getSolution().row_dual))
        worth = dual[: binned.size].reshape(binned.shape)
        piece = np.maximum.accumulate(worth[:, np.maximum(to, 0)], axis=1)
        piece[:, 0] = 0.0
        return Prices(
            piece=piece,
            cpu=dual[self._first_cpu : self._first_memory] / 1000,
            memory=dual[self._first_memory : self._first_class] / 1024,
        )


def _residues(sizes: Sequence[int]) -> list[int]:
    """What may be left of a whole GPU, in rising order: nothing, and all that shares of these sizes leave."""
    found = {0, WHOLE}
    open_ = [WHOLE]
    while open_:
        residue = open_.pop()
        for size in sizes:
            if size <= residue and residue - size not in found:
                found.add(residue - size)
                open_.append(residue - size)
    return sorted(found)
