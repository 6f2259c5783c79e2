"""Places pods one at a time by a rule, scoring each pair of pod class and node state once.

Each class keeps the candidates it has met: a state with nodes in it, and the piece of GPU it would take there. When a
pod comes, only states that appeared since the last pod of its class are looked at; the rest is a masked maximum over
what is kept. A candidate whose state has lost its nodes is dropped, and comes back when the state does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from datahall.planning.packing.demand import Floats, PodClass
from datahall.planning.packing.states import CPU, FREE, KIND, MEMORY, TAG, WHOLE, Ints, NodeStates, Rows

_SMALL = 64


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ways in which pods of one class could be placed.

    Attributes:
        states: States that the nodes may be in, [state, column].
        state: The state of each way, as a row of `states`, [way].
        after: States of the nodes with the pod, [way, column].
        gpu: The shared GPU, [way]; -1 where the pod takes whole GPUs or none.
        alike: How many GPUs of the node would do as well as this one, [way].
        numbers: The states' numbers in the table that the rule is asked about, [state], so that what it worked out for
            a state need not be worked out again; None if they are in none.
    """

    states: Rows
    state: Ints
    after: Rows
    gpu: Ints
    alike: Ints
    numbers: Ints | None = None

    @property
    def before(self) -> Rows:
        """States of the nodes without the pod, [way, column]."""
        return self.states[self.state]

    def __len__(self) -> int:
        return len(self.gpu)


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of candidates.

    Attributes:
        features: What the rule's `features` gave, [way] or [way, feature].
        kind: The node's kind, [way].
        piece: Thousandths of the shared GPU that are free before, [way]; 0 where the pod shares none.
        nodes: How many nodes are in the state, [way].
    """

    features: Floats
    kind: Ints
    piece: Ints
    nodes: Ints


class Rule(ABC):
    """How good a candidate is.

    Attributes:
        version: Grows when scores that were given no longer hold.
        interchangeable: Whether the numbers of GPUs are without meaning.
        tightest_gpu_only: Whether a share goes to the fullest GPU that holds it, so that only nodes are compared.
    """

    version = 0
    interchangeable = False
    tightest_gpu_only = False

    @abstractmethod
    def features(self, pod: PodClass, ways: Candidates) -> Floats:
        """What of a candidate's score never changes: [way] or [way, feature]."""

    @abstractmethod
    def scores(self, pod: PodClass, known: Known) -> Floats:
        """Scores of candidates, higher is better, [way]; asked for again when `version` has changed."""

    def arrived(self, states: NodeStates) -> None:  # noqa: B027 (most rules have nothing to do here)
        """A pod is about to be placed."""

    def mark(self, pod: PodClass, tag: int) -> int:  # noqa: ARG002 (most rules mark nothing)
        """The rule's own mark on a node once the pod is there."""
        return tag


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod went.

    Attributes:
        node: The node's number.
        piece: Thousandths that were free of the GPU that it shares; 0 for whole GPUs or none. Any GPU of the node with
            this much free is meant: where GPUs are interchangeable, they have no numbers.
    """

    node: int
    piece: int


def ways_to_place(
    pod: PodClass,
    rows: Rows,
    allowed: npt.NDArray[np.bool_],
    *,
    numbers: Ints | None = None,
    tightest_only: bool = False,
) -> Candidates:
    """Every different way in which a pod fits nodes in the given states.

    GPUs of a node with equal free shares count once, by the lowest number.
    """
    fits = allowed[rows[:, KIND]] & (rows[:, CPU] >= pod.cpu_milli) & (rows[:, MEMORY] >= pod.memory_mib)
    free = rows[:, FREE:]
    if pod.gpus == 0:
        where = np.flatnonzero(fits)
        gpu = np.full(len(where), -1)
        alike = np.ones(len(where), dtype=np.int64)
    elif not pod.shares:
        where = np.flatnonzero(fits & ((free == WHOLE).sum(axis=1) >= pod.gpus))
        gpu = np.full(len(where), -1)
        alike = np.ones(len(where), dtype=np.int64)
    else:
        holds = fits[:, None] & (free >= pod.gpu_milli)
        if tightest_only:
            where = np.flatnonzero(holds.any(axis=1))
            gpu = np.where(holds[where], free[where], WHOLE + 1).argmin(axis=1)
        else:
            for g in range(1, free.shape[1]):
                holds[:, g] &= (free[:, :g] != free[:, g : g + 1]).all(axis=1)
            where, gpu = np.nonzero(holds)
        alike = (free[where] == free[where, gpu][:, None]).sum(axis=1)
    before = rows[where]
    after = before.copy()
    after[:, CPU] -= pod.cpu_milli
    after[:, MEMORY] -= pod.memory_mib
    if pod.shares:
        after[np.arange(len(where)), FREE + gpu] -= pod.gpu_milli
    elif pod.gpus:
        whole = before[:, FREE:] == WHOLE
        taken = whole & (whole.cumsum(axis=1) <= pod.gpus)
        after[:, FREE:][taken] = 0
    return Candidates(rows, where, after, gpu, alike, numbers)


class _Table:
    """The candidates of one class, by column; arrays have room to spare, and `size` says how much counts."""

    def __init__(self, pod: PodClass, rule: Rule, states: NodeStates) -> None:
        self._pod = pod
        self._rule = rule
        self._states = states
        self._allowed = pod.allowed(states.kinds)
        self._seen = 0
        self._has: set[int] = set()
        self._version = rule.version
        self._size = 0
        self.state: Ints = np.zeros(_SMALL, dtype=np.int64)
        self.piece: Ints = np.zeros(_SMALL, dtype=np.int64)
        self.score: Floats = np.zeros(_SMALL)
        self.after: Rows = np.zeros((_SMALL, states.rows.shape[1]), dtype=np.int32)
        self._kind: Ints = np.zeros(_SMALL, dtype=np.int64)
        self._features: Floats | None = None

    def refresh(self) -> Ints:
        """Take in what is new; the candidates whose states have nodes."""
        self._learn()
        live = np.flatnonzero(self._states.count[self.state[: self._size]])
        if 2 * len(live) < self._size and self._size > _SMALL:
            self._keep(live)
            live = np.arange(len(live))
        if self._version != self._rule.version:
            self._version = self._rule.version
            self._score(0)
        return live

    def _score(self, first: int) -> None:
        """Score the candidates from `first` on."""
        if self._features is None:
            return
        ways = slice(first, self._size)
        nodes = self._states.count[self.state[ways]]
        known = Known(self._features[ways], self._kind[ways], self.piece[ways], nodes)
        self.score[ways] = self._rule.scores(self._pod, known)

    def _learn(self) -> None:
        """Take in the states that got nodes since the class was last asked about."""
        states = self._states
        if self._seen == len(states.log):
            return
        logged = set(states.log[self._seen :]) - self._has
        self._seen = len(states.log)
        fresh: Ints = np.array(sorted(logged), dtype=np.int64)
        fresh = fresh[np.flatnonzero(states.count[fresh])]
        if len(fresh) == 0:
            return
        self._has.update(fresh.tolist())
        tightest = self._rule.tightest_gpu_only
        rows = states.rows[fresh]
        ways = ways_to_place(self._pod, rows, self._allowed, numbers=fresh, tightest_only=tightest)
        if len(ways) == 0:
            return
        features = self._rule.features(self._pod, ways)
        self._make_room(len(ways), features)
        assert self._features is not None
        new = slice(self._size, self._size + len(ways))
        self.state[new] = fresh[ways.state]
        self.piece[new] = ways.states[ways.state, FREE + ways.gpu] if self._pod.shares else 0
        self.after[new] = ways.after
        self._kind[new] = ways.states[ways.state, KIND]
        self._features[new] = features
        self._size = new.stop
        self._score(new.start)

    def _make_room(self, more: int, features: Floats) -> None:
        if self._features is None:
            self._features = np.zeros((len(self.state), *features.shape[1:]), dtype=features.dtype)
        if self._size + more > len(self.state):
            rows = 2 * (self._size + more)
            self.state, self.piece = _longer(self.state, rows), _longer(self.piece, rows)
            self.score, self.after = _longer(self.score, rows), _longer(self.after, rows)
            self._kind, self._features = _longer(self._kind, rows), _longer(self._features, rows)

    def _keep(self, ways: Ints) -> None:
        """Keep only some candidates."""
        arrays = (self.state, self.piece, self.score, self.after, self._kind, self._features)
        for array in arrays:
            if array is not None:
                array[: len(ways)] = array[ways]
        self._size = len(ways)
        self._has = set(self.state[: self._size].tolist())


def _longer(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """The same array with more rows."""
    longer = np.zeros((rows, *array.shape[1:]), dtype=array.dtype)
    longer[: len(array)] = array
    return longer


class Packer:
    """Nodes and a rule."""

    def __init__(self, states: NodeStates, rule: Rule) -> None:
        """Start; `states` is changed as pods are placed."""
        self.states = states
        self._rule = rule
        self._tables: dict[PodClass, _Table] = {}

    def place(self, pod: PodClass) -> Place | None:
        """Place a pod on the best node; None if it fits nowhere."""
        states = self.states
        self._rule.arrived(states)
        table = self._tables.get(pod)
        if table is None:
            table = self._tables[pod] = _Table(pod, self._rule, states)
        live = table.refresh()
        if len(live) == 0:
            return None
        scores = table.score[live]
        best = live[np.flatnonzero(scores == scores.max())]
        if len(best) > 1:
            firsts = states.first[table.state[best]]
            best = best[np.flatnonzero(firsts == firsts.min())]
        way = int(best[0])
        node = int(states.first[table.state[way]])
        row = table.after[way].copy()
        row[TAG] = self._rule.mark(pod, int(row[TAG]))
        states.move(node, row)
        return Place(node, int(table.piece[way]))
