"""Running gangs as candidates for preemption: what they hold, what their end costs, and who may end them.

A gang is one candidate with all its nodes: nobody ends single workers of it. Who may be ended is decided here by time
and priority, in a way that cannot go in circles; shares and quota are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from datahall.planning.packing.demand import Floats
from datahall.planning.state import BoolArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A running gang.

    Attributes:
        key: Identity of the gang, unique.
        columns: The nodes it holds, [place]; a node may come again.
        amounts: What it holds there, [resource, place].
        priority: Its priority.
        started_seconds: When it started, seconds since the epoch.
        lost_gpu_seconds: Work since its last checkpoint that would be done again; 0 if it checkpoints before it ends.
        restart_gpu_seconds: Seconds that it needs to start again, times its GPUs.
        evictions: How often it was preempted before.
        minimum_run_seconds: How long it may run before anyone ends it.
        leaving: Whether it is ending already, for whatever reason.
    """

    key: str
    columns: IntArray
    amounts: IntArray
    priority: int
    started_seconds: float
    lost_gpu_seconds: float
    restart_gpu_seconds: float
    evictions: int = 0
    minimum_run_seconds: float = 0.0
    leaving: bool = False

    @property
    def cost_gpu_seconds(self) -> int:
        """What ending it costs, in whole GPU-seconds, so that sums are exact in any order."""
        return round((self.lost_gpu_seconds + self.restart_gpu_seconds) * (1 + self.evictions))


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Running gangs as arrays, made once for all preemptors of a cycle.

    Attributes:
        keys: The gangs, [gang].
        cost_gpu_seconds: What ending each costs, [gang].
        priority: Priorities, [gang].
        evictions: Earlier evictions, [gang].
        started_seconds: When each started, [gang].
        minimum_run_seconds: How long each may run undisturbed, [gang].
        leaving: Gangs that are ending already, [gang].
        rank: Whom to prefer among equals, whatever the order of the list, [gang]: cheaper, fewer earlier evictions,
            latest started, key.
        order: The gangs by that rank, [gang].
        gang: The gang of each entry, ascending, [entry]; one entry for each node that a gang holds.
        column: The node of each entry, [entry].
        amounts: What is held there, [resource, entry].
    """

    keys: tuple[str, ...]
    cost_gpu_seconds: IntArray
    priority: IntArray
    evictions: IntArray
    started_seconds: Floats
    minimum_run_seconds: Floats
    leaving: BoolArray
    rank: IntArray
    order: IntArray
    gang: IntArray
    column: IntArray
    amounts: IntArray
    _number_of: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, gangs: Sequence[Candidate], resources: int = 3) -> Candidates:
        """Arrays of a list of gangs.

        Args:
            gangs: The gangs, each key once.
            resources: How many resources there are, for an empty list.
        """
        costs = [gang.cost_gpu_seconds for gang in gangs]
        order = sorted(
            range(len(gangs)),
            key=lambda i: (costs[i], gangs[i].evictions, -gangs[i].started_seconds, gangs[i].key),
        )
        rank = np.empty(len(gangs), dtype=np.int64)
        rank[order] = np.arange(len(gangs))
        gang, column, amounts = _entries(gangs, resources)
        return cls(
            keys=tuple(gang.key for gang in gangs),
            cost_gpu_seconds=np.array(costs, dtype=np.int64),
            priority=np.array([gang.priority for gang in gangs], dtype=np.int64),
            evictions=np.array([gang.evictions for gang in gangs], dtype=np.int64),
            started_seconds=np.array([gang.started_seconds for gang in gangs], dtype=np.float64),
            minimum_run_seconds=np.array([gang.minimum_run_seconds for gang in gangs], dtype=np.float64),
            leaving=np.array([gang.leaving for gang in gangs], dtype=np.bool_),
            rank=rank,
            order=np.array(order, dtype=np.int64),
            gang=gang,
            column=column,
            amounts=amounts,
        )

    def __len__(self) -> int:
        return len(self.keys)

    def numbers(self, keys: Iterable[str]) -> list[int]:
        """The places of gangs in these arrays; those that are not among them are left out."""
        wanted = list(keys)
        if wanted and not self._number_of:
            self._number_of.update(zip(self.keys, range(len(self.keys)), strict=True))
        return [self._number_of[key] for key in wanted if key in self._number_of]

    def entries_of(self, gang: int) -> slice:
        """The entries of one gang."""
        first, last = np.searchsorted(self.gang, [gang, gang + 1])
        return slice(int(first), int(last))

    def freed_by(self, gangs: BoolArray, columns: int) -> IntArray:
        """What a choice of gangs holds, [resource, column].

        Args:
            gangs: The choice, [gang].
            columns: How many columns there are.
        """
        freed = np.zeros((len(self.amounts), columns), dtype=np.int64)
        entries = np.flatnonzero(gangs[self.gang])
        for resource, amounts in enumerate(self.amounts):
            np.add.at(freed[resource], self.column[entries], amounts[entries])
        return freed


def evictable(
    candidates: Candidates, *, priority: int, now_seconds: float, made_way_for: frozenset[str] = frozenset()
) -> BoolArray:
    """Gangs that a preemptor may end by priority: lower than its own, not leaving, and past their minimum run time.

    Because priorities must fall, no chain of such preemptions ever comes back to its start.

    Args:
        candidates: The gangs that run.
        priority: The preemptor's priority.
        now_seconds: The time, in seconds since the epoch.
        made_way_for: See `reclaimable`.
    """
    return reclaimable(candidates, priority=priority, now_seconds=now_seconds, made_way_for=made_way_for) & (
        candidates.priority < priority
    )


def reclaimable(
    candidates: Candidates, *, priority: int, now_seconds: float, made_way_for: frozenset[str]
) -> BoolArray:
    """Gangs that a preemptor may end where something other than priority gives it the right, such as quota.

    Args:
        candidates: The gangs that run.
        priority: The preemptor's priority.
        now_seconds: The time, in seconds since the epoch. A clock that went back protects, and ends nobody.
        made_way_for: Gangs for which the preemptor was ended itself, directly or through others (see
            `all_made_way_for`): it may end them only with a higher priority, or the two would take turns for ever.
    """
    old_enough = now_seconds - candidates.started_seconds >= candidates.minimum_run_seconds
    allowed: BoolArray = ~candidates.leaving & old_enough
    for i in candidates.numbers(made_way_for):
        allowed[i] &= candidates.priority[i] < priority
    return allowed


def all_made_way_for(key: str, preemptors_of: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Gangs for which a gang was ended, directly or because what ended it was itself ended for another.

    Args:
        key: The gang.
        preemptors_of: For each gang that was ever ended for others, those others.
    """
    found: set[str] = set()
    ahead = [key]
    while ahead:
        fresh = preemptors_of.get(ahead.pop(), frozenset()) - found
        found |= fresh
        ahead.extend(fresh)
    return frozenset(found - {key})


def _entries(gangs: Sequence[Candidate], resources: int) -> tuple[IntArray, IntArray, IntArray]:
    """Gang, column and amounts of each entry, nodes that come again made one."""
    if not any(len(gang.columns) for gang in gangs):
        none = np.zeros(0, dtype=np.int64)
        return none, none, np.zeros((resources, 0), dtype=np.int64)
    column = np.concatenate([gang.columns for gang in gangs]).astype(np.int64)
    amounts = np.concatenate([gang.amounts for gang in gangs], axis=1).astype(np.int64)
    gang = np.repeat(np.arange(len(gangs)), [len(gang.columns) for gang in gangs])
    order = np.lexsort((column, gang))
    gang, column = gang[order], column[order]
    first = np.flatnonzero((np.diff(gang, prepend=-1) != 0) | (np.diff(column, prepend=-1) != 0))
    return gang[first], column[first], np.add.reduceat(amounts[:, order], first, axis=1)
