"""The planner: the one judge of what starts where. Told by deltas, asked by `cycle`.

It does no I/O and reads no clock. It is not thread-safe: one caller, one call at a time.
"""

from __future__ import annotations

from datahall.planning import messages
from datahall.planning.attainable import Attainable
from datahall.planning.books import Books
from datahall.planning.cycle import Cycle, Memory
from datahall.planning.holdings import gpu_resource
from datahall.planning.holds import Holds
from datahall.planning.judging import pod_class
from datahall.planning.move_plans import MovePlan
from datahall.planning.power_shape import PowerDomainSpec
from datahall.planning.power_tree import PowerReport
from datahall.planning.reports import queue_report
from datahall.planning.shape import Shape
from datahall.planning.state import Holder
from datahall.planning.telling import Teller
from datahall.planning.types import (
    ANY_MODEL,
    WHOLE_GPU_MILLI,
    Decision,
    GangProgress,
    GangRequest,
    NodeState,
    Placement,
    PodUsage,
    QueueCounts,
    QueueReport,
    QueueState,
    QueueUse,
    Wait,
)
from datahall.planning.waiting import WaitingLine

MOST_STARTS = 500
"""Gangs that start in one cycle, at most: their pods are made while the next ones are decided on."""

LOOK_AGAIN_SECONDS = 10.0
"""Time alone lets gangs start (a promise comes due, a minimum run time ends): how often that is looked at."""


