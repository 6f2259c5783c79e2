"""Our rule: keep room for every class of pod that may still come, at the price of its scarcity.

The value of the hall is the sum over nodes n and classes k of w_k * sqrt(s_k(n)), with s_k(n) the number of pods of
class k that node n could still take if nothing else came. The root makes a node's last slot dear and the first of many
cheap. w_k grows with how often k comes and falls with how many slots it has left in the whole hall, so that pods with
few places left are protected from those that fit anywhere. A pod goes where it takes the least value away, with the
worth of the GPU pieces that it cuts and makes (`prices`) added.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from datahall.planning.packing.demand import Floats, Mix, PodClass
from datahall.planning.packing.packer import Candidates, Known, Rule
from datahall.planning.packing.prices import PriceModel, Prices
from datahall.planning.packing.states import CPU, FREE, KIND, MEMORY, WHOLE, Ints, NodeKind, NodeStates, Rows
from datahall.planning.packing.watts import WattModel

Counts = npt.NDArray[np.int16]

_MOST_SLOTS = 4096
_ROOT = np.sqrt(np.arange(_MOST_SLOTS + 1, dtype=np.float32))
_REFRESH_ARRIVALS = 50
_DEMAND = 1.05
"""GPUs that pods to come are taken to ask for, as a multiple of what is idle. More makes every kind of node dear, and
leaves watts nothing to choose; what is allocated is the same from 1.05 to 1.2."""
# Half or three times as much changes what is allocated by less than 0.1 % of the GPUs.
_WORTH_PER_PRICE = 10.0
_WORTH_PER_KILOWATT = 6.0
_ROOM_POWER = 1.5
"""How fast watts stop counting as the hall fills: between in proportion, which gives away GPUs, and its square, which
gives away watts."""
_PRICED_AGAIN = 0.25
"""Prices are asked anew once what is idle has changed by this part."""
_LEAST_PRICED_AGAIN = 0.005
"""The same, at least, as a part of all that is idle: a model with few idle GPUs changes with every pod."""


class Slots:
    """How many pods of each class fit nodes in given states."""

    def __init__(self, classes: Sequence[PodClass], kinds: Sequence[NodeKind]) -> None:
        """Prepare tables.

        Args:
            classes: The classes; each takes GPU.
            kinds: The builds of nodes.
        """
        # By column: how many pods one unit of it is enough for, and how many fit without any.
        self._limits = [
            (column, 1.0 / np.maximum(asked, 1), np.where(asked == 0, float(_MOST_SLOTS), 0.0))
            for column, asked in (
                (CPU, np.array([pod.cpu_milli for pod in classes])),
                (MEMORY, np.array([pod.memory_mib for pod in classes])),
            )
        ]
        self._gpus = np.array([pod.gpus for pod in classes], dtype=np.int16)
        self._several = bool((self._gpus > 1).any())
        self._barred = np.zeros((len(kinds), len(classes)), dtype=np.bool_)
        for i, pod in enumerate(classes):
            self._barred[:, i] = ~pod.allowed(kinds)
        milli = np.array([pod.gpu_milli for pod in classes], dtype=np.int16)
        self._per_piece = (np.arange(WHOLE + 1)[:, None] // milli).astype(np.int16)

    def of(self, rows: Rows) -> Counts:
        """Slots of each class on nodes in the given states, [row, class]; at most 4,096."""
        if rows.shape[1] == FREE:  # a hall in which no node has a GPU
            return np.zeros((len(rows), len(self._gpus)), dtype=np.int16)
        slots = self._per_piece[rows[:, FREE]]
        for column in range(FREE + 1, rows.shape[1]):
            slots += self._per_piece[rows[:, column]]
        if self._several:
            slots //= self._gpus
        np.minimum(slots, _MOST_SLOTS, out=slots)
        for column, per_unit, unlimited in self._limits:
            # Whole numbers as floats: half a unit more keeps an exact quotient from falling below its whole number,
            # and never reaches the next. Division of integers would take most of a replay's time.
            fitting = (rows[:, column, None] + 0.5) * per_unit
            fitting += unlimited
            np.minimum(fitting, _MOST_SLOTS, out=fitting)
            np.minimum(slots, fitting.astype(np.int16), out=slots)
        slots[self._barred[rows[:, KIND]]] = 0
        return slots


class _SlotsByState:
    """Slots of each class by number of state, counted when first asked for."""

    def __init__(self, slots: Slots, classes: int) -> None:
        self._slots = slots
        self._known: npt.NDArray[np.bool_] = np.zeros(256, dtype=np.bool_)
        self._counts: Counts = np.zeros((256, classes), dtype=np.int16)

    def of(self, numbers: Ints | None, rows: Rows) -> Counts:
        """Slots on nodes in the states of these numbers, which are these rows, [state, class]."""
        if numbers is None:
            return self._slots.of(rows)
        while len(self._known) <= int(numbers.max(initial=0)):
            self._known = np.concatenate([self._known, np.zeros_like(self._known)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        new = np.flatnonzero(~self._known[numbers])
        if len(new):
            self._counts[numbers[new]] = self._slots.of(rows[new])
            self._known[numbers[new]] = True
        return self._counts[numbers]


class SlotValue(Rule):
    """The rule."""

    interchangeable = True

    def __init__(
        self, mix: Mix, kinds: Sequence[NodeKind], *, priced: bool = True, watts: WattModel | None = None
    ) -> None:
        """Prepare the rule.

        Args:
            mix: The pods to come.
            kinds: The builds of nodes.
            priced: Whether pieces of GPU have prices; without, slots alone decide and no program is solved.
            watts: Draws of nodes, where they are to count: the emptier the hall, the more they do.
        """
        told = mix.without_memory()
        using = [i for i, pod in enumerate(told.classes) if pod.gpus]
        self.version = 0
        self._slots = Slots([told.classes[i] for i in using], kinds)
        self._slots_by_state = _SlotsByState(self._slots, len(using))
        self._popularity = told.shares[using]
        self._weights: Floats = self._popularity.copy()
        # Watts draw pods to one model, which then fills up long before the hall does: what is idle counts by model.
        models = sorted({kind.model for kind in kinds if watts is not None}) or [""]
        self._group = np.array([models.index(kind.model) if watts is not None else 0 for kind in kinds])
        # By kind: what a node has of GPU, CPU and memory; only nodes with GPUs count as room.
        self._capacity = np.array(
            [
                (kind.gpus * WHOLE, kind.cpu_milli, kind.memory_mib) if kind.gpus else (0, 0, 0)
                for kind in kinds
            ],
            dtype=np.float64,
        )
        self._model = PriceModel(mix, kinds) if priced else None
        self._prices: Prices | None = None
        self._priced_idle: Floats = np.zeros(len(models))
        self._watts = watts
        self._room = 1.0
        self._arrivals = 0

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        change = _ROOT[self._slots.of(ways.after)]
        change -= _ROOT[self._slots_by_state.of(ways.numbers, ways.states)][ways.state]
        if self._watts is None:
            return change
        added = self._watts.of(ways.after) - self._watts.of(ways.before)
        return np.column_stack([change, added.astype(np.float32)])

    @override
    def scores(self, pod: PodClass, known: Known) -> Floats:
        classes = len(self._weights)
        scores = known.features[:, :classes] @ self._weights
        if self._watts is not None:
            scores -= _WORTH_PER_KILOWATT * self._room**_ROOM_POWER * known.features[:, classes] / 1000
        if self._prices is not None:
            scores += _WORTH_PER_PRICE * self._prices.gain(pod, known.kind, known.piece)
        return scores

    @override
    def arrived(self, states: NodeStates) -> None:
        if self._arrivals % _REFRESH_ARRIVALS == 0:
            self._refresh(states)
        self._arrivals += 1

    def _refresh(self, states: NodeStates) -> None:
        """Weigh classes anew, and price pieces anew once what is idle has changed much."""
        occupied = states.occupied()
        rows, count = states.rows[occupied], states.count[occupied]
        left = count.astype(np.float64) @ self._slots_by_state.of(occupied, rows)
        weights = self._popularity / (1.0 + left)
        self._weights = (weights / max(weights.sum(), 1e-12)).astype(np.float32)
        self.version += 1
        idle_milli = rows[:, FREE:].sum(axis=1, dtype=np.float64)
        if self._watts is not None:
            free = np.column_stack([idle_milli, rows[:, CPU], rows[:, MEMORY]])
            self._room = self._part_free(rows[:, KIND], free, count)
        if self._model is None:
            return
        idle = np.zeros(len(self._priced_idle))
        np.add.at(idle, self._group[rows[:, KIND]], idle_milli * count)
        least = np.maximum(_PRICED_AGAIN * self._priced_idle, _LEAST_PRICED_AGAIN * self._priced_idle.sum())
        if self._prices is None or (np.abs(idle - self._priced_idle) > least).any():
            self._prices = self._model.solve(rows, count, _DEMAND)
            self._priced_idle = idle

    def _part_free(self, kind: npt.NDArray[np.int32], free: Floats, count: Ints) -> float:
        """The part that is free of what nodes with GPUs have, of GPU, CPU or memory: of what is scarcest, [0, 1]."""
        capacity = self._capacity[kind]
        total = count @ capacity
        left = count @ np.where(capacity > 0, free, 0.0)
        parts = np.divide(left, total, out=np.ones(3), where=total > 0)
        return float(np.clip(parts.min(), 0.0, 1.0))
