"""The seam to the planner: what the store says becomes deltas, the planner's answers become news for each job.

A job is in one of three standings, read off its status and pods alone: it waits, it holds a place, or neither. The
planner's own memory is only ever a consequence of that, so a restarted operator arrives at the same standings. An
eviction that was decided is no standing: until the status says it, it is only in memory, and a new leader plans anew.
Workers of a held gang are accounted by the gang; every other pod by itself, foreign ones included.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from datahall.api.queue import Queue
from datahall.api.reasons import Reason
from datahall.api.trainingjob import Placement as PlacementStatus
from datahall.api.trainingjob import TrainingJob
from datahall.control import gangs, labels, metrics, power_domains, queues
from datahall.control.training.plan import Blocker, Eviction, Waiting, terminal, wants_admission
from datahall.control.training.waiting import IN_LINE
from datahall.control.views import NodeView, PodView, PowerDomainView, QueueView
from datahall.planning import (
    Admit,
    Decision,
    Evict,
    EvictCause,
    GangRequest,
    Placement,
    Planner,
    PowerReport,
    QueueCounts,
    QueueReport,
    QueueUse,
    Wait,
    WaitReason,
)

log = structlog.get_logger(__name__)

REASONS = {
    WaitReason.QUEUE_NOT_FOUND: Reason.QUEUE_NOT_FOUND,
    WaitReason.NAMESPACE_NOT_ALLOWED: Reason.QUEUE_FORBIDDEN,
    WaitReason.QUOTA_EXCEEDED: Reason.QUOTA_EXCEEDED,
    WaitReason.BORROWED_AWAY: Reason.BORROWED_AWAY,
    WaitReason.QUOTA_TOO_SMALL: Reason.QUOTA_TOO_SMALL,
    WaitReason.POWER_BUDGET: Reason.POWER_BUDGET,
    WaitReason.ENERGY_BUDGET: Reason.ENERGY_BUDGET,
    WaitReason.INSUFFICIENT_GPUS: Reason.NO_ROOM,
    WaitReason.INSUFFICIENT_RESOURCES: Reason.NO_ROOM,
    WaitReason.NO_ONE_DOMAIN: Reason.TOPOLOGY_NO_ROOM,
    WaitReason.NEVER_FITS: Reason.NO_SUCH_NODES,
    WaitReason.BEHIND_OTHERS: Reason.WAITING_IN_LINE,
    WaitReason.RESERVED: Reason.RESERVED_FOR_OTHER,
    WaitReason.MAKING_ROOM: Reason.MAKING_ROOM,
}
"""The planner's reasons in the words of the catalogue."""


_CAUSES = {
    EvictCause.MADE_WAY: Reason.PREEMPTED,
    EvictCause.MOVED: Reason.MOVED,
    EvictCause.RESIZED: Reason.RESIZED,
}


class News(NamedTuple):
    """An object about which the planner says something new.

    Attributes:
        namespace: of the object.
        name: of the object.
        urgent: False if only numbers of a message moved.
        waits: whether the news is that it waits: nobody's GPUs stand still until it is told.
        kind: of the object.
    """

    namespace: str
    name: str
    urgent: bool
    waits: bool = False
    kind: str = "TrainingJob"


class _Job(NamedTuple):
    """What is remembered of a job that the planner knows."""

    namespace: str
    name: str
    gang: GangRequest


