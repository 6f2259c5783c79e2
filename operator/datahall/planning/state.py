"""The hall as arrays: one column per node, changed by deltas and never rebuilt.

Three facts are kept apart for each node, because they end in different ways: what the node can give (`total`), what
pods outside the gangs use (`pods`), and what held gangs use (`gangs`). What is free is the difference. It may be
negative: the truth of a restart or of a shrunken node is accepted and accounted, and only new placements are refused.

A node that something is accounted on and that is not (yet, or any more) known keeps its column with a total of zero,
so that usage is right whenever the node comes back under the same name.

A GPU that is shared is taken from the whole ones when its first share comes, and goes back when the last one leaves.
Only shared GPUs have numbers: which whole ones a pod gets is the kubelet's choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from datahall.planning.types import WHOLE_GPU_MILLI, NodeState

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

GPU, CPU, MEMORY = range(3)
"""Rows of the resource arrays: whole GPUs, CPU thousandths, bytes."""


class Holder(IntEnum):
    """Who uses a resource: pods of their own, or the workers of a held gang."""

    PODS = 0
    GANGS = 1


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node's accounts, for comparison and for messages.

    Attributes:
        known: Whether the node exists.
        schedulable: Whether it takes new pods.
        gpu_model: Its GPU model; the last known one while the node is gone.
        total: Allocatable GPUs, CPU thousandths and bytes.
        pods: Used by pods outside the gangs, same units.
        gangs: Used by held gangs, same units.
        users: How many pods and workers are accounted here.
        cards: Thousandths in use of each GPU that is shared, by number.
    """

    known: bool
    schedulable: bool
    gpu_model: str
    total: tuple[int, int, int]
    pods: tuple[int, int, int]
    gangs: tuple[int, int, int]
    users: int
    cards: tuple[tuple[int, int], ...] = ()


