"""The seam to the planner: what the store says becomes deltas, the planner's answers become news for each job.

A job is in one of three standings, read off its status and pods alone: it waits, it holds a place, or neither. The
planner's own memory is only ever a consequence of that, so a restarted operator arrives at the same standings.
Workers of a held gang are accounted by the gang; every other pod by itself, foreign ones included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from datahall.api.reasons import Cause, Reason
from datahall.api.trainingjob import Placement as PlacementStatus
from datahall.api.trainingjob import TrainingJob
from datahall.control import labels, metrics, times
from datahall.control.training.plan import Waiting, terminal, wants_admission
from datahall.control.views import NodeView, PodView, QueueView
from datahall.planning import (
    Admit,
    GangRequest,
    NodeState,
    Placement,
    Planner,
    PodUsage,
    QueueCounts,
    QueueState,
    WaitReason,
)

log = structlog.get_logger(__name__)

_REASONS = {
    WaitReason.QUEUE_NOT_FOUND: Reason.QUEUE_NOT_FOUND,
    WaitReason.NAMESPACE_NOT_ALLOWED: Reason.QUEUE_FORBIDDEN,
    WaitReason.QUOTA_EXCEEDED: Reason.QUOTA_EXCEEDED,
    WaitReason.INSUFFICIENT_GPUS: Reason.NO_ROOM,
    WaitReason.INSUFFICIENT_RESOURCES: Reason.NO_ROOM,
    WaitReason.NEVER_FITS: Reason.NO_SUCH_NODES,
    WaitReason.QUOTA_TOO_SMALL: Reason.QUOTA_TOO_SMALL,
    WaitReason.BEHIND_OTHERS: Reason.WAITING_IN_LINE,
}


class News(NamedTuple):
    """A job about which the planner says something new; not urgent if only numbers of a message moved."""

    namespace: str
    name: str
    urgent: bool


class Scheduling:
    """Keeps the planner told and the jobs answered."""

    def __init__(self, *, wake: Callable[[], None], gpu_model_of: Callable[[str], str]) -> None:
        """Start with an empty hall.

        Args:
            wake: asks for a `cycle` soon; called when something changed that may let somebody start.
            gpu_model_of: the GPU model of a node by name, "" where it is not known.
        """
        self._planner = Planner()
        self._wake = wake
        self._gpu_model_of = gpu_model_of
        self._admitted: dict[str, tuple[PlacementStatus, ...]] = {}
        self._waiting: dict[str, Waiting] = {}
        self._jobs: dict[str, tuple[str, str]] = {}

    # ---- deltas

    def node(self, old: NodeView | None, new: NodeView | None) -> None:
        """A node came, changed or went."""
        if new is not None:
            self._planner.upsert_node(
                NodeState(
                    name=new.name,
                    gpu_model=new.gpu_model,
                    gpus=new.gpus,
                    cpu_milli=new.cpu_milli,
                    memory_bytes=new.memory_bytes,
                    rack=new.rack,
                    block=new.block,
                    schedulable=new.schedulable,
                )
            )
        elif old is not None:
            self._planner.remove_node(old.name)
        self._wake()

    def pod(self, old: PodView | None, new: PodView | None) -> None:
        """A pod that no job accounts for came, changed or went."""
        if new is not None and not new.finished and (new.node or labels.QUEUE in new.labels):
            self._planner.upsert_pod(
                PodUsage(
                    uid=new.uid,
                    node=new.node,
                    gpus=new.gpus,
                    cpu_milli=new.cpu_milli,
                    memory_bytes=new.memory_bytes,
                    queue=new.labels.get(labels.QUEUE),
                )
            )
        elif old is not None:
            self._planner.remove_pod(old.uid)
            self._wake()

    def queue(self, old: QueueView | None, new: QueueView | None) -> None:
        """A queue came, changed or went."""
        if new is not None and new.queue is not None:
            spec = new.queue.spec
            self._planner.upsert_queue(
                QueueState(
                    name=new.name,
                    nominal={quota.model: quota.nominal for quota in spec.gpus},
                    namespaces=frozenset(spec.namespaces),
                )
            )
        elif old is not None:
            self._planner.remove_queue(old.name)
        self._wake()

    def settle(self, job: TrainingJob, pods: tuple[PodView, ...], *, blocked: bool) -> None:
        """Bring the planner's memory of a job in line with the job.

        Args:
            job: the job with its status.
            pods: its pods.
            blocked: something that the planner does not know keeps it from starting (a missing claim, a refusal).
        """
        uid = job.metadata.uid
        active = [pod for pod in pods if not pod.finished]
        if job.status.placement and not terminal(job):
            places = tuple(Placement(p.rank, p.node, p.gpu_model or "") for p in job.status.placement)
            self._hold(job, places)
        elif active:
            # It gave its place back, but its pods are still leaving: their room is not free before they are gone.
            self._hold(job, tuple(Placement(pod.rank, pod.node, self._model(pod)) for pod in active))
        elif wants_admission(job, pods) and not blocked:
            if uid not in self._admitted:
                self._planner.requeue(uid)
                self._planner.submit(self._gang(job))
                self._jobs[uid] = (job.metadata.namespace, job.metadata.name)
                self._wake()
        else:
            self.forget(uid)

    def forget(self, uid: str) -> None:
        """The job ended, was deleted, or may not start: it neither waits nor holds anything."""
        self._planner.withdraw(uid)
        self._admitted.pop(uid, None)
        self._waiting.pop(uid, None)
        if self._jobs.pop(uid, None) is not None:
            self._wake()

    def _hold(self, job: TrainingJob, places: tuple[Placement, ...]) -> None:
        uid = job.metadata.uid
        self._planner.hold(self._gang(job), places)
        self._admitted.pop(uid, None)
        self._waiting.pop(uid, None)
        self._jobs[uid] = (job.metadata.namespace, job.metadata.name)

    # ---- answers

    def cycle(self) -> list[News]:
        """Let the planner decide. Returns the jobs that have news."""
        started = time.perf_counter()
        decisions = self._planner.cycle(time.time())
        metrics.PLANNER_SECONDS.observe(time.perf_counter() - started)
        news: list[News] = []
        for decision in decisions:
            job = self._jobs.get(decision.key)
            if job is None:
                continue
            if isinstance(decision, Admit):
                self._admitted[decision.key] = tuple(
                    PlacementStatus(rank=p.rank, node=p.node, gpu_model=p.gpu_model or None)
                    for p in decision.placements
                )
                self._waiting.pop(decision.key, None)
                metrics.PLANNER_DECISIONS.labels("admit").inc()
                news.append(News(*job, urgent=True))
            else:
                metrics.PLANNER_DECISIONS.labels("wait").inc()
                answer = Waiting(_REASONS[decision.reason], decision.message)
                before = self._waiting.get(decision.key)
                self._waiting[decision.key] = answer
                if before != answer:
                    urgent = before is None or before.reason is not answer.reason
                    news.append(News(*job, urgent=urgent))
        return news

    def admitted(self, uid: str) -> tuple[PlacementStatus, ...] | None:
        """The place found for a job that its status does not have yet."""
        return self._admitted.get(uid)

    def waiting(self, uid: str) -> Waiting | None:
        """Why the planner has a job wait."""
        return self._waiting.get(uid)

    def usage(self, queue: str) -> dict[str, int]:
        """GPUs held by a queue's jobs and replicas, per GPU model."""
        return self._planner.queue_usage(queue)

    def counts(self, queue: str) -> QueueCounts:
        """Jobs of a queue that wait and that hold a place."""
        return self._planner.queue_counts(queue)

    def quota_room(self, queue: str, model: str) -> int:
        """GPUs of quota left for a model."""
        return self._planner.quota_room(queue, model)

    # ---- translation

    @staticmethod
    def _gang(job: TrainingJob) -> GangRequest:
        spec, meta, failure = job.spec, job.metadata, job.status.failure
        moved = (
            failure is not None and failure.cause in (Cause.UNSCHEDULABLE, Cause.NODE_LOST) and failure.node
        )
        return GangRequest(
            key=meta.uid,
            name=f"{meta.namespace}/{meta.name}",
            namespace=meta.namespace,
            queue=spec.queue,
            priority=spec.priority,
            created_seconds=times.from_text(meta.creation_timestamp).timestamp(),
            workers=spec.workers.count,
            gpus=spec.resources.gpus,
            gpu_models=spec.resources.gpu_models,
            cpu_milli=spec.resources.cpu_milli,
            memory_bytes=spec.resources.memory_bytes,
            avoid_nodes=frozenset({failure.node}) if failure and moved and failure.node else frozenset(),
        )

    def _model(self, pod: PodView) -> str:
        return self._gpu_model_of(pod.node) if pod.gpus else ""
