"""The planner: the one judge of what starts where. Told by deltas, asked by `cycle`.

It does no I/O and reads no clock. It is not thread-safe: one caller, one call at a time.
"""

from __future__ import annotations

from datahall.planning import messages
from datahall.planning.cycle import Cycle
from datahall.planning.ordering import WaitingLine
from datahall.planning.packing.best_fit import Fit, eligible, workers_that_fit
from datahall.planning.quota import QuotaBook
from datahall.planning.shape import Shape
from datahall.planning.state import Holder, NodeArrays
from datahall.planning.transaction import Transaction
from datahall.planning.types import (
    ANY_MODEL,
    Admit,
    Decision,
    GangRequest,
    NodeState,
    Placement,
    PodUsage,
    QueueCounts,
    QueueState,
    Wait,
)


class Planner:
    """The hall, its queues and its gangs, as the planner sees them.

    A gang is waiting or held. Every call is idempotent, in any order: pods and gangs may be told before their nodes,
    gangs before their queue.
    """

    def __init__(self) -> None:
        self._nodes = NodeArrays()
        self._quota = QuotaBook()
        self._pods: dict[str, PodUsage] = {}
        self._pod_models: dict[str, str] = {}
        self._pods_on: dict[str, set[str]] = {}
        self._waiting = WaitingLine()
        self._held: dict[str, tuple[GangRequest, tuple[Placement, ...]]] = {}
        self._held_per_queue: dict[str, int] = {}
        self._last: dict[str, Wait] = {}
        self._changed = False
        self._now_seconds = 0.0

    # ---- nodes, pods, queues

    def upsert_node(self, node: NodeState) -> None:
        """Take in a node as it is now."""
        if self._nodes.upsert(node):
            self._changed = True
            for uid in sorted(self._pods_on.get(node.name, ())):
                self._recharge(self._pods[uid])

    def remove_node(self, name: str) -> None:
        """Forget a node. What is held or runs there stays accounted until it is withdrawn or removed itself."""
        self._changed |= self._nodes.remove(name)

    def upsert_pod(self, pod: PodUsage) -> None:
        """Account a pod that belongs to no held gang."""
        before = self._pods.get(pod.uid)
        if before == pod:
            return
        if pod.node:
            # Before the old usage goes: a node that is gone is remembered only while something is accounted on it.
            self._nodes.use(pod.node, Holder.PODS, (pod.gpus, pod.cpu_milli, pod.memory_bytes), 1)
        if before is not None:
            self._take_pod_away(before)
        self._pods[pod.uid] = pod
        if pod.node:
            self._pods_on.setdefault(pod.node, set()).add(pod.uid)
        self._recharge(pod)
        self._changed = True

    def remove_pod(self, uid: str) -> None:
        """Forget a pod that has ended."""
        pod = self._pods.get(uid)
        if pod is not None:
            self._take_pod_away(pod)
            self._changed = True

    def upsert_queue(self, queue: QueueState) -> None:
        """Take in a queue as it is now."""
        self._changed |= self._quota.upsert(queue)

    def remove_queue(self, name: str) -> None:
        """Forget a queue. What its gangs and pods hold stays accounted under its name."""
        self._changed |= self._quota.remove(name)

    # ---- gangs

    def submit(self, gang: GangRequest) -> None:
        """Put a gang in line, or change it there. A held gang stays as it is held: requeue or withdraw it first."""
        if gang.workers < 1 or min(gang.gpus, gang.cpu_milli, gang.memory_bytes) < 0:
            raise ValueError(f"{gang.name}: workers must be at least 1 and resources not negative")
        if gang.key not in self._held and self._waiting.add(gang):
            self._changed = True

    def withdraw(self, key: str) -> None:
        """Forget a gang, waiting or held, and free what it held."""
        self._last.pop(key, None)
        if self._waiting.remove(key) is not None or self._let_go(key) is not None:
            self._changed = True

    def hold(self, gang: GangRequest, placements: tuple[Placement, ...]) -> None:
        """Account a gang that has its place already, as after a restart; it replaces what was known of it.

        Nothing is checked: unknown nodes and over-commitment are accepted, because it is so.
        """
        if self._held.get(gang.key) == (gang, placements):
            return
        self._waiting.remove(gang.key)
        self._last.pop(gang.key, None)
        self._take_hold(gang, placements)
        self._changed = True

    def requeue(self, key: str) -> None:
        """Put a held gang back in line at its old priority and age, and free what it held."""
        gang = self._let_go(key)
        if gang is not None:
            self._waiting.add(gang)
            self._changed = True

    # ---- decisions

    def cycle(self, now_seconds: float) -> list[Decision]:
        """Decide on every waiting gang: those admitted are held at once, until withdrawn or requeued.

        Args:
            now_seconds: The time, in seconds since the epoch.

        Returns:
            One decision per waiting gang, first in line first; nothing if nothing changed since the last cycle. The
            same `Wait` may come again: only the caller knows what it has told already.
        """
        self._now_seconds = now_seconds
        if not self._changed:
            return []
        self._changed = False
        cycle = Cycle(self._nodes, self._quota)
        decisions: list[Decision] = []
        admitted: set[str] = set()
        positions: dict[str, int] = {}
        for gang, shape in self._waiting:
            verdict = cycle.examine(gang, shape)
            if isinstance(verdict, Fit):
                placements = _ranks(verdict)
                self._take_hold(gang, placements)
                self._last.pop(gang.key, None)
                admitted.add(gang.key)
                decisions.append(Admit(gang.key, placements))
            else:
                position = positions[gang.queue] = positions.get(gang.queue, 0) + 1
                wait = Wait(gang.key, verdict.reason, verdict.message, position)
                self._last[gang.key] = wait
                decisions.append(wait)
        self._waiting.remove_all(admitted)
        return decisions

    # ---- questions

    def is_waiting(self, key: str) -> bool:
        """Whether a gang is in line."""
        return self._waiting.get(key) is not None

    def held(self, key: str) -> tuple[Placement, ...] | None:
        """Where a held gang is placed; None when it is not held."""
        found = self._held.get(key)
        return None if found is None else found[1]

    def explain(self, key: str) -> str:
        """Why a gang is where it is, in one sentence, as of the last cycle."""
        found = self._held.get(key)
        if found is not None:
            gang, placements = found
            where = ", ".join(dict.fromkeys(placement.node for placement in placements)) or "no node"
            return f"{gang.name} holds {messages.demand(Shape.of(gang))} of queue {gang.queue} on {where}"
        waiting = self._waiting.get(key)
        if waiting is None:
            return "not known to the planner: neither waiting nor held"
        last = self._last.get(key)
        if last is None:
            return f"{waiting.name} is in line in queue {waiting.queue} and not examined yet"
        since = max(0, int(self._now_seconds - waiting.created_seconds))
        return (
            f"{waiting.name} waits ({last.reason}), {last.position} in line of queue {waiting.queue}, "
            f"{since} s after it was created: {last.message}"
        )

    def queue_usage(self, name: str) -> dict[str, int]:
        """GPUs that a queue's held gangs and pods use, per model; models without use are left out."""
        return self._quota.usage(name)

    def queue_counts(self, name: str) -> QueueCounts:
        """How many gangs of a queue wait and how many are held."""
        return QueueCounts(waiting=self._waiting.count(name), held=self._held_per_queue.get(name, 0))

    def quota_room(self, queue: str, model: str = ANY_MODEL) -> int:
        """GPUs of quota that a queue has left for a model, never negative.

        Args:
            queue: The queue's name; one that does not exist has no room.
            model: A GPU model, or "Any" for the largest room under any one entry of the quota.
        """
        state = self._quota.queue(queue)
        if state is None:
            return 0
        if model == ANY_MODEL:
            return max(0, *(self._quota.room(queue, entry) for entry in state.nominal), 0)
        entry = self._quota.entry(queue, model)
        return 0 if entry is None else max(0, self._quota.room(queue, entry))

    def room_for(
        self,
        queue: str,
        *,
        gpus: int,
        cpu_milli: int,
        memory_bytes: int,
        gpu_models: tuple[str, ...] = (),
        most: int = 1000,
    ) -> int:
        """How many single pods of a size could start now, by quota and by hall, at most `most`.

        Args:
            queue: The queue to charge; it does not matter without GPUs.
            gpus: Whole GPUs per pod.
            cpu_milli: CPU thousandths per pod.
            memory_bytes: Bytes per pod.
            gpu_models: Models allowed; empty for any.
            most: Where to stop counting.
        """
        shape = Shape(most, gpus, cpu_milli, memory_bytes, gpu_models if gpus else (), frozenset())
        free = self._nodes.free()
        if gpus == 0:
            return min(most, int(workers_that_fit(free, shape, eligible(self._nodes, shape, "")).sum()))
        fitting: dict[str, int] = {}
        for model in self._nodes.models():
            entry = self._quota.entry(queue, model)
            if entry is not None and (not gpu_models or model in gpu_models):
                here = int(workers_that_fit(free, shape, eligible(self._nodes, shape, model)).sum())
                fitting[entry] = fitting.get(entry, 0) + here
        by_quota = (min(n, max(0, self._quota.room(queue, e)) // gpus) for e, n in fitting.items())
        return min(most, sum(by_quota))

    # ---- what is held

    def _take_hold(self, gang: GangRequest, placements: tuple[Placement, ...]) -> None:
        """Hold a gang at its places, and no longer where it was held before."""
        before = self._held.get(gang.key)
        with Transaction(self._nodes, self._quota) as transaction:
            transaction.assume(gang, placements)
            if before is not None:
                transaction.release(*before)
            transaction.commit()
        if before is not None:
            self._held_per_queue[before[0].queue] -= 1
        self._held[gang.key] = (gang, placements)
        self._held_per_queue[gang.queue] = self._held_per_queue.get(gang.queue, 0) + 1

    def _let_go(self, key: str) -> GangRequest | None:
        found = self._held.pop(key, None)
        if found is None:
            return None
        gang, placements = found
        with Transaction(self._nodes, self._quota) as transaction:
            transaction.release(gang, placements)
            transaction.commit()
        self._held_per_queue[gang.queue] -= 1
        return gang

    def _take_pod_away(self, pod: PodUsage) -> None:
        del self._pods[pod.uid]
        if pod.queue is not None and pod.uid in self._pod_models:
            self._quota.charge(pod.queue, self._pod_models.pop(pod.uid), Holder.PODS, -pod.gpus, -1)
        if pod.node:
            self._pods_on[pod.node].discard(pod.uid)
            if not self._pods_on[pod.node]:
                del self._pods_on[pod.node]
            self._nodes.use(pod.node, Holder.PODS, (-pod.gpus, -pod.cpu_milli, -pod.memory_bytes), -1)

    def _recharge(self, pod: PodUsage) -> None:
        """Charge a pod of ours to the model of its node, as far as that is known."""
        if pod.queue is None or pod.gpus == 0:
            return
        model = self._nodes.model_of(pod.node)
        before = self._pod_models.get(pod.uid)
        if before != model:
            if before is not None:
                self._quota.charge(pod.queue, before, Holder.PODS, -pod.gpus, -1)
            self._quota.charge(pod.queue, model, Holder.PODS, pod.gpus, 1)
            self._pod_models[pod.uid] = model


def _ranks(fit: Fit) -> tuple[Placement, ...]:
    """Number the workers along the chosen nodes."""
    names = [name for name, workers in fit.nodes for _ in range(workers)]
    return tuple(Placement(rank, name, fit.model) for rank, name in enumerate(names))