class Planner:
    """The hall, its queues and its gangs, as the planner sees them.

    A gang is waiting or held. Every call is idempotent, in any order: pods and gangs may be told before their nodes,
    gangs before their queue.
    """

    def __init__(self) -> None:
        self._books = Books()
        self._pods: dict[str, PodUsage] = {}
        self._line = WaitingLine()
        self._teller = Teller(self._line)
        self._holds = Holds()
        self._memory = Memory(Attainable(self._books))
        self._changed = False
        self._now_seconds: float | None = None
        self._look_at_seconds = 0.0
        self._more = False

    # ---- nodes, power, pods, queues

    def upsert_node(self, node: NodeState) -> None:
        """Take in a node as it is now."""
        self._changed |= self._books.hall.upsert(node)

    def remove_node(self, name: str) -> None:
        """Forget a node. What is held or runs there stays accounted until it is withdrawn or removed itself."""
        self._changed |= self._books.hall.remove(name)

    def upsert_power_domain(self, domain: PowerDomainSpec) -> None:
        """Take in a power domain as it is now."""
        self._changed |= self._books.hall.power.upsert(domain)

    def remove_power_domain(self, name: str) -> None:
        """Forget a power domain. Nodes that name it have no headroom until it comes back."""
        self._changed |= self._books.hall.power.remove(name)

    def power_report(self, name: str) -> PowerReport | None:
        """Where a power domain stands; None for one that does not exist."""
        return self._books.hall.power.report(name)

    def upsert_pod(self, pod: PodUsage) -> None:
        """Account a pod that belongs to no gang."""
        before = self._pods.get(pod.uid)
        if before == pod:
            return
        # The new usage first: a node that is gone is remembered only while something is accounted on it.
        self._use(pod, 1)
        if before is not None:
            self._use(before, -1)
        self._pods[pod.uid] = pod
        self._changed = True

    def remove_pod(self, uid: str) -> None:
        """Forget a pod that has ended."""
        pod = self._pods.pop(uid, None)
        if pod is not None:
            self._use(pod, -1)
            self._changed = True

    def upsert_queue(self, queue: QueueState) -> None:
        """Take in a queue as it is now."""
        self._changed |= self._books.upsert_queue(queue)

    def remove_queue(self, name: str) -> None:
        """Forget a queue. What its gangs hold stays accounted under its name."""
        self._changed |= self._books.remove_queue(name)

    # ---- gangs

    def submit(self, gang: GangRequest) -> None:
        """Put a gang in line, or change it there. A held gang stays as it is held: requeue or withdraw it first.

        Raises:
            ValueError: A number of the request is out of its bounds.
        """
        _check(gang)
        if self._books.holdings.get(gang.key) is None:
            known = self._line.get(gang.key) is not None
            if self._line.add(gang):
                self._changed = True
                if not known:
                    self._books.cost.observe(pod_class(Shape.of(gang)), gang.workers)

    def withdraw(self, key: str) -> None:
        """Forget a gang, waiting or held, and free what it held."""
        self._teller.forget(key)
        self._holds.forget(self._books, key)
        self._memory.overtaken.forget(key)
        if self._line.remove(key) is not None or self._books.holdings.let_go(key) is not None:
            self._changed = True

    def hold(self, gang: GangRequest, placements: tuple[Placement, ...], *, leaving: bool = False) -> None:
        """Account a gang that has its place already, as after a restart; it replaces what was known of it.

        Nothing is checked: unknown nodes and over-commitment are accepted, because it is so.

        Args:
            gang: The gang.
            placements: Where its workers are.
            leaving: Whether it is ending. A gang that was decided to end stays so, whatever is said here.
        """
        held = self._books.holdings.get(gang.key)
        if held is not None and (held.gang, held.placements) == (gang, placements):
            if leaving and not held.leaving:
                self._books.holdings.leave(held)
                self._changed = True
            return
        if not leaving:  # a gang that moves or grows leaves with room held for its return
            self._holds.drop(self._books, gang.key)
        self._line.remove(gang.key)
        self._teller.forget(gang.key)
        self._books.holdings.take(gang, placements, self._now_seconds or 0.0, leaving=leaving)
        self._changed = True

    def requeue(self, key: str) -> None:
        """Put a held gang back in line at its old priority and age, and free what it held."""
        held = self._books.holdings.let_go(key)
        if held is not None:
            self._line.add(held.gang)
            self._changed = True

    def progress(self, key: str, progress: GangProgress) -> None:
        """Take in how a held gang does; unknown gangs are ignored."""
        self._books.holdings.progress(key, progress)

    def resume(self, queue: str, use: QueueUse, now_seconds: float) -> None:
        """Take in what a queue used before this planner lived: `use` of the last one. Said again, it is ignored.

        To be told before the first `cycle`, which counts what is held as used since then.
        """
        self._books.resume(queue, use, now_seconds)
        self._changed = True

    # ---- decisions

    def cycle(self, now_seconds: float) -> list[Decision]:
        """Decide on every waiting gang: those admitted are held at once, until withdrawn or requeued.

        Args:
            now_seconds: The time, in seconds since the epoch.

        Returns:
            Starts and evictions in the order in which they were decided; then why others wait, for those that were not
            told yet or wait for another reason than they were told (`IN_LINE` counts as one). `waiting` has the present
            reason and numbers of all.
        """
        if self._now_seconds is None:
            self._books.holdings.date(now_seconds)
        self._now_seconds = now_seconds
        aged = self._books.account(now_seconds)
        due = now_seconds >= self._look_at_seconds
        self._more = False
        if not (self._changed or aged or due):
            return []
        self._changed = False
        self._look_at_seconds = now_seconds + LOOK_AGAIN_SECONDS
        outcome = Cycle(
            self._books,
            self._line,
            self._holds,
            self._memory,
            now_seconds=now_seconds,
            most_starts=MOST_STARTS,
        ).run()
        for decision in outcome.started:
            self._teller.forget(decision.key)
        self._more = outcome.more
        self._changed |= outcome.more
        return [*outcome.started, *self._teller.news(outcome, now_seconds)]

    @property
    def more(self) -> bool:
        """Whether the last cycle stopped early, because enough was decided for once: the next one is due at once."""
        return self._more

    # ---- questions

    def is_waiting(self, key: str) -> bool:
        """Whether a gang is in line."""
        return self._line.get(key) is not None

    def waiting(self, key: str) -> Wait | None:
        """Why a gang waits, with the numbers of now; None if it does not wait or was not examined yet."""
        return self._teller.why(key)

    def move_plan(self, key: str) -> MovePlan | None:
        """Who would move so that a waiting gang starts, and when; None if nobody would, or that is not known.

        It is found out for the gangs at the head of each line, one after the other.
        """
        plan = self._holds.move_plans.get(key)
        if plan is None or key in self._holds.of or self._line.get(key) is None:
            return None
        return plan if plan.is_told(self._now_seconds or 0.0) else None

    def held(self, key: str) -> tuple[Placement, ...] | None:
        """Where a held gang is placed; None when it is not held."""
        held = self._books.holdings.get(key)
        return None if held is None else held.placements

    def is_leaving(self, key: str) -> bool:
        """Whether a held gang is ending, for others or by itself."""
        held = self._books.holdings.get(key)
        return held is not None and held.leaving

    def explain(self, key: str) -> str:
        """Why a gang is where it is, in one sentence, as of the last cycle."""
        held = self._books.holdings.get(key)
        if held is not None:
            gang = held.gang
            where = ", ".join(dict.fromkeys(place.node for place in held.placements)) or "no node"
            ends = " and is ending" if held.leaving else ""
            shape = Shape.of(gang)._replace(workers=len(held.placements), least=len(held.placements))
            return f"{gang.name} holds {messages.demand(shape)} of queue {gang.queue} on {where}{ends}"
        waiting = self._line.get(key)
        if waiting is None:
            return "not known to the planner: neither waiting nor held"
        last = self.waiting(key)
        if last is None:
            return f"{waiting.name} is in line in queue {waiting.queue} and not examined yet"
        since = max(0, int((self._now_seconds or 0.0) - waiting.created_seconds))
        return (
            f"{waiting.name} waits ({last.reason}), {last.position} in line of queue {waiting.queue}, "
            f"{since} s after it was created: {last.message}"
        )

    def queue_usage(self, name: str) -> dict[str, int]:
        """GPUs that a queue's held gangs use, per model, rounded up; models without use are left out."""
        used = self._books.holdings.usage(name)
        return {model: -(-milli // WHOLE_GPU_MILLI) for model, milli in used.items()}

    def queue_counts(self, name: str) -> QueueCounts:
        """How many gangs of a queue wait and how many are held."""
        return QueueCounts(waiting=self._line.count(name), held=self._books.holdings.count(name))

    def queue_report(self, name: str, now_seconds: float) -> QueueReport | None:
        """Where a queue stands; None for one that does not exist."""
        held_for = self._holds.charged(self._books, name)
        return queue_report(self._books, self._line, name, now_seconds, held_for=held_for)

    def quota_room(self, queue: str, model: str = ANY_MODEL) -> int:
        """GPUs of quota that a queue has left for a model, with what it may borrow; never negative.

        Args:
            queue: The queue's name; one that does not exist has no room.
            model: A GPU model, or "Any" for the largest room under any one entry of the quota.
        """
        tree = self._books.tree
        entries = [gpu_resource(model)]
        if model == ANY_MODEL:
            entries = [entry for entry in tree.accounts(queue) if ":" in entry]
        rooms = [tree.room(queue, entry) or 0 for entry in entries]
        return max(0, *rooms, 0) // WHOLE_GPU_MILLI

    def use(self, queue: str, now_seconds: float) -> QueueUse:
        """What a queue has used over time, to be kept for the next planner."""
        return self._books.use(queue, now_seconds)

    # ---- inside

    def _use(self, pod: PodUsage, sign: int) -> None:
        if pod.node:
            amounts = (sign * pod.gpus, sign * pod.cpu_milli, sign * pod.memory_bytes)
            self._books.hall.nodes.use(pod.node, Holder.PODS, amounts, sign)


def _check(gang: GangRequest) -> None:
    least = gang.workers if gang.min_workers is None else gang.min_workers
    if gang.workers < 1 or min(gang.gpus, gang.cpu_milli, gang.memory_bytes) < 0:
        raise ValueError(f"{gang.name}: workers must be at least 1 and resources not negative")
    if not 1 <= least <= gang.workers:
        raise ValueError(f"{gang.name}: min_workers is {least}; it must be from 1 to workers, {gang.workers}")
    shares = gang.gpu_milli != WHOLE_GPU_MILLI
    if not 0 < gang.gpu_milli <= WHOLE_GPU_MILLI or (shares and gang.gpus != 1):
        raise ValueError(
            f"{gang.name}: gpu_milli is {gang.gpu_milli} with {gang.gpus} GPUs; it must be 1000, or less for 1 GPU"
        )
