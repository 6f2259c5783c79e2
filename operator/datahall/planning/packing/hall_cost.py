"""What a worker takes from the rest of the hall, by column: the packing rule, over the planner's own arrays.

Until enough pods have come to know what may come, the fullest node that holds a worker is the cheapest. From then on
the slots rule decides (`slots`), for the mix that was learned. Nodes are grouped by equal state: a state is judged once
for each class of pods, and only columns that changed since the last question are looked at again.

Where that leaves several columns equal, as nodes of one build and one fill are, the GPUs that add the fewest watts
come first: those with the lowest power cap. It never outweighs what a rule says.
"""

from __future__ import annotations

import numpy as np

from datahall.planning.packing.demand import Floats, PodClass
from datahall.planning.packing.learning import Learner
from datahall.planning.packing.packer import Known, Rule, ways_to_place
from datahall.planning.packing.slots import SlotValue
from datahall.planning.packing.states import CPU, FREE, KIND, MEMORY, WHOLE, NodeKind, NodeStates, Rows
from datahall.planning.state import GPU, IntArray, NodeArrays

_MIB = 1 << 20
_NOWHERE = -1
_MOST_OBSERVED = 64
_MEMORY_STEP_MIB = 1024
"""Free memory is judged by the GiB: equal nodes differ by less, and each would be a state of its own."""
_CPU_SPAN = 1 << 27
_GPU_NODE = float(1 << 34)
"""More than the fullest node costs by `_CPU_SPAN`, and not so much that a watt is lost beside it."""
MOST_WATTS = 100_000
"""What a GPU is taken to draw whose cap nobody knows: more than any does."""
_WATT_OF_A_RULE = 1e-13
"""What a watt counts beside what a rule says: more than what floats lose, less than anything that the rule means."""
_WATT_OF_FULLNESS = 2.0**-17
"""The same beside whole numbers of GPUs and CPU: `MOST_WATTS` stay below 1."""


class _HallStates(NodeStates):
    """Nodes by state, by the planner's columns, that come and go."""

    def __init__(self, kinds: list[NodeKind]) -> None:
        super().__init__(kinds, [])
        self.of_column: IntArray = np.full(64, _NOWHERE, dtype=np.int64)

    def put(self, column: int, row: Rows | None) -> None:
        """Put a column into the state of a row; None for a column without a node."""
        if column >= len(self.of_column):
            more = max(column + 1, 2 * len(self.of_column)) - len(self.of_column)
            self.of_column = np.pad(self.of_column, (0, more), constant_values=_NOWHERE)
        before = int(self.of_column[column])
        state = _NOWHERE if row is None else self._intern(row)
        if state == before:
            return
        self.of_column[column] = state
        if before != _NOWHERE:
            self.count[before] -= 1
        if state != _NOWHERE:
            self.count[state] += 1


class _Scores:
    """What a rule said of the states, for one class of pods, [state]."""

    def __init__(self) -> None:
        self.version = -1
        self.known: IntArray = np.zeros(0, dtype=np.bool_)
        self.score: Floats = np.zeros(0)


