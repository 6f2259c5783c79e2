"""The story of one workload: where it is in its life, what it waits for and what would help, or how it runs and ended.

Read off status, conditions and Events alone. What the caller may not read is left out, and `unread` says so: a story
with a gap must not look like one without. Points in time stay as the statuses have them, RFC 3339; how long ago they
are is for whoever has a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from datahall.api.conditions import ConditionType, find_condition
from datahall.api.reasons import Reason
from datahall.api.trainingjob import (
    Blocker,
    Failure,
    LastCheckpoint,
    PreemptedBy,
    Progress,
    TrainedModel,
    TrainingJob,
)
from datahall.api.trainingjob_status import Moves
from datahall.sdk.describing import EventLine
from datahall.sdk.explaining import explanation, failure_place, failure_sentence, state_of
from datahall.sdk.helping import help_for
from datahall.sdk.kinds import Workload
from datahall.sdk.queueing import LineEntry, QueueStanding, in_no_line, line_entry, place_in_line, tree_of
from datahall.sdk.surroundings import Surroundings

EVENTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Help:
    """What a person can do.

    Attributes:
        reason: about what, in a word of the reason catalogue.
        sentence: what.
    """

    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class WaitStory:
    """Why it waits.

    Attributes:
        position: its place in the queue's line, as the operator last said; None in no line.
        reason: what it waits for most, in one word.
        blockers: everything that it waits for, the most important first.
        starts_at: when it is expected to start, RFC 3339; None if nobody can tell.
        since: since when it waits, RFC 3339; None where the operator has not said.
        ahead: who goes before it in the same queue, the first first.
        moves: who would move to make room for it, and when; None where nobody would.
    """

    position: int | None
    reason: str
    blockers: tuple[Blocker, ...]
    starts_at: str | None
    since: str | None
    ahead: tuple[LineEntry, ...]
    moves: Moves | None = None


@dataclass(frozen=True, slots=True)
class NodeUse:
    """Workers on one node.

    Attributes:
        node: its name.
        workers: how many.
        gpu_model: the model of their GPUs; None if they have none.
    """

    node: str
    workers: int
    gpu_model: str | None


@dataclass(frozen=True, slots=True)
class RunStory:
    """How it runs.

    Attributes:
        since: since when every worker runs, RFC 3339; None while they start.
        workers: workers of this run.
        wanted: workers that it would use.
        fewest: workers that it starts with at least.
        nodes: where they are.
        spread: the same for a person.
        progress: how far training has come.
        ends_at: when it ends at the speed of the last report, RFC 3339; None if nobody can tell.
        deadline_at: when its deadline ends it, RFC 3339; None without one.
        checkpoint: what a restart would go on from.
        undisturbed_until: until when nobody may end it to make room, RFC 3339; None where that is not known.
        outranked_by: waiting jobs of its queue with a higher priority: they may end it.
        borrowed: GPUs that its queue has borrowed, by entry of the quota: their lenders may take them back.
    """

    since: str | None
    workers: int
    wanted: int
    fewest: int
    nodes: tuple[NodeUse, ...]
    spread: str | None
    progress: Progress | None
    ends_at: str | None
    deadline_at: str | None
    checkpoint: LastCheckpoint | None
    undisturbed_until: str | None
    outranked_by: tuple[LineEntry, ...]
    borrowed: dict[str, int]


@dataclass(frozen=True, slots=True)
class EndStory:
    """How it ended.

    Attributes:
        succeeded: whether there is a model (a Custom task may leave none).
        time: when, RFC 3339.
        sentence: how.
        output: the model.
        failure: the failure that ended it; None where no worker failed.
    """

    succeeded: bool
    time: str | None
    sentence: str
    output: TrainedModel | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Story:
    """One TrainingJob or InferenceService.

    Attributes:
        kind: CamelCase kind.
        name: its name.
        namespace: its namespace.
        created: when it was made, RFC 3339.
        state: its state in one word.
        reason: why, in one word of the reason catalogue.
        message: why, in a sentence.
        since: since when it is in that state, RFC 3339; None where no condition says.
        stale: whether its spec has changed since the operator last looked.
        queue_name: the Queue that it names.
        priority: its priority; None for a service.
        queue: where that Queue stands; None if there is none, or the caller may not read it.
        waiting: why it waits; None if it does not.
        running: how it runs; None if it does not.
        ended: how it ended; None if it has not.
        failure: the newest failure in a sentence, also where it goes on; "" without one.
        preemptions: how often it was ended to make room for others.
        preempted_by: the newest of them.
        earlier_preemptions: Events of those before, as far as the cluster keeps them, the newest first.
        replicas: of a service: pods that answer, and pods asked for.
        helps: what a person can do about each thing that is in its way, the most important first.
        events: its newest Events, oldest first.
        unread: what the caller may not read, for a person: the story lacks it.
    """

    kind: str
    name: str
    namespace: str
    created: str
    state: str
    reason: str
    message: str
    since: str | None
    stale: bool
    queue_name: str
    priority: int | None
    queue: QueueStanding | None
    waiting: WaitStory | None
    running: RunStory | None
    ended: EndStory | None
    failure: str
    preemptions: int
    preempted_by: PreemptedBy | None
    earlier_preemptions: tuple[EventLine, ...]
    replicas: tuple[int, int] | None
    helps: tuple[Help, ...]
    events: tuple[EventLine, ...]
    unread: tuple[str, ...] = ()


def story_of(workload: Workload, around: Surroundings) -> Story:
    """Put the story together. Pure."""
    job = workload if isinstance(workload, TrainingJob) else None
    why, state = explanation(workload), state_of(workload)
    queues = tree_of(around.queues or ())
    queue = next((each for each in queues if each.name == workload.spec.queue), None)
    waiting = _waiting(workload, state, around)
    status = workload.status
    preempted_by = job.status.preempted_by if job else None
    return Story(
        kind=workload.kind,
        name=workload.metadata.name,
        namespace=workload.metadata.namespace,
        created=workload.metadata.creation_timestamp,
        state=state,
        reason=why.reason,
        message=why.message,
        since=_since(workload, state),
        stale=0 < status.observed_generation < workload.metadata.generation,
        queue_name=workload.spec.queue,
        priority=job.spec.priority if job else None,
        queue=queue,
        waiting=waiting,
        running=_running(job, state, queue, around) if job else None,
        ended=_ended(job, state) if job else None,
        failure=_newest_failure(workload),
        preemptions=(job.status.preemptions or 0) if job else 0,
        preempted_by=preempted_by,
        earlier_preemptions=_earlier(around.events, preempted_by),
        replicas=None if job else _replicas(workload),
        helps=_helps(workload, why.reason, waiting, queue),
        events=around.events[-EVENTS_SHOWN:],
        unread=around.unread,
    )


# ---- its parts


def _waiting(workload: Workload, state: str, around: Surroundings) -> WaitStory | None:
    if not isinstance(workload, TrainingJob):
        return _service_waiting(workload)
    if state != "Queued":
        return None
    waiting, why = workload.status.waiting, explanation(workload)
    entry = line_entry(workload)
    before = [
        job
        for job in _line(around)
        if not in_no_line(workload) and place_in_line(job) < place_in_line(workload)
    ]
    return WaitStory(
        position=entry.position,
        reason=entry.reason,
        blockers=(waiting.blockers if waiting else ())
        or (Blocker(reason=why.reason or "Unknown", message=why.message),),
        starts_at=entry.starts_at,
        since=entry.since,
        ahead=tuple(line_entry(job) for job in before),
        moves=waiting.moves if waiting else None,
    )


def _service_waiting(workload: Workload) -> WaitStory | None:
    """A service's conditions say what it waits for; it stands in no line that a person could see."""
    blockers: dict[str, Blocker] = {}
    for type_ in (
        ConditionType.STALLED,
        ConditionType.MODEL_READY,
        ConditionType.GPU_AVAILABLE,
        ConditionType.REPLICAS_READY,
    ):
        condition = find_condition(workload.status.conditions, type_)
        bad = "True" if type_ is ConditionType.STALLED else "False"
        if condition is not None and condition.status == bad:
            blockers.setdefault(
                condition.message, Blocker(reason=condition.reason, message=condition.message)
            )
    if not blockers:
        return None
    found = tuple(blockers.values())
    ready = find_condition(workload.status.conditions, ConditionType.READY)
    return WaitStory(None, found[0].reason, found, None, ready.last_transition_time if ready else None, ())


