"""Which workers ended early, and how a failure is told: the records of `status.failure` and their sentences."""

from __future__ import annotations

from datahall.api.conditions import ConditionType
from datahall.api.reasons import Cause
from datahall.api.trainingjob import Failure, Placement
from datahall.control import labels, times
from datahall.control.claims import not_bound
from datahall.control.training.causes import WorkerEnd, worker_end
from datahall.control.training.look import Look
from datahall.control.training.seen import Seen
from datahall.control.views import PodView

BIND_PATIENCE_SECONDS = 30.0
"""How long a pod pinned to a node may stay unbound before the gang is placed anew."""


def early_ends(look: Look, gang: dict[int, PodView]) -> list[WorkerEnd]:
    """The workers of this gang that ended early, are being taken away, or have vanished."""
    seen = look.seen
    ends = [
        worker_end(pod)
        for pod in gang.values()
        if pod.phase == "Failed" or (pod.deleted_at is not None and pod.phase != "Succeeded")
    ]
    ends += [
        WorkerEnd(pod, Cause.NODE_LOST, f"node {pod.node} does not answer or is gone")
        for pod in gang.values()
        if pod.node in seen.lost_nodes and not pod.finished and pod.deleted_at is None
    ]
    ends += [
        WorkerEnd(pod, Cause.UNSCHEDULABLE, _not_scheduled(pod, seen))
        for pod in gang.values()
        if pod.unschedulable and not pod.bound and age_seconds(pod, seen) > BIND_PATIENCE_SECONDS
    ]
    begun = look.draft.is_true(ConditionType.RUNNING) or any(pod.started for pod in gang.values())
    if begun:
        # Once the gang has begun, a worker cannot join it: a missing pod is a lost worker, not one to be made.
        ends += [
            WorkerEnd(_vanished(look, place), Cause.POD_DELETED, "the pod was deleted and is gone")
            for place in seen.job.status.placement
            if place.rank not in gang
        ]
    return ends


def _not_scheduled(pod: PodView, seen: Seen) -> str:
    """What the scheduler says, and the claims behind it: it names none."""
    why = f"node {pod.node}: {pod.unschedulable}"
    return f"{why}; {not_bound(seen.claims.unbound)}" if seen.claims.unbound else why


def _vanished(look: Look, place: Placement) -> PodView:
    """A stand-in for a pod that is no longer there to be looked at."""
    meta, generation = look.seen.job.metadata, look.seen.job.status.generation
    return PodView(
        namespace=meta.namespace,
        name=labels.worker_pod(meta.name, generation, place.rank),
        uid="",
        version=0,
        labels={labels.GENERATION: str(generation), labels.RANK: str(place.rank)},
        owner_uid=meta.uid,
        node=place.node,
        bound=True,
        phase="Failed",
        reason="",
        message="",
        disruption="",
        unschedulable="",
        deleted_at=times.to_text(look.seen.now),
        created_at=times.to_text(look.seen.now),
        ready=False,
        running=False,
        waiting_reason="",
        waiting_message="",
        ended=None,
        restarts=0,
        gpus=0,
        cpu_milli=0,
        memory_bytes=0,
    )


def age_seconds(pod: PodView, seen: Seen) -> float:
    """How long ago a pod was made."""
    return times.since(pod.created_at, seen.now)


def failure_of(look: Look, end: WorkerEnd) -> Failure:
    """`status.failure` for a worker that ended early."""
    ended = end.pod.ended
    return Failure(
        pod=end.pod.name,
        node=end.pod.node or None,
        rank=end.pod.rank if end.pod.rank >= 0 else None,
        exit_code=ended.exit_code if ended else None,
        signal=_signal(end.pod),
        cause=str(end.cause),
        message=end.message[:4096],
        last_log_lines=tuple(line[:4096] for line in end.log_lines),
        time=(ended.finished_at if ended else None) or times.to_text(look.seen.now),
        generation=end.pod.generation,
    )


def plain_failure(look: Look, cause: Cause, message: str) -> Failure:
    """`status.failure` where no worker is to blame."""
    return Failure(
        cause=str(cause),
        message=message[:4096],
        time=times.to_text(look.seen.now),
        generation=look.seen.job.status.generation,
    )


def _signal(pod: PodView) -> int | None:
    if pod.ended is None:
        return None
    if pod.ended.signal:
        return pod.ended.signal
    return pod.ended.exit_code - 128 if 128 < pod.ended.exit_code < 160 else None


def sentence(end: WorkerEnd) -> str:
    """Who ended, where, and why."""
    where = f" on {end.pod.node}" if end.pod.node else ""
    return f"worker {end.pod.rank} ({end.pod.name}{where}): {end.cause}: {end.message}"[:2048]