class Scheduling:
    """Keeps the planner told and the jobs answered."""

    def __init__(self, *, wake: Callable[[], None], gpu_model_of: Callable[[str], str]) -> None:
        """Start with an empty hall.

        Args:
            wake: asks for a `cycle` soon; called when something changed that may let somebody start.
            gpu_model_of: the GPU model of a node by name, "" where it is not known.
        """
        self._planner = Planner()
        self._selectors = power_domains.Selectors()
        self._wake = wake
        self._gpu_model_of = gpu_model_of
        self._admitted: dict[str, Admit] = {}
        self._waiting: dict[str, Wait] = {}
        self._evictions: dict[str, Eviction] = {}
        self._jobs: dict[str, _Job] = {}
        self._loose: dict[str, str] = {}
        self.others: Callable[[Decision], list[News]] = lambda _: []
        """Takes decisions on gangs that are no jobs'; says who is to look at what has changed."""
        self.gang_of_other: Callable[[str], GangRequest | None] = lambda _: None
        """The gang of a key that is no job's, where one is known: a job may have to make room for it."""

    @property
    def planner(self) -> Planner:
        """The planner, for those who submit gangs that are no jobs'. Changes to it want a `wake`."""
        return self._planner

    @property
    def more(self) -> bool:
        """Whether the last cycle stopped early: the next one is due at once."""
        return self._planner.more

    def wake(self) -> None:
        """Ask for a cycle soon."""
        self._wake()

    # ---- deltas

    def node(self, old: NodeView | None, new: NodeView | None) -> None:
        """A node came, changed or went."""
        if new is not None:
            self._upsert_node(new)
        elif old is not None:
            self._planner.remove_node(old.name)
        self._wake()

    def _upsert_node(self, node: NodeView) -> None:
        self._planner.upsert_node(gangs.node_state(node, self._selectors.of(node.labels)))

    def power_domain(
        self, old: PowerDomainView | None, new: PowerDomainView | None, nodes: Iterable[NodeView]
    ) -> None:
        """A PowerDomain came, changed or went, and with it what feeds the nodes that it selects or selected."""
        before, after = (None if view is None else view.domain for view in (old, new))
        if after is not None:
            self._selectors.put(after)
            self._planner.upsert_power_domain(power_domains.spec_of(after))
        elif before is not None:
            self._selectors.remove(before.metadata.name)
            self._planner.remove_power_domain(before.metadata.name)
        if before is None or after is None or before.spec.node_selector != after.spec.node_selector:
            for node in nodes:
                if any(domain.spec.selects(node.labels) for domain in (before, after) if domain is not None):
                    self._upsert_node(node)
        self._wake()

    def pod(self, old: PodView | None, new: PodView | None) -> None:
        """A pod that no job accounts for came, changed or went."""
        if new is not None and not new.finished and new.node:
            if queue := new.labels.get(labels.QUEUE):
                place = Placement(0, new.node, self._model(new))
                self._planner.hold(gangs.loose_gang(new, queue), (place,), leaving=new.deleted_at is not None)
                self._loose[new.uid] = queue
            else:
                self._planner.upsert_pod(gangs.pod_usage(new))
        elif old is not None:
            self._planner.remove_pod(old.uid)
            self._planner.withdraw(old.uid)
            self._loose.pop(old.uid, None)
            self._wake()

    def queue(self, old: QueueView | None, new: QueueView | None) -> None:
        """A queue came, changed or went."""
        if new is not None and new.queue is not None:
            self._planner.upsert_queue(gangs.queue_state(new.queue))
        elif old is not None:
            self._planner.remove_queue(old.name)
        self._wake()

    def resume(self, queue: Queue) -> None:
        """Take in what a queue used under the last leader, as its status has it."""
        if (use := queues.use_of(queue)) is not None:
            self._planner.resume(queue.metadata.name, use, time.time())

    def settle(
        self, job: TrainingJob, pods: tuple[PodView, ...], *, blocked: bool, deleting: bool = False
    ) -> None:
        """Bring the planner's memory of a job in line with the job.

        Args:
            job: the job with its status.
            pods: its pods.
            blocked: something that the planner does not know keeps it from starting (a missing claim, a refusal).
            deleting: whether its deletion has begun: no pod of it is made any more, and those that are there are the
                garbage collector's to end.
        """
        uid = job.metadata.uid
        active = [pod for pod in pods if not pod.finished]
        if job.status.placement and not terminal(job) and not deleting:
            self._hold(job, gangs.places_of(job.status.placement))
        elif active:
            # It gave its place back, but its pods are still leaving: their room is not free before they are gone. Those
            # of a job that is being deleted leave once the garbage collector has told them, and only then.
            places = tuple(Placement(pod.rank, pod.node, self._model(pod)) for pod in active)
            leaving = not deleting or all(pod.deleted_at is not None for pod in active)
            self._hold(job, places, leaving=leaving, preemptible=not deleting)
            self._evictions.pop(uid, None)
        elif wants_admission(job, pods) and not blocked:
            if uid not in self._admitted:
                now = datetime.datetime.now(datetime.UTC)
                gang = gangs.gang_of(job, run_seconds=gangs.run_seconds(job, now))
                self._evictions.pop(uid, None)
                self._planner.requeue(uid)
                self._planner.submit(gang)
                self._remember(job, gang)
                self._wake()
        else:
            self.forget(uid)

    def forget(self, uid: str) -> None:
        """The job ended, was deleted, or may not start: it neither waits nor holds anything."""
        self._planner.withdraw(uid)
        self._admitted.pop(uid, None)
        self._waiting.pop(uid, None)
        self._evictions.pop(uid, None)
        if self._jobs.pop(uid, None) is not None:
            self._wake()

    def _hold(
        self,
        job: TrainingJob,
        places: tuple[Placement, ...],
        *,
        leaving: bool = False,
        preemptible: bool = True,
    ) -> None:
        uid = job.metadata.uid
        before = self._jobs.get(uid)
        # How long it runs is told by its progress from here on: the request itself stays as it was admitted.
        run_seconds = None if before is None else before.gang.run_seconds
        gang = gangs.gang_of(job, run_seconds=run_seconds, preemptible=preemptible)
        self._planner.hold(gang, places, leaving=leaving)
        if (progress := gangs.progress_of(job)) is not None:
            self._planner.progress(uid, progress)
        self._admitted.pop(uid, None)
        self._waiting.pop(uid, None)
        self._remember(job, gang)

    def _remember(self, job: TrainingJob, gang: GangRequest) -> None:
        self._jobs[gang.key] = _Job(job.metadata.namespace, job.metadata.name, gang)

    # ---- answers

    def cycle(self) -> list[News]:
        """Let the planner decide. Returns the objects that have news."""
        started = time.perf_counter()
        decisions = self._planner.cycle(time.time())
        metrics.PLANNER_SECONDS.observe(time.perf_counter() - started)
        news: list[News] = []
        for decision in decisions:
            job = self._jobs.get(decision.key)
            if job is None:
                news += self.others(decision)
            elif (urgent := self._take(decision)) is not None:
                news.append(News(job.namespace, job.name, urgent, waits=isinstance(decision, Wait)))
        return news

    def _take(self, decision: Decision) -> bool | None:
        """Keep a decision on a job until its status has it; whether that is urgent, None if it is nothing new."""
        key = decision.key
        if isinstance(decision, Admit):
            self._admitted[key] = decision
            self._waiting.pop(key, None)
            metrics.PLANNER_DECISIONS.labels("admit").inc()
            return True
        if isinstance(decision, Evict):
            self._evictions[key] = found = self._eviction(decision)
            metrics.PLANNER_DECISIONS.labels("evict").inc()
            metrics.EVICTIONS.labels(str(found.reason)).inc()
            log.info("eviction", job=self._jobs[key].gang.name, message=decision.message)
            return True
        metrics.PLANNER_DECISIONS.labels("wait").inc()
        metrics.PLANNER_WAITS.labels(str(REASONS[decision.reason])).inc()
        before = self._waiting.get(key)
        self._waiting[key] = decision
        if before == decision:
            return None
        if before is None:
            return True
        reasons = {REASONS[before.reason], REASONS[decision.reason]}
        return len(reasons) > 1 and not reasons <= IN_LINE

    def _eviction(self, decision: Evict) -> Eviction:
        reason = _CAUSES[decision.cause]
        preemptor, victim = self._gang_named(decision.preemptor), self._gang_named(decision.key)
        if preemptor is None or victim is None:
            return Eviction(decision.preemptor, None, decision.message, reason)
        by_priority = preemptor.queue == victim.queue
        priority = preemptor.priority if by_priority else None
        return Eviction(preemptor.name, priority, decision.message, reason)

    def _gang_named(self, key: str) -> GangRequest | None:
        job = self._jobs.get(key)
        return self.gang_of_other(key) if job is None else job.gang

    def admitted(self, uid: str) -> tuple[tuple[PlacementStatus, ...], str] | None:
        """The place found for a job that its status does not have yet, and how that is spread."""
        admit = self._admitted.get(uid)
        if admit is None:
            return None
        places = (
            PlacementStatus(rank=p.rank, node=p.node, gpu_model=p.gpu_model or None) for p in admit.placements
        )
        return tuple(places), admit.spread

    def waiting(self, uid: str) -> Waiting | None:
        """Why the planner has a job wait, with the numbers of now; None until it has said so once."""
        told = self._waiting.get(uid)
        if told is None:
            return None
        now = self._planner.waiting(uid) or told
        return Waiting(
            REASONS[now.reason],
            now.message,
            position=now.position,
            starts_seconds=now.starts_seconds,
            blockers=tuple(Blocker(REASONS[b.reason], b.message) for b in now.blockers),
            moves=self._planner.move_plan(uid),
        )

    def eviction(self, uid: str) -> Eviction | None:
        """That a job is to end for another, until its status says so."""
        return self._evictions.get(uid)

    def usage(self, queue: str) -> dict[str, int]:
        """GPUs held by a queue's jobs and replicas, per GPU model."""
        return self._planner.queue_usage(queue)

    def counts(self, queue: str) -> QueueCounts:
        """Jobs and replicas of a queue that wait and that hold a place; pods of nobody are not among them."""
        counts = self._planner.queue_counts(queue)
        nobodys = sum(of == queue for of in self._loose.values())
        return QueueCounts(waiting=counts.waiting, held=counts.held - nobodys)

    def quota_room(self, queue: str, model: str) -> int:
        """GPUs of quota left for a model."""
        return self._planner.quota_room(queue, model)

    def use(self, queue: str) -> QueueUse:
        """What a queue has used over time."""
        return self._planner.use(queue, time.time())

    def power_report(self, name: str) -> PowerReport | None:
        """Where a power domain stands; None for one that does not exist."""
        return self._planner.power_report(name)

    def report(self, queue: str) -> QueueReport | None:
        """Where a queue stands; None for one that does not exist."""
        return self._planner.queue_report(queue, time.time())

    def _model(self, pod: PodView) -> str:
        return self._gpu_model_of(pod.node) if pod.gpus else ""