def _running(
    job: TrainingJob, state: str, queue: QueueStanding | None, around: Surroundings
) -> RunStory | None:
    if state not in {"Running", "Starting", "Restarting"}:
        return None
    status, spec = job.status, job.spec
    progress = status.progress
    since = _since(job, state) if state == "Running" else None
    minimum = next(
        (each.spec.minimum_run_seconds for each in around.queues or () if each.metadata.name == spec.queue),
        None,
    )
    return RunStory(
        since=since,
        workers=status.workers if status.workers is not None else len(status.placement),
        wanted=spec.workers.count,
        fewest=spec.workers.fewest,
        nodes=_nodes(job),
        spread=status.spread,
        progress=progress,
        ends_at=_later(progress.time, progress.eta_seconds) if progress and state == "Running" else None,
        deadline_at=_later(status.start_time, spec.active_deadline_seconds),
        checkpoint=status.last_checkpoint,
        undisturbed_until=_later(since, minimum),
        outranked_by=tuple(line_entry(each) for each in _line(around) if each.spec.priority > spec.priority),
        borrowed={use.model: use.borrowed for use in queue.gpus if use.borrowed} if queue else {},
    )


def _ended(job: TrainingJob, state: str) -> EndStory | None:
    if state not in {"Succeeded", "Failed"}:
        return None
    succeeded = state == "Succeeded"
    return EndStory(
        succeeded=succeeded,
        time=job.status.completion_time or _since(job, state),
        sentence=explanation(job).message if succeeded else failure_sentence(job),
        output=job.status.output,
        failure=None if succeeded else job.status.failure,
    )


