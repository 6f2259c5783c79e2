"""Places pods one at a time by a rule, scoring each pair of pod class and node state once.

Each class keeps the candidates it has met: a state with nodes in it, and the piece of GPU it would take there. When a
pod comes, only states that appeared since the last pod of its class are looked at; the rest is a masked maximum over
what is kept. A candidate whose state has lost its nodes is dropped, and comes back when the state does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datahall.planning.packing.demand import Floats, PodClass
from datahall.planning.packing.states import CPU, FREE, KIND, MEMORY, TAG, WHOLE, Ints, NodeStates, Rows

_SMALL = 64


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ways in which pods of one class could be placed.

    Attributes:
        before: States of the nodes now, [way, column].
        after: States of the nodes with the pod, [way, column].
        gpu: The shared GPU, [way]; -1 where the pod takes whole GPUs or none.
        alike: How many GPUs of the node would do as well as this one, [way].
    """

    before: Rows
    after: Rows
    gpu: Ints
    alike: Ints

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
    pod: PodClass, rows: Rows, allowed: npt.NDArray[np.bool_], *, tightest_only: bool = False
) -> tuple[Ints, Candidates]:
    """Every different way in which a pod fits nodes in the given states; the row of each way, and the ways.

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
    return where, Candidates(before, after, gpu, alike)


class _Table:
    """The candidates of one class, by column."""

    def __init__(self, pod: PodClass, rule: Rule, states: NodeStates) -> None:
        self._pod = pod
        self._rule = rule
        self._states = states
        self._allowed = pod.allowed(states.kinds)
        self._seen = 0
        self._has: set[int] = set()
        self._version = rule.version
        self.state: Ints = np.zeros(0, dtype=np.int64)
        self.score: Floats = np.zeros(0)
        self.after: Rows = np.zeros((0, states.rows.shape[1]), dtype=np.int32)
        self._kind: Ints = np.zeros(0, dtype=np.int64)
        self.piece: Ints = np.zeros(0, dtype=np.int64)
        self._features: Floats | None = None

    def refresh(self) -> Ints:
        """Take in what is new; the candidates whose states have nodes."""
        self._learn()
        nodes = self._states.count[self.state]
        live = np.flatnonzero(nodes)
        if 2 * len(live) < len(self.state) and len(self.state) > _SMALL:
            self._keep(live)
            live = np.arange(len(live))
        if self._version != self._rule.version:
            self._version = self._rule.version
            self.score = self._scores(slice(0, len(self.state)))
        return live

    def _scores(self, ways: slice) -> Floats:
        if self._features is None:
            return np.zeros(0)
        nodes = self._states.count[self.state[ways]]
        known = Known(self._features[ways], self._kind[ways], self.piece[ways], nodes)
        return self._rule.scores(self._pod, known)

    def _learn(self) -> None:
        """Take in the states that got nodes since the class was last asked about."""
        states = self._states
        if self._seen == len(states.log):
            return
        fresh = [s for s in dict.fromkeys(states.log[self._seen :]) if states.count[s] and s not in self._has]
        self._seen = len(states.log)
        if not fresh:
            return
        self._has.update(fresh)
        tightest = self._rule.tightest_gpu_only
        where, ways = ways_to_place(self._pod, states.rows[fresh], self._allowed, tightest_only=tightest)
        if len(ways) == 0:
            return
        features = self._rule.features(self._pod, ways)
        piece = np.zeros(len(ways), dtype=np.int64)
        if self._pod.shares:
            piece[:] = ways.before[np.arange(len(ways)), FREE + ways.gpu]
        before = len(self.state)
        self.state = np.concatenate([self.state, np.array(fresh)[where]])
        self.after = np.concatenate([self.after, ways.after])
        self._kind = np.concatenate([self._kind, ways.before[:, KIND]])
        self.piece = np.concatenate([self.piece, piece])
        self._features = features if self._features is None else np.concatenate([self._features, features])
        self.score = np.concatenate([self.score, self._scores(slice(before, len(self.state)))])

    def _keep(self, ways: Ints) -> None:
        """Keep only some candidates."""
        self.state, self.score = self.state[ways], self.score[ways]
        self.after, self._kind, self.piece = self.after[ways], self._kind[ways], self.piece[ways]
        if self._features is not None:
            self._features = self._features[ways]
        self._has = set(self.state.tolist())


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
