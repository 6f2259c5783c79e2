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
from datahall.planning.packing.states import CPU, FREE, KIND, MEMORY, WHOLE, NodeKind, NodeStates, Rows
from datahall.planning.packing.watts import WattModel

_MOST_SLOTS = 4096
_ROOT = np.sqrt(np.arange(_MOST_SLOTS + 1, dtype=np.float32))
_COVER = 0.99
"""Slots are counted for the classes that make up this part of the arrivals: the rarest cost time and change nothing."""
_REFRESH_ARRIVALS = 50
_DEMAND = 1.05
"""GPUs that pods to come are taken to ask for, as a multiple of what is idle. More makes every kind of node dear, and
leaves watts nothing to choose; what is allocated is the same from 1.05 to 1.2."""
# Half or three times as much changes what is allocated by less than 0.1 % of the GPUs.
_WORTH_PER_PRICE = 10.0
_WORTH_PER_KILOWATT = 4.0


class Slots:
    """How many pods of each class fit nodes in given states."""

    def __init__(self, classes: Sequence[PodClass], kinds: Sequence[NodeKind]) -> None:
        """Prepare tables.

        Args:
            classes: The classes; each takes GPU.
            kinds: The builds of nodes.
        """
        self._limits = [
            (column, np.maximum(asked, 1), np.where(asked == 0, _MOST_SLOTS, 0))
            for column, asked in (
                (CPU, np.array([pod.cpu_milli for pod in classes], dtype=np.int32)),
                (MEMORY, np.array([pod.memory_mib for pod in classes], dtype=np.int32)),
            )
        ]
        self._gpus = np.array([pod.gpus for pod in classes], dtype=np.int16)
        self._several = bool((self._gpus > 1).any())
        self._barred = np.zeros((len(kinds), len(classes)), dtype=np.bool_)
        for i, pod in enumerate(classes):
            self._barred[:, i] = ~pod.allowed(kinds)
        milli = np.array([pod.gpu_milli for pod in classes], dtype=np.int16)
        self._per_piece = (np.arange(WHOLE + 1)[:, None] // milli).astype(np.int16)

    def of(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Slots of each class on nodes in the given states, [row, class]."""
        slots = self._per_piece[rows[:, FREE]]
        for column in range(FREE + 1, rows.shape[1]):
            slots += self._per_piece[rows[:, column]]
        if self._several:
            slots //= self._gpus
        counts = np.minimum(slots, _MOST_SLOTS, dtype=np.int32)
        for column, asked, unlimited in self._limits:
            np.minimum(counts, rows[:, column, None] // asked + unlimited, out=counts)
        counts[self._barred[rows[:, KIND]]] = 0
        return counts


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
        told = mix.without_memory().covering(_COVER)
        using = [i for i, pod in enumerate(told.classes) if pod.gpus]
        self.version = 0
        self._slots = Slots([told.classes[i] for i in using], kinds)
        self._popularity = told.shares[using]
        self._weights: Floats = self._popularity.copy()
        self._gpu_milli = np.array([kind.gpus * WHOLE for kind in kinds])
        self._model = PriceModel(mix, kinds) if priced else None
        self._prices: Prices | None = None
        self._priced_idle_milli = 0
        self._watts = watts
        self._room = 1.0
        self._arrivals = 0

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        change = _ROOT[self._slots.of(ways.after)]
        change -= _ROOT[self._slots.of(ways.states)][ways.state]
        if self._watts is None:
            return change
        added = self._watts.of(ways.after) - self._watts.of(ways.before)
        return np.column_stack([change, added.astype(np.float32)])

    @override
    def scores(self, pod: PodClass, known: Known) -> Floats:
        classes = len(self._weights)
        scores = known.features[:, :classes] @ self._weights
        if self._watts is not None:
            scores -= _WORTH_PER_KILOWATT * self._room * known.features[:, classes] / 1000
        if self._prices is not None:
            scores += _WORTH_PER_PRICE * self._prices.gain(pod, known.kind, known.piece)
        return scores

    @override
    def arrived(self, states: NodeStates) -> None:
        if self._arrivals % _REFRESH_ARRIVALS == 0:
            self._refresh(states)
        self._arrivals += 1

    def _refresh(self, states: NodeStates) -> None:
        """Weigh classes anew, and price pieces anew once the hall is fuller or emptier by a quarter."""
        occupied = states.occupied()
        rows, count = states.rows[occupied], states.count[occupied]
        weights = self._popularity / (1.0 + count @ self._slots.of(rows))
        self._weights = (weights / max(weights.sum(), 1e-12)).astype(np.float32)
        self.version += 1
        idle_milli = int(rows[:, FREE:].sum(axis=1) @ count)
        self._room = idle_milli / max(1, int(self._gpu_milli[rows[:, KIND]] @ count))
        if self._model is None:
            return
        ratio = idle_milli / max(1, self._priced_idle_milli)
        if self._prices is None or not 0.75 <= ratio <= 1.33:
            self._prices = self._model.solve(rows, count, _DEMAND)
            self._priced_idle_milli = idle_milli