class NodeArrays:
    """All nodes, by column."""

    def __init__(self) -> None:
        self._columns = 0
        self._unused: list[int] = []
        self._column_of: dict[str, int] = {}
        self._names: list[str] = []
        self._states: dict[str, NodeState] = {}
        self._models: dict[str, int] = {"": 0}
        self._total: IntArray = np.zeros((3, 0), dtype=np.int64)
        self._used: IntArray = np.zeros((2, 3, 0), dtype=np.int64)
        self._model: IntArray = np.zeros(0, dtype=np.int64)
        self._schedulable: BoolArray = np.zeros(0, dtype=np.bool_)
        self._known: BoolArray = np.zeros(0, dtype=np.bool_)
        self._users: IntArray = np.zeros(0, dtype=np.int64)
        self._gpu_watts: IntArray = np.zeros(0, dtype=np.int64)
        self._cards: IntArray = np.zeros((0, 0), dtype=np.int64)
        self.version = 0
        """Grows with every change of what nodes there are, or of what they can give."""
        self.pods_version = 0
        """Grows with every change of what pods outside the gangs use."""
        self.changed: set[int] = set()
        """Columns whose free amounts may have changed; whoever follows them empties it."""

    # ---- deltas

    def upsert(self, node: NodeState) -> bool:
        """Take in a node as it is now; return whether anything changed."""
        before = self._states.get(node.name)
        if before == node:
            return False
        self._states[node.name] = node
        column = self._column(node.name)
        self.version += 1
        self.changed.add(column)
        self._gpu_watts[column] = node.gpu_watts
        self._total[:, column] = (node.gpus, node.cpu_milli, node.memory_bytes)
        self._model[column] = self._models.setdefault(node.gpu_model, len(self._models))
        self._schedulable[column] = node.schedulable
        self._known[column] = True
        return True

    def remove(self, name: str) -> bool:
        """Forget a node; what is accounted on it stays accounted. Return whether it was known."""
        if self._states.pop(name, None) is None:
            return False
        column = self._column_of[name]
        self._total[:, column] = 0
        self._schedulable[column] = False
        self._known[column] = False
        self.version += 1
        self.changed.add(column)
        self._release(name, column)
        return True

    def use(self, name: str, holder: Holder, amounts: tuple[int, int, int], users: int) -> None:
        """Add usage to a node, known or not; negative amounts and users take it away again."""
        column = self._column(name)
        self._used[holder, :, column] += amounts
        self._users[column] += users
        self.changed.add(column)
        if holder is Holder.PODS:
            self.pods_version += 1
        if users < 0:
            self._release(name, column)

    def use_card(self, name: str, card: int, milli: int) -> None:
        """Add the use of a share of one GPU by a gang (negative: take it away); only while the node has users."""
        column = self._column(name)
        if card >= len(self._cards):
            self._cards = np.pad(self._cards, ((0, card + 1 - len(self._cards)), (0, 0)))
        before = int(self._cards[card, column])
        self._cards[card, column] = after = before + milli
        self._used[Holder.GANGS, GPU, column] += (after > 0) - (before > 0)
        self.changed.add(column)

    # ---- views; arrays are copies or must not be written to

    @property
    def columns(self) -> int:
        """How many columns the arrays have, unused ones included."""
        return self._columns

    def name(self, column: int) -> str:
        """Name of the node in a column."""
        return self._names[column]

    def column(self, name: str) -> int | None:
        """The column of a node, if it has one."""
        return self._column_of.get(name)

    def state(self, name: str) -> NodeState | None:
        """The node as last told, if known."""
        return self._states.get(name)

    def model_of(self, name: str) -> str:
        """GPU model of a node; the last known one while it is gone, "" when never known."""
        column = self._column_of.get(name)
        return "" if column is None else list(self._models)[int(self._model[column])]

    def model_id(self, model: str) -> int | None:
        """Number of a GPU model in `model_ids`."""
        return self._models.get(model)

    def models(self) -> list[str]:
        """GPU models that known nodes have, by name."""
        return sorted({node.gpu_model for node in self._states.values() if node.gpus > 0})

    @property
    def total(self) -> IntArray:
        """What nodes can give, [resource, column]."""
        return self._total[:, : self._columns]

    @property
    def pods(self) -> IntArray:
        """What pods outside the gangs use, [resource, column]."""
        return self._used[Holder.PODS, :, : self._columns]

    @property
    def gangs(self) -> IntArray:
        """What held gangs use, [resource, column]."""
        return self._used[Holder.GANGS, :, : self._columns]

    def free(self) -> IntArray:
        """What is free, [resource, column]; negative where over-committed."""
        return self.total - self.pods - self.gangs

    @property
    def model_ids(self) -> IntArray:
        """GPU model number of each column."""
        return self._model[: self._columns]

    @property
    def schedulable(self) -> BoolArray:
        """Columns that take new pods."""
        return self._schedulable[: self._columns]

    @property
    def known(self) -> BoolArray:
        """Columns of nodes that exist."""
        return self._known[: self._columns]

    @property
    def gpu_watts(self) -> IntArray:
        """Power cap of one GPU of each column, in watts; 0 where it is not known."""
        return self._gpu_watts[: self._columns]

    @property
    def pieces(self) -> IntArray:
        """Thousandths free of each GPU that is shared, [card, column]; 0 for those that are not."""
        cards = self._cards[:, : self._columns]
        return np.where(cards > 0, (WHOLE_GPU_MILLI - cards).clip(0), 0)

    def cards(self, column: int) -> dict[int, int]:
        """Thousandths in use of each GPU of a node that is shared, by number."""
        used = self._cards[:, column]
        return {int(card): int(used[card]) for card in np.flatnonzero(used)}

    def rows(self) -> dict[str, NodeRow]:
        """The accounts of every node that has a column, by name."""
        models = list(self._models)

        def triple(values: IntArray) -> tuple[int, int, int]:
            return int(values[0]), int(values[1]), int(values[2])

        return {
            name: NodeRow(
                known=bool(self._known[c]),
                schedulable=bool(self._schedulable[c]),
                gpu_model=models[int(self._model[c])],
                total=triple(self._total[:, c]),
                pods=triple(self._used[Holder.PODS, :, c]),
                gangs=triple(self._used[Holder.GANGS, :, c]),
                users=int(self._users[c]),
                cards=tuple(self.cards(c).items()),
            )
            for name, c in self._column_of.items()
        }

    # ---- columns

    def _column(self, name: str) -> int:
        column = self._column_of.get(name)
        if column is not None:
            return column
        if self._unused:
            column = self._unused.pop()
            self._names[column] = name
        else:
            column = self._columns
            if column == self._total.shape[1]:
                self._grow(max(64, 2 * column))
            self._columns += 1
            self._names.append(name)
        self._column_of[name] = column
        return column

    def _release(self, name: str, column: int) -> None:
        """Give a column back once its node is gone and nothing is accounted on it."""
        if self._known[column] or self._users[column] > 0:
            return
        del self._column_of[name]
        self._names[column] = ""
        self._used[:, :, column] = 0
        self._cards[:, column] = 0
        self._users[column] = 0
        self._model[column] = 0
        self._gpu_watts[column] = 0
        self._unused.append(column)

    def _grow(self, columns: int) -> None:
        more = columns - self._total.shape[1]
        self._total = np.pad(self._total, ((0, 0), (0, more)))
        self._used = np.pad(self._used, ((0, 0), (0, 0), (0, more)))
        self._model = np.pad(self._model, (0, more))
        self._schedulable = np.pad(self._schedulable, (0, more))
        self._known = np.pad(self._known, (0, more))
        self._users = np.pad(self._users, (0, more))
        self._gpu_watts = np.pad(self._gpu_watts, (0, more))
        self._cards = np.pad(self._cards, ((0, 0), (0, more)))
