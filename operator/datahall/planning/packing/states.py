"""Nodes grouped by equal state: ten thousand nodes in a few hundred groups, so that each is judged once.

Two nodes with the same totals, the same free CPU and memory and the same free pieces of GPU are the same to every
scoring rule. A state is kept as one row of integers and numbered when first seen; a node is in one state at a time.
What was computed for a state stays right for as long as the table lives, and nothing has to be refreshed when a node
changes: it just moves to another number.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int32]
"""States or pods as rows, [row, column]; columns are named below."""
Ints = npt.NDArray[np.int64]

KIND, CPU, MEMORY, TAG, FREE = range(5)
"""Columns of a state: node kind, free CPU thousandths, free MiB, a mark of the rule's own, first GPU's free share."""

WHOLE = 1000
"""GPU thousandths of a whole GPU."""


@dataclass(frozen=True, slots=True)
class NodeKind:
    """What nodes of one build have in common.

    Attributes:
        model: GPU model; "" without GPUs.
        gpus: GPUs per node.
        cpu_milli: Allocatable CPU per node, in thousandths of a core.
        memory_mib: Allocatable memory per node, in MiB.
    """

    model: str
    gpus: int
    cpu_milli: int
    memory_mib: int


class NodeStates:
    """Which node is in which state, and which states have nodes."""

    def __init__(
        self, kinds: Sequence[NodeKind], nodes: Sequence[int], *, interchangeable: bool = True
    ) -> None:
        """Start with empty nodes.

        Args:
            kinds: The builds of nodes there are.
            nodes: The kind of each node, by node number.
            interchangeable: Whether the GPUs of a node may be renumbered, which makes more nodes equal. Rules that
                break ties by GPU number need False.
        """
        self.kinds = tuple(kinds)
        self.gpus = max((kind.gpus for kind in kinds), default=0)
        self._interchangeable = interchangeable
        self._number: dict[bytes, int] = {}
        self._members: list[list[int]] = []
        self.rows: Rows = np.zeros((256, FREE + self.gpus), dtype=np.int32)
        self.count: Ints = np.zeros(256, dtype=np.int64)
        self.first: Ints = np.zeros(256, dtype=np.int64)
        self.log: list[int] = []
        """States in the order in which they got their first node, one entry each time."""
        self.of_node: Ints = np.zeros(len(nodes), dtype=np.int64)
        for node, kind in enumerate(nodes):
            row = np.zeros(FREE + self.gpus, dtype=np.int32)
            row[KIND] = kind
            row[CPU], row[MEMORY] = kinds[kind].cpu_milli, kinds[kind].memory_mib
            row[FREE : FREE + kinds[kind].gpus] = WHOLE
            self._enter(node, self._intern(row))

    @property
    def known(self) -> int:
        """How many states have ever been seen."""
        return len(self._members)

    def occupied(self) -> Ints:
        """States that have nodes, by number."""
        return np.flatnonzero(self.count[: self.known])

    def move(self, node: int, row: Rows) -> int:
        """Put a node into the state of a row; the state's number."""
        state = self._intern(row)
        before = int(self.of_node[node])
        if state == before:
            return state
        self.count[before] -= 1
        if self.count[before]:
            members = self._members[before]
            # A node that left is still in the heap until it comes to the top.
            while members[0] == node or self.of_node[members[0]] != before:
                heapq.heappop(members)
            self.first[before] = members[0]
        else:
            self._members[before] = []
        self._enter(node, state)
        return state

    def _enter(self, node: int, state: int) -> None:
        self.of_node[node] = state
        members = self._members[state]
        heapq.heappush(members, node)
        self.first[state] = members[0]
        self.count[state] += 1
        if self.count[state] == 1:
            self.log.append(state)

    def _intern(self, row: Rows) -> int:
        if self._interchangeable:
            row = row.copy()
            row[FREE:] = -np.sort(-row[FREE:])
        key = row.tobytes()
        state = self._number.get(key)
        if state is None:
            state = self._number[key] = len(self._members)
            self._members.append([])
            if state == len(self.rows):
                self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)])
                self.count = np.concatenate([self.count, np.zeros_like(self.count)])
                self.first = np.concatenate([self.first, np.zeros_like(self.first)])
            self.rows[state] = row
        return state
