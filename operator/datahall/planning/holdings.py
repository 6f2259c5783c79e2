"""What is held: gangs with their places, and everything that follows from it for nodes, quota and power.

A gang takes and gives back everything together. What it was charged is kept with it, so that exactly this is given
back, whatever has changed meanwhile: labels, caps, models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from datahall.planning.backfill import RunningGangs
from datahall.planning.candidates import Candidates
from datahall.planning.hall import Hall
from datahall.planning.packing.demand import Floats
from datahall.planning.queues.spec import WATTS
from datahall.planning.queues.tree import QueueTree
from datahall.planning.state import GPU, BoolArray, Holder, IntArray
from datahall.planning.types import WHOLE_GPU_MILLI, GangProgress, GangRequest, Placement

GPU_FAMILY = "gpu_milli"
"""The family of quota resources for GPUs, counted in thousandths."""


_RESTART_SECONDS = 60.0
"""What a restart is taken to cost where nobody has measured it."""


def gpu_resource(model: str) -> str:
    """The quota resource of a GPU model."""
    return f"{GPU_FAMILY}:{model}"


@dataclass(slots=True, eq=False)
class Held:
    """A gang that holds its place.

    Attributes:
        gang: The gang.
        placements: Where its workers are.
        charges: What its queue is charged, by resource.
        node_watts: Watts reserved on each node.
        since_seconds: When it was taken into account first.
        gpus: GPUs held, shares as parts.
        leaving: Whether it is ending: its room comes free without anyone asking.
        progress: How it does, if that was told.
        columns: The columns that it holds something on, each once, [k].
        workers: How many workers it has there, [k].
        amounts: What it holds there but for shares of GPUs, [resource, k].
    """

    gang: GangRequest
    placements: tuple[Placement, ...]
    charges: dict[str, int]
    node_watts: dict[str, int]
    since_seconds: float
    gpus: float
    leaving: bool = False
    progress: GangProgress | None = None
    columns: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    workers: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    amounts: IntArray = field(default_factory=lambda: np.zeros((3, 0), dtype=np.int64))

    @property
    def watts(self) -> int:
        """Watts reserved."""
        return self.charges.get(WATTS, 0)

    @property
    def started_seconds(self) -> float:
        """When it started, as far as is known."""
        return self.since_seconds if self.progress is None else self.progress.started_seconds

    @property
    def restart_seconds(self) -> float:
        """What starting it again takes."""
        return _RESTART_SECONDS if self.progress is None else self.progress.restart_seconds

    @property
    def end_seconds(self) -> float | None:
        """When it is expected to end; None if nobody knows."""
        if self.progress is not None and self.progress.end_seconds is not None:
            return self.progress.end_seconds
        run = self.gang.run_seconds
        return None if run is None else self.started_seconds + run


@dataclass(slots=True)
class _Rate:
    """What the gangs of a queue hold together."""

    gpu_milli: int = 0
    watts: int = 0
    gangs: int = 0


@dataclass(slots=True, eq=False)
class _Arrays:
    """Held gangs as arrays; kept until something changes.

    Attributes:
        held: The gangs.
        gang: The gang of each entry, [entry].
        column: The column of each entry, [entry].
        amounts: What is held there; a GPU that several share is held by the last of them to end, [resource, entry].
        alone: The same; a GPU that several share is held by none of them, [resource, entry].
        priority: Priorities, [gang].
        evictions: Earlier evictions, [gang].
        preemptible: Whether each may be ended for others, [gang].
        queue: The number of each gang's queue, [gang].
        gpus: GPUs held, [gang].
        key_rank: The gangs in the order of their keys, [gang].
        number_of: Queues by number.
    """

    held: list[Held]
    gang: IntArray
    column: IntArray
    amounts: IntArray
    alone: IntArray
    priority: IntArray
    evictions: IntArray
    preemptible: BoolArray
    queue: IntArray
    gpus: Floats
    key_rank: IntArray
    number_of: dict[str, int]


class Holdings:
    """All gangs that hold their place; the only one who lets gangs take from the hall and the quota tree."""

    def __init__(self, hall: Hall, tree: QueueTree) -> None:
        self._hall = hall
        self._tree = tree
        self._held: dict[str, Held] = {}
        self._rates: dict[str, _Rate] = {}
        self._arrays: _Arrays | None = None
        self.version = 0
        """Grows with every change of who holds what."""
        self.freed_version = 0
        """Grows with every change that may let somebody start who could not before."""

    # ---- changes

    def take(
        self,
        gang: GangRequest,
        placements: tuple[Placement, ...],
        now_seconds: float,
        *,
        leaving: bool = False,
    ) -> Held:
        """Hold a gang at its places, and no longer where it was held before. Nothing is checked: it is so."""
        before = self._held.get(gang.key)
        charges, node_watts = self._charges(gang, placements)
        gpus = sum(amount for r, amount in charges.items() if r.startswith(GPU_FAMILY)) / WHOLE_GPU_MILLI
        held = Held(gang, placements, charges, node_watts, now_seconds, gpus, leaving)
        if before is not None:
            held.since_seconds = before.since_seconds
            held.progress = before.progress
            held.leaving |= before.leaving
        # New before old: a node that is gone is remembered only while something is accounted on it.
        self._apply(held, 1)
        if before is not None:
            self._apply(before, -1)
            self.freed_version += 1
        self._held[gang.key] = held
        return held

    def let_go(self, key: str) -> Held | None:
        """Free what a gang holds; None if it held nothing."""
        held = self._held.pop(key, None)
        if held is not None:
            self._apply(held, -1)
            self.freed_version += 1
        return held

    def uncharge(self, keys: Iterable[str]) -> list[Held]:
        """Take gangs off the quota tree alone, to see what that would allow; `recharge` puts them back."""
        taken = [self._held[key] for key in keys if key in self._held]
        for held in taken:
            self._tree.charge(held.gang.queue, held.charges, -1)
        return taken

    def recharge(self, taken: Iterable[Held]) -> None:
        """Put gangs back that `uncharge` took off."""
        for held in taken:
            self._tree.charge(held.gang.queue, held.charges, 1)

    # ---- views

    def get(self, key: str) -> Held | None:
        """A held gang by key."""
        return self._held.get(key)

    def __iter__(self) -> Iterator[Held]:
        """All held gangs."""
        return iter(self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def count(self, queue: str) -> int:
        """How many gangs of a queue hold their place."""
        rate = self._rates.get(queue)
        return 0 if rate is None else rate.gangs

    def rates(self) -> dict[str, tuple[float, int]]:
        """GPUs and watts held by each queue's gangs."""
        return {queue: (r.gpu_milli / WHOLE_GPU_MILLI, r.watts) for queue, r in self._rates.items()}

    def usage(self, queue: str) -> dict[str, int]:
        """GPU thousandths that a queue's gangs hold, by model."""
        used: dict[str, int] = {}
        for held in self._held.values():
            if held.gang.queue == queue:
                for resource, amount in held.charges.items():
                    if resource.startswith(GPU_FAMILY):
                        model = resource.partition(":")[2]
                        used[model] = used.get(model, 0) + amount
        return {model: amount for model, amount in sorted(used.items()) if amount}

    def running(self, now_seconds: float) -> RunningGangs:
        """All held gangs with their expected ends, for `backfill.reserve`.

        A GPU that several gangs share is freed by the last of them to end.

        Args:
            now_seconds: The time, in seconds since the epoch.
        """
        arrays = self._as_arrays()
        # A gang that is leaving is about to end, whatever its step rate says.
        ends = [now_seconds if h.leaving else _known(h.end_seconds) for h in arrays.held]
        return RunningGangs(
            names=[h.gang.name for h in arrays.held],
            end_seconds=np.array(ends, dtype=np.float64),
            gang=arrays.gang,
            columns=arrays.column,
            amounts=arrays.amounts,
        )

    def candidates(self, now_seconds: float, minimum_run_seconds: dict[str, float]) -> Candidates:
        """All held gangs as candidates for preemption.

        A GPU that several gangs share is freed by none of them: ending one would not make it whole.

        Args:
            now_seconds: The time, in seconds since the epoch.
            minimum_run_seconds: How long gangs of a queue may run undisturbed, by queue.
        """
        arrays = self._as_arrays()
        held = arrays.held
        started = np.array([h.started_seconds for h in held], dtype=np.float64)
        saved = np.array([_saved_seconds(h) for h in held], dtype=np.float64)
        restart = np.array([h.restart_seconds for h in held], dtype=np.float64)
        seconds = np.maximum(now_seconds - saved, 0.0) + restart
        cost = np.rint(seconds * arrays.gpus * (1 + arrays.evictions)).astype(np.int64)
        rank = np.empty(len(held), dtype=np.int64)
        rank[np.lexsort((arrays.key_rank, -started, arrays.evictions, cost))] = np.arange(len(held))
        minimum = np.array([minimum_run_seconds.get(name, 0.0) for name in arrays.number_of] or [0.0])
        return Candidates(
            keys=tuple(h.gang.key for h in held),
            cost_gpu_seconds=cost,
            priority=arrays.priority,
            evictions=arrays.evictions,
            started_seconds=started,
            minimum_run_seconds=minimum[arrays.queue],
            leaving=np.array([h.leaving for h in held], dtype=np.bool_),
            rank=rank,
            gang=arrays.gang,
            column=arrays.column,
            amounts=arrays.alone,
        )

    def preemptible(self) -> BoolArray:
        """Whether each held gang may be ended for others, in the order of `candidates`, [gang]."""
        return self._as_arrays().preemptible

    def of_queue(self, queue: str) -> BoolArray:
        """Whether each held gang is of a queue, in the order of `candidates`, [gang]."""
        arrays = self._as_arrays()
        mine: BoolArray = arrays.queue == arrays.number_of.get(queue, -1)
        return mine

    def in_order(self) -> list[Held]:
        """Held gangs in the order of `running` and `candidates`."""
        return self._as_arrays().held

    # ---- inside

    def _charges(
        self, gang: GangRequest, placements: tuple[Placement, ...]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """What a gang's queue is charged, and watts by node."""
        charges: dict[str, int] = {}
        node_watts: dict[str, int] = {}
        if gang.gpus == 0:
            return charges, node_watts
        milli = gang.gpus * gang.gpu_milli
        nodes = self._hall.nodes
        for placement in placements:
            resource = gpu_resource(placement.gpu_model)
            charges[resource] = charges.get(resource, 0) + milli
            column = nodes.column(placement.node)
            watts = 0 if column is None else -(-int(nodes.gpu_watts[column]) * milli // 1000)
            if watts:
                node_watts[placement.node] = node_watts.get(placement.node, 0) + watts
        if node_watts:
            charges[WATTS] = sum(node_watts.values())
        return charges, node_watts

    def _apply(self, held: Held, sign: int) -> None:
        gang, nodes = held.gang, self._hall.nodes
        shares = _shares(gang)
        amounts = (0 if shares else sign * gang.gpus, sign * gang.cpu_milli, sign * gang.memory_bytes)
        for placement in held.placements:
            if shares and sign < 0:
                nodes.use_card(placement.node, placement.card or 0, -gang.gpu_milli)
            nodes.use(placement.node, Holder.GANGS, amounts, sign)
            if shares and sign > 0:
                nodes.use_card(placement.node, placement.card or 0, gang.gpu_milli)
        if sign > 0:
            self._note_columns(held)
        self._tree.charge(gang.queue, held.charges, sign)
        for node, watts in held.node_watts.items():
            if sign > 0:
                self._hall.power.reserve(node, watts)
            else:
                self._hall.power.release(node, watts)
        rate = self._rates.setdefault(gang.queue, _Rate())
        # Whole numbers, which add up to nothing again once everyone has left.
        rate.gpu_milli += sign * round(held.gpus * WHOLE_GPU_MILLI)
        rate.watts += sign * held.watts
        rate.gangs += sign
        if rate.gangs == 0:
            del self._rates[gang.queue]
        self._arrays = None
        self.version += 1

    def _note_columns(self, held: Held) -> None:
        """Columns and amounts as arrays; a column stays a node's as long as something is accounted on it."""
        workers: dict[int, int] = {}
        for placement in held.placements:
            at = self._hall.nodes.column(placement.node)
            assert at is not None, "a node that something is accounted on has a column"
            workers[at] = workers.get(at, 0) + 1
        gang = held.gang
        columns = sorted(workers)
        each = np.array(
            [0 if _shares(gang) else gang.gpus, gang.cpu_milli, gang.memory_bytes], dtype=np.int64
        )
        held.columns = np.array(columns, dtype=np.int64)
        held.workers = np.array([workers[at] for at in columns], dtype=np.int64)
        held.amounts = each[:, None] * held.workers[None, :]

    def _as_arrays(self) -> _Arrays:
        if self._arrays is None:
            self._arrays = self._make_arrays()
        return self._arrays

    def _make_arrays(self) -> _Arrays:
        held = list(self._held.values())
        sizes = [len(h.columns) for h in held]
        gang = np.repeat(np.arange(len(held)), sizes)
        none = np.zeros(0, dtype=np.int64)
        column = np.concatenate([none, *(h.columns for h in held)])
        amounts = np.concatenate([np.zeros((3, 0), dtype=np.int64), *(h.amounts for h in held)], axis=1)
        alone = amounts.copy()
        starts = dict(zip((h.gang.key for h in held), np.cumsum([0, *sizes]).tolist(), strict=False))
        for (at, _), users in self._on_cards().items():
            last = _last(users)
            entry = starts[last.gang.key] + int(np.searchsorted(last.columns, at))
            amounts[GPU, entry] += 1
            if len(users) == 1:
                alone[GPU, entry] += 1
        number_of: dict[str, int] = {}
        queue = [number_of.setdefault(h.gang.queue, len(number_of)) for h in held]
        key_rank = np.empty(len(held), dtype=np.int64)
        key_rank[sorted(range(len(held)), key=[h.gang.key for h in held].__getitem__)] = np.arange(len(held))
        return _Arrays(
            held=held,
            gang=gang,
            column=column,
            amounts=amounts,
            alone=alone,
            priority=np.array([h.gang.priority for h in held], dtype=np.int64),
            evictions=np.array([h.gang.evictions for h in held], dtype=np.int64),
            preemptible=np.array([h.gang.preemptible for h in held], dtype=np.bool_),
            queue=np.array(queue, dtype=np.int64),
            gpus=np.array([h.gpus for h in held], dtype=np.float64),
            key_rank=key_rank,
            number_of=number_of,
        )

    def _on_cards(self) -> dict[tuple[int, int], list[Held]]:
        """For each shared GPU, by column and number, the gangs on it, each once."""
        found: dict[tuple[int, int], list[Held]] = {}
        for held in self._held.values():
            if _shares(held.gang):
                for placement in held.placements:
                    at = self._hall.nodes.column(placement.node)
                    assert at is not None, "a node that something is accounted on has a column"
                    users = found.setdefault((at, placement.card or 0), [])
                    if held not in users:
                        users.append(held)
        return found


def _last(users: list[Held]) -> Held:
    """Of the gangs on a shared GPU, the one that ends last; an end that nobody knows is the last."""
    return max(users, key=lambda held: (_known(held.end_seconds), held.gang.key))


def _known(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _shares(gang: GangRequest) -> bool:
    return gang.gpus == 1 and gang.gpu_milli < WHOLE_GPU_MILLI


def _saved_seconds(held: Held) -> float:
    """Since when work would be done again."""
    saved = None if held.progress is None else held.progress.saved_seconds
    return held.started_seconds if saved is None else max(saved, held.started_seconds)