class HallCost:
    """The packing rule in use, learned from the pods that came."""

    def __init__(self) -> None:
        """Start knowing nothing of what will come."""
        self._learner = Learner()
        self._rule: Rule | None = None
        self._kinds: dict[NodeKind, int] = {}
        self._states: _HallStates | None = None
        self._scores: dict[PodClass, _Scores] = {}
        self._watts_of = (-1, 0)
        self._watts: Floats | None = None

    def observe(self, pod: PodClass, pods: int) -> None:
        """A gang came: so many pods of a class."""
        for _ in range(min(pods, _MOST_OBSERVED)):
            self._learner.observe(pod)

    def follow(self, nodes: NodeArrays) -> None:
        """Take in what has changed; to be called before `of`."""
        changed, nodes.changed = nodes.changed, set()
        if self._states is None:
            if not self._learner.due:
                return  # nobody asks about states yet
            changed = set(range(nodes.columns))
        elif self._learner.due:
            self._rule = None
        if self._takes_new_kinds(nodes, changed) or self._states is None:
            self._states = _HallStates(list(self._kinds))
            self._rule = None
            changed = set(range(nodes.columns))
        for column in sorted(changed):
            self._states.put(column, self._row(nodes, column))
        if self._rule is None:
            self._rule = SlotValue(self._learner.mix(), self._states.kinds)
            self._scores.clear()

    def of(self, nodes: NodeArrays, pod: PodClass) -> Floats:
        """What one worker takes from the rest of the hall on each column, [column]; smaller is better.

        Args:
            nodes: The hall, as `follow` saw it.
            pod: The worker's class; columns that do not hold it have no meaning.
        """
        watts = self._added_watts(nodes) if pod.gpus else None
        if self._rule is None or self._states is None:
            cost = _fullest_first(nodes, pod)
            return cost if watts is None else cost + _WATT_OF_FULLNESS * watts
        states, rule = self._states, self._rule
        rule.arrived(states)
        scores = self._scores.setdefault(pod, _Scores())
        if scores.version != rule.version:
            scores.version, scores.known = rule.version, np.zeros(0, dtype=np.bool_)
        missing = states.known - len(scores.known)
        if missing > 0:
            scores.known = np.pad(scores.known, (0, missing))
            scores.score = np.resize(scores.score, states.known)
        fresh = np.flatnonzero((states.count[: states.known] > 0) & ~scores.known)
        if len(fresh):
            self._judge(pod, fresh, scores)
        of_column = states.of_column[: nodes.columns]
        if len(of_column) < nodes.columns:
            of_column = np.pad(of_column, (0, nodes.columns - len(of_column)), constant_values=_NOWHERE)
        cost = np.where(of_column >= 0, -scores.score[of_column], 0.0)
        return cost if watts is None else cost + _WATT_OF_A_RULE * watts

    def _added_watts(self, nodes: NodeArrays) -> Floats | None:
        """What a GPU in use may draw, [column]; None where all draw the same. Of unknown ones the worst is assumed."""
        # A pod on a node that is not known yet makes a column, and no new version.
        if self._watts_of != (nodes.version, nodes.columns):
            self._watts_of = nodes.version, nodes.columns
            has_gpus = nodes.total[GPU] > 0
            watts = np.where(nodes.gpu_watts > 0, nodes.gpu_watts, MOST_WATTS)
            differ = len(np.unique(watts[has_gpus])) > 1
            self._watts = np.minimum(watts, MOST_WATTS).astype(np.float64) if differ else None
        return self._watts

    def _judge(self, pod: PodClass, fresh: IntArray, scores: _Scores) -> None:
        states, rule = self._states, self._rule
        assert states is not None, "follow comes first"
        assert rule is not None, "follow comes first"
        scores.known[fresh] = True
        scores.score[fresh] = -np.inf
        rows = states.rows[fresh]
        ways = ways_to_place(pod, rows, pod.allowed(states.kinds))
        if len(ways):
            piece = rows[ways.state, FREE + ways.gpu] if pod.shares else np.zeros(len(ways), dtype=np.int64)
            known = Known(
                rule.features(pod, ways),
                rows[ways.state, KIND].astype(np.int64),
                piece.astype(np.int64),
                states.count[fresh][ways.state],
            )
            np.maximum.at(scores.score, fresh[ways.state], rule.scores(pod, known))
        scores.score[fresh] = np.maximum(scores.score[fresh], -1e30)

    def _takes_new_kinds(self, nodes: NodeArrays, changed: set[int]) -> bool:
        before = len(self._kinds)
        for column in changed:
            kind = _kind(nodes, column)
            if kind is not None:
                self._kinds.setdefault(kind, len(self._kinds))
        return len(self._kinds) > before

    def _row(self, nodes: NodeArrays, column: int) -> Rows | None:
        kind = _kind(nodes, column)
        if kind is None:
            return None
        assert self._states is not None, "rows are for states"
        row = np.zeros(FREE + self._states.gpus, dtype=np.int32)
        free = nodes.total[:, column] - nodes.pods[:, column] - nodes.gangs[:, column]
        row[KIND] = self._kinds[kind]
        row[CPU] = max(int(free[1]), 0)
        row[MEMORY] = max(int(free[2]), 0) // _MIB // _MEMORY_STEP_MIB * _MEMORY_STEP_MIB
        shared = [WHOLE - used for used in nodes.cards(column).values() if 0 < used < WHOLE]
        pieces = ([WHOLE] * max(int(free[GPU]), 0) + shared)[: self._states.gpus]
        row[FREE : FREE + len(pieces)] = pieces
        return row


def _kind(nodes: NodeArrays, column: int) -> NodeKind | None:
    state = nodes.state(nodes.name(column))
    if state is None or not state.schedulable:
        return None
    return NodeKind(
        state.gpu_model, state.gpus, _rounded(state.cpu_milli), _rounded(state.memory_bytes // _MIB)
    )


def _rounded(amount: int) -> int:
    """An amount with its five leading bits: nodes of one build differ by what their system keeps for itself."""
    low = max(amount.bit_length() - 5, 0)
    return amount >> low << low


def _fullest_first(nodes: NodeArrays, pod: PodClass) -> Floats:
    """The fewest GPUs left, then the least CPU; nodes without GPUs first for work that needs none."""
    free = nodes.free()
    cost: Floats = free[GPU].astype(np.float64) * _CPU_SPAN + np.clip(free[1], 0, _CPU_SPAN - 1)
    if pod.gpus == 0:
        cost += np.where(nodes.total[GPU] > 0, _GPU_NODE, 0.0)
    elif pod.shares:
        # A piece of a GPU that is shared already comes before a whole one.
        cost += np.where((nodes.pieces >= pod.gpu_milli).any(axis=0), 0.0, _GPU_NODE)
    return cost
