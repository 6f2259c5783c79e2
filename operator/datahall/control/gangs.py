"""Objects in the planner's words: jobs become gangs, Queues nodes of the quota tree, nodes room. Pure.

A held gang's request must not move while nothing of it moves, or the planner would take it for another one at every
look: what changes with time (how far a job is) goes to the planner as progress instead.
"""

from __future__ import annotations

import datetime
import math

from datahall.api.conditions import ConditionType, find_condition
from datahall.api.gang import TopologyLevel, TopologyMode
from datahall.api.queue import EnergyQuota, GPUQuota, PowerQuota, Queue
from datahall.api.reasons import Cause
from datahall.api.trainingjob import Placement as PlacementStatus
from datahall.api.trainingjob import TrainingJob
from datahall.control import times
from datahall.control.views import NodeView, PodView
from datahall.planning import (
    GangProgress,
    GangRequest,
    Level,
    Limits,
    NodeState,
    Placement,
    PodUsage,
    QueueState,
)

RUN_SECONDS_STEP = 60
"""Run times are rounded up to this: jobs that are alike stay alike for the planner, which judges a kind once."""

_LEVELS = {
    TopologyLevel.HOST: Level.HOST,
    TopologyLevel.RACK: Level.RACK,
    TopologyLevel.BLOCK: Level.BLOCK,
}


def node_state(view: NodeView, power_domains: tuple[str, ...] = ()) -> NodeState:
    """A node, and what it can give.

    Args:
        view: the node.
        power_domains: the PowerDomains that select it.
    """
    return NodeState(
        name=view.name,
        gpu_model=view.gpu_model,
        gpus=view.gpus,
        cpu_milli=view.cpu_milli,
        memory_bytes=view.memory_bytes,
        rack=view.rack,
        block=view.block,
        schedulable=view.schedulable,
        gpu_watts=view.gpu_watts,
        power_domains=power_domains,
    )


def queue_state(queue: Queue) -> QueueState:
    """A Queue as a node of the quota tree."""
    spec = queue.spec
    return QueueState(
        name=queue.metadata.name,
        gpus={quota.model: _limits(quota) for quota in spec.gpus},
        parent=spec.parent or "",
        weight=float(spec.weight),
        watts=None if spec.watts is None else _limits(spec.watts),
        joules_per_day=None if spec.joules_per_day is None else _limits(spec.joules_per_day),
        namespaces=frozenset(spec.namespaces),
        minimum_run_seconds=float(spec.minimum_run_seconds),
    )


def _limits(quota: GPUQuota | PowerQuota | EnergyQuota) -> Limits:
    return Limits(quota.nominal, quota.borrowing_limit, quota.lending_limit)


def gang_of(job: TrainingJob, *, run_seconds: float | None, preemptible: bool = True) -> GangRequest:
    """The gang of a job.

    Args:
        job: the job with its status.
        run_seconds: how long it will run once started, at most; None if nobody knows.
        preemptible: whether it may be ended for another.
    """
    spec, meta, failure = job.spec, job.metadata, job.status.failure
    moved = failure is not None and failure.cause in (Cause.UNSCHEDULABLE, Cause.NODE_LOST) and failure.node
    topology = spec.topology
    return GangRequest(
        key=meta.uid,
        name=f"{meta.namespace}/{meta.name}",
        namespace=meta.namespace,
        queue=spec.queue,
        priority=spec.priority,
        created_seconds=times.from_text(meta.creation_timestamp).timestamp(),
        workers=spec.workers.count,
        min_workers=spec.workers.fewest,
        gpus=spec.resources.gpus,
        gpu_models=spec.resources.gpu_models,
        cpu_milli=spec.resources.cpu_milli,
        memory_bytes=spec.resources.memory_bytes,
        level=None if topology is None else _LEVELS[topology.level],
        required=topology is not None and topology.mode is TopologyMode.REQUIRED,
        avoid_nodes=frozenset({failure.node}) if failure and moved and failure.node else frozenset(),
        preemptible=preemptible,
        evictions=job.status.preemptions or 0,
        run_seconds=run_seconds,
    )


def loose_gang(pod: PodView, queue: str) -> GangRequest:
    """A pod of ours whose owner is not known (any more): a gang of its own, which its queue pays for until it ends."""
    return GangRequest(
        key=pod.uid,
        name=f"{pod.namespace}/{pod.name}",
        namespace=pod.namespace,
        queue=queue,
        priority=0,
        created_seconds=times.from_text(pod.created_at).timestamp(),
        workers=1,
        gpus=pod.gpus,
        gpu_models=(),
        cpu_milli=pod.cpu_milli,
        memory_bytes=pod.memory_bytes,
        preemptible=False,
    )


def pod_usage(pod: PodView) -> PodUsage:
    """A pod that is nobody's gang."""
    return PodUsage(
        uid=pod.uid,
        node=pod.node,
        gpus=pod.gpus,
        cpu_milli=pod.cpu_milli,
        memory_bytes=pod.memory_bytes,
    )


def places_of(placement: tuple[PlacementStatus, ...]) -> tuple[Placement, ...]:
    """A placement of a status in the planner's words."""
    return tuple(Placement(p.rank, p.node, p.gpu_model or "") for p in placement)


def run_seconds(job: TrainingJob, now: datetime.datetime) -> float | None:
    """How long a waiting job will run once started, at most; None if nobody knows.

    A job that has run before goes on from its checkpoint: what it had left there, at the speed that it had. Any job
    runs no longer than its deadline lets it. Rounded up.
    """
    known = [seconds for seconds in (_left_seconds(job), _deadline_seconds(job, now)) if seconds is not None]
    if not known:
        return None
    return float(max(1, math.ceil(min(known) / RUN_SECONDS_STEP)) * RUN_SECONDS_STEP)


def _left_seconds(job: TrainingJob) -> float | None:
    progress, saved = job.status.progress, job.status.last_checkpoint
    if progress is None or progress.eta_seconds is None:
        return None
    left = float(progress.eta_seconds)
    if saved is not None and progress.step is not None and progress.total_steps:
        ahead = progress.total_steps - progress.step
        if ahead > 0 and saved.step < progress.step:
            left *= (progress.total_steps - saved.step) / ahead
    return left


def _deadline_seconds(job: TrainingJob, now: datetime.datetime) -> float | None:
    limit = job.spec.active_deadline_seconds
    return None if limit is None else max(0.0, limit - times.since(job.status.start_time, now))


def progress_of(job: TrainingJob) -> GangProgress | None:
    """How a held job does; None before it says anywhere that it has its place."""
    status = job.status
    running = find_condition(status.conditions, ConditionType.RUNNING)
    admitted = find_condition(status.conditions, ConditionType.ADMITTED)
    # Each start counts anew: what its workers were doing before has been saved, or is lost already.
    since = running if running is not None and running.status == "True" else admitted
    if since is None or since.status != "True":
        return None
    started = times.from_text(since.last_transition_time).timestamp()
    saved, end, progress = status.last_checkpoint, None, status.progress
    left = _left_seconds(job)
    if since is running and left is not None and progress is not None and progress.time:
        told = times.from_text(progress.time).timestamp()
        # Before its first report a gang is where its last generation left off.
        end = told + (progress.eta_seconds or 0) if told >= started else started + left
    return GangProgress(
        started_seconds=started,
        saved_seconds=times.from_text(saved.time).timestamp() if saved is not None and saved.time else None,
        end_seconds=end,
    )
