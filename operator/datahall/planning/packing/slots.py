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
_REFRESH_ARRIVALS = 50


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
        self,
        mix: Mix,
        kinds: Sequence[NodeKind],
        *,
        price_weight: float = 10.0,
        resolve_ratio: float = 0.75,
        demand: float = 1.05,
        watts: WattModel | None = None,
        watt_weight: float = 1.0,
    ) -> None:
        using = [i for i, pod in enumerate(mix.classes) if pod.gpus]
        self.version = 0
        self._slots = Slots([mix.classes[i] for i in using], kinds)
        self._popularity = mix.shares[using]
        self._weights: Floats = self._popularity.copy()
        self._root = np.sqrt(np.arange(_MOST_SLOTS + 1, dtype=np.float32))
        self._arrivals = 0
        self._price_weight = price_weight
        self._resolve_ratio = resolve_ratio
        self._demand = demand
        self._model = PriceModel(mix, kinds) if price_weight else None
        self._prices: Prices | None = None
        self._idle = 0
        self._watts = watts
        self._watt_weight = watt_weight
        self._room = 1.0

    @override
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        change = self._root[self._slots.of(ways.after)]
        change -= self._root[self._slots.of(ways.states)][ways.state]
        if self._watts is None:
            return change
        added = self._watts.of(ways.after) - self._watts.of(ways.before)
        return np.column_stack([change, added.astype(np.float32)])

    @override
    def scores(self, pod: PodClass, known: Known) -> Floats:
        classes = len(self._weights)
        scores = known.features[:, :classes] @ self._weights
        if self._watts is not None:
            scores -= self._watt_weight * self._room * known.features[:, classes] / 1000
        if self._prices is not None:
            scores += self._price_weight * self._prices.gain(pod, known.kind, known.piece)
        return scores

    @override
    def arrived(self, states: NodeStates) -> None:
        if self._arrivals % _REFRESH_ARRIVALS == 0:
            occupied = states.occupied()
            rows, count = states.rows[occupied], states.count[occupied]
            weights = self._popularity / (1.0 + count @ self._slots.of(rows))
            self._weights = (weights / max(weights.sum(), 1e-12)).astype(np.float32)
            self.version += 1
            if self._model is not None:
                idle = int(rows[:, FREE:].sum(axis=1) @ count)
                if self._prices is None or idle < self._resolve_ratio * self._idle:
                    self._prices = self._model.solve(rows, count, self._demand)
                    self._idle = idle
        self._arrivals += 1