def _line(around: Surroundings) -> list[TrainingJob]:
    """Jobs that stand in line in the queue, the next first."""
    waiting = [job for job in around.jobs if state_of(job) == "Queued" and not in_no_line(job)]
    return sorted(waiting, key=place_in_line)


def _helps(
    workload: Workload, reason: str, waiting: WaitStory | None, queue: QueueStanding | None
) -> tuple[Help, ...]:
    reasons = [blocker.reason for blocker in waiting.blockers] if waiting else [reason]
    service = not isinstance(workload, TrainingJob)
    meta, named = workload.metadata, workload.spec.queue
    found: dict[str, Help] = {}
    for word in reasons:
        sentence = help_for(word, service=service, name=meta.name, namespace=meta.namespace, queue=named)
        if sentence:
            found.setdefault(sentence, Help(word, sentence))
    if waiting and queue is not None and queue.reason:
        sentence = help_for(
            queue.reason, service=service, name=meta.name, namespace=meta.namespace, queue=named
        )
        if sentence:
            found.setdefault(sentence, Help(queue.reason, f"Queue {named}: {sentence}"))
    return tuple(found.values())


def _newest_failure(workload: Workload) -> str:
    """What failed last and where; it does not say that the whole has failed, for often it goes on."""
    failure = workload.status.failure
    if failure is None:
        return ""
    told = ": ".join(part for part in (failure.cause, failure.message) if part)
    where = failure_place(workload)
    return told + (f" ({where})" if where else "")


def _earlier(events: Sequence[EventLine], newest: PreemptedBy | None) -> tuple[EventLine, ...]:
    """Events of preemptions before the newest, which the status tells of itself."""
    told = [event for event in events if event.reason == Reason.PREEMPTED]
    if newest is not None and told:
        told = told[:-1]
    return tuple(reversed(told))


def _nodes(job: TrainingJob) -> tuple[NodeUse, ...]:
    found: dict[tuple[str, str | None], int] = {}
    for place in job.status.placement:
        key = (place.node, place.gpu_model)
        found[key] = found.get(key, 0) + 1
    return tuple(NodeUse(node, workers, model) for (node, model), workers in found.items())


def _replicas(workload: Workload) -> tuple[int, int] | None:
    return (
        None
        if isinstance(workload, TrainingJob)
        else (workload.status.ready_replicas, workload.spec.replicas.min)
    )


_CONDITION_OF = {
    "Queued": ConditionType.QUEUED,
    "Starting": ConditionType.ADMITTED,
    "Running": ConditionType.RUNNING,
    "Restarting": ConditionType.RESTARTING,
    "Suspended": ConditionType.SUSPENDED,
    "Succeeded": ConditionType.SUCCEEDED,
    "Failed": ConditionType.FAILED,
    "Stalled": ConditionType.STALLED,
    "Ready": ConditionType.READY,
    "WaitingForModel": ConditionType.MODEL_READY,
    "Progressing": ConditionType.READY,
}


def _since(workload: Workload, state: str) -> str | None:
    type_ = _CONDITION_OF.get(state)
    if state == "Queued" and not isinstance(workload, TrainingJob):
        type_ = ConditionType.GPU_AVAILABLE
    condition = find_condition(workload.status.conditions, type_) if type_ else None
    return condition.last_transition_time if condition else None


def _later(since: str | None, seconds: int | None) -> str | None:
    """A point in time so many seconds after another, RFC 3339."""
    if not since or seconds is None:
        return None
    then = datetime.fromisoformat(since) + timedelta(seconds=seconds)
    return then.isoformat(timespec="seconds").replace("+00:00", "Z")
