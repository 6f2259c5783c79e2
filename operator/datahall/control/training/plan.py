"""What to do about a TrainingJob: one pure function from all that is seen to the next status and the next writes.

The order of the checks is the life cycle: gone, final, done, suspended, past its deadline, waiting, running. Three
rules make a crash anywhere harmless. The status is written before anything it implies, so whoever comes next reads what
was meant. Children have names made from (job, generation, rank), so making them twice is making them once. And a pod of
an earlier generation is always in the way: while one exists, nothing of the present generation is made (the fence).
"""

from __future__ import annotations

import contextlib
import datetime
import math
from dataclasses import dataclass, field

from pydantic import ValidationError

from datahall.api.conditions import ConditionType, is_true
from datahall.api.reasons import Cause, Reason
from datahall.api.trainingjob import (
    Failure,
    LastCheckpoint,
    Placement,
    Progress,
    Restarts,
    TrainedModel,
    TrainingJob,
)
from datahall.control import labels, times
from datahall.control.actions import Action, Announce, Create, Delete, Plan
from datahall.control.settings import Settings
from datahall.control.training import pods as build
from datahall.control.training.causes import WorkerEnd, telling, termination, worker_end
from datahall.control.training.status import StatusDraft
from datahall.control.views import PULL_PROBLEMS, PodView
from datahall.kube.resources import PODS, SERVICES, TRAINING_JOBS

ROOT_CAUSE_PATIENCE_SECONDS = 10.0
"""How long to wait, after a worker says only that it lost a peer, for the peer's own word."""

STRAGGLER_PATIENCE_SECONDS = 60.0
"""How long the other workers may take to leave once worker 0 has the result."""

BIND_PATIENCE_SECONDS = 30.0
"""How long a pod pinned to a node may stay unbound before the gang is placed anew."""

PROGRESS_EVERY_SECONDS = 5.0
"""Shortest time between two status writes that carry only progress."""

FORCE_AFTER_SECONDS = 30.0
"""Past its grace period on a node that is lost, a pod is removed by force: nobody is left to confirm its end."""

WAIT_MESSAGE_EVERY_SECONDS = 15.0
"""Shortest time between two status writes that change only the numbers of a waiting message."""

_END_MARGIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """The newest report of a job's rank 0.

    Attributes:
        generation: the gang generation it speaks for.
        progress: how far it is.
        checkpoint: the newest complete checkpoint, or None.
    """

    generation: int
    progress: Progress
    checkpoint: LastCheckpoint | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The planner's refusal, for now."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server refused a child of the present generation.

    Attributes:
        message: its sentence.
        final: whether the object itself is at fault (then trying again cannot help).
    """

    message: str
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that is known when a job is looked at.

    Attributes:
        job: the job, its present status included.
        deleting: whether its deletion has begun.
        pods: its pods, of every generation.
        admitted: the placement that the planner decided and the status does not have yet.
        waiting: why the planner has it wait, where it does.
        missing_claims: claims that its spec names and that do not exist.
        report: the newest report of this job.
        refusal: what the API server said to a child of the present generation.
        lost_nodes: nodes that have not answered for a while, or are gone.
        unfit_nodes: nodes on which nothing new may start.
        written_seconds_ago: time since this process last wrote the job's status.
        now: the present time.
    """

    job: TrainingJob
    pods: tuple[PodView, ...]
    now: datetime.datetime
    deleting: bool = False
    admitted: tuple[Placement, ...] | None = None
    waiting: Waiting | None = None
    missing_claims: tuple[str, ...] = ()
    report: Report | None = None
    refusal: Refusal | None = None
    lost_nodes: frozenset[str] = frozenset()
    unfit_nodes: frozenset[str] = frozenset()
    written_seconds_ago: float = math.inf


def terminal(job: TrainingJob) -> bool:
    """Whether the job has ended. Final: nothing is ever created for it again."""
    conditions = job.status.conditions
    return is_true(conditions, ConditionType.SUCCEEDED) or is_true(conditions, ConditionType.FAILED)


def wants_admission(job: TrainingJob, pods: tuple[PodView, ...]) -> bool:
    """Whether the planner should find it a place: it runs nowhere, holds nothing, and is meant to run."""
    return (
        not terminal(job)
        and not job.spec.suspend
        and not job.status.placement
        and all(pod.finished for pod in pods)
    )


@dataclass(slots=True)
class _Look:
    """One look at one job: the draft of its status and what is to be done."""

    seen: Seen
    settings: Settings
    draft: StatusDraft
    actions: list[Action] = field(default_factory=list)
    announcements: list[Announce] = field(default_factory=list)
    again: float | None = None
    silent: bool = False

    def announce(self, reason: Reason, message: str) -> None:
        self.announcements.append(Announce(reason, message))

    def look_again(self, seconds: float) -> None:
        seconds = max(seconds, 0.1)
        self.again = seconds if self.again is None else min(self.again, seconds)

    def done(self) -> Plan:
        return Plan(
            status=None if self.silent else self.draft.finish(),
            actions=tuple(self.actions),
            announcements=tuple(self.announcements),
            look_again_seconds=self.again,
        )


def plan(seen: Seen, settings: Settings) -> Plan:
    """Decide what is to be done about a job now."""
    if seen.deleting:
        return Plan()  # the garbage collector takes the children by their ownerReferences
    look = _Look(seen, settings, StatusDraft(seen.job, seen.now))
    if terminal(seen.job):
        _after_the_end(look)
        return look.done()
    if seen.job.status.effective is None:
        look.draft.set(effective=seen.job.spec.effective())
    if _finished(look):
        return look.done()  # a result that is there counts, whatever has been asked for or has run out since
    if seen.job.spec.suspend:
        _suspended(look)
    elif _past_deadline(look):
        _fail(look, Reason.DEADLINE_EXCEEDED, _deadline_message(look))
    elif seen.job.status.placement:
        _resumed(look)
        _run(look)
    else:
        _resumed(look)
        _wait(look)
    return look.done()


# --- the end


def _after_the_end(look: _Look) -> None:
    """Stop what still runs, keep finished pods for their logs, delete the job when its time has come."""
    job = look.seen.job
    _stop(look, [pod for pod in look.seen.pods if not pod.finished])
    ttl = job.spec.ttl_seconds_after_finished
    if ttl is not None:
        left = ttl - times.since(job.status.completion_time, look.seen.now)
        if left > 0:
            look.look_again(left + _END_MARGIN_SECONDS)
        else:
            meta = job.metadata
            look.actions.append(Delete(TRAINING_JOBS, meta.namespace, meta.name, meta.uid))


def _past_deadline(look: _Look) -> bool:
    limit, started = look.seen.job.spec.active_deadline_seconds, look.seen.job.status.start_time
    if limit is None or started is None:
        return False
    left = limit - times.since(started, look.seen.now)
    if left > 0:
        look.look_again(left + _END_MARGIN_SECONDS)
    return left <= 0


def _deadline_message(look: _Look) -> str:
    limit = look.seen.job.spec.active_deadline_seconds
    return f"activeDeadlineSeconds: {limit} s have passed since {look.seen.job.status.start_time}"


def _fail(look: _Look, reason: Reason, message: str, end: WorkerEnd | None = None) -> None:
    now = times.to_text(look.seen.now)
    draft = look.draft
    if end is not None:
        draft.set(failure=_failure(look, end))
    elif reason is Reason.DEADLINE_EXCEEDED:
        draft.set(failure=_plain_failure(look, Cause.DEADLINE, message))
    draft.set(completion_time=now, placement=())
    _settle(draft)
    draft.true(ConditionType.FAILED, reason, message).true(ConditionType.STALLED, reason, message)
    look.announce(reason, message)
    _stop(look, [pod for pod in look.seen.pods if not pod.finished])


def _succeed(look: _Look, first: PodView | None, output: TrainedModel | None) -> None:
    draft = look.draft
    if first is not None:
        _take_last_word(look, first)
    message = (
        f"output {output.uri}, digest {output.digest}" if output else "all workers ended with exit code 0"
    )
    draft.set(output=output, completion_time=times.to_text(look.seen.now), placement=())
    _settle(draft)
    draft.true(ConditionType.SUCCEEDED, Reason.TRAINING_SUCCEEDED, message)
    look.announce(Reason.TRAINING_SUCCEEDED, message)
    _stop(look, [pod for pod in look.seen.pods if not pod.finished])


def _settle(draft: StatusDraft) -> None:
    """No condition of a job that ended says that anything is still going on."""
    for type_ in (
        ConditionType.QUEUED,
        ConditionType.ADMITTED,
        ConditionType.RUNNING,
        ConditionType.RESTARTING,
        ConditionType.SUSPENDED,
        ConditionType.RECONCILING,
    ):
        draft.false(type_)


# --- suspension


def _suspended(look: _Look) -> None:
    """Stop the workers (they save first), give everything back."""
    draft = look.draft
    running = [pod for pod in look.seen.pods if not pod.finished]
    if not draft.is_true(ConditionType.SUSPENDED):
        look.announce(Reason.SUSPEND_REQUESTED, f"{len(running)} workers are stopped; their GPUs become free")
    _release(draft)
    draft.set(start_time=None)  # the deadline counts anew from the resumption, as a Kubernetes Job's does
    draft.true(ConditionType.SUSPENDED, Reason.SUSPEND_REQUESTED, "spec.suspend is true").false(
        ConditionType.QUEUED
    )
    _reconciling(draft, bool(running), f"{len(running)} workers are stopping")
    _stop(look, running)
    if running:
        look.look_again(5)


def _resumed(look: _Look) -> None:
    if look.draft.is_true(ConditionType.SUSPENDED):
        look.draft.false(ConditionType.SUSPENDED, Reason.RESUMED, "spec.suspend is false")
        look.announce(Reason.RESUMED, "waits in its queue again")


def _release(draft: StatusDraft) -> None:
    draft.set(placement=())
    for type_ in (ConditionType.ADMITTED, ConditionType.RUNNING, ConditionType.RESTARTING):
        draft.false(type_)


# --- waiting


def _wait(look: _Look) -> None:
    """It holds no place: tell why, or take the place that the planner has found."""
    seen, draft = look.seen, look.draft
    now = times.to_text(seen.now)
    leaving = [pod for pod in seen.pods if not pod.finished]
    if leaving:
        # What it held is not free yet; only then may it wait in line for something new.
        _stop(look, leaving)
        look.look_again(5)
    elif seen.admitted is not None and not seen.missing_claims and seen.refusal is None:
        _admit(look, seen.admitted)
        return
    elif not seen.missing_claims and seen.refusal is None and seen.waiting is None:
        # The planner has not looked at it yet. Its answer comes within a moment and makes one write, not two.
        look.silent = not is_true(seen.job.status.conditions, ConditionType.SUSPENDED)
        return
    if seen.job.status.queued_time is None:
        draft.set(queued_time=now)
    if seen.missing_claims:
        names = ", ".join(f'"{name}"' for name in seen.missing_claims)
        message = f"PersistentVolumeClaim {names} does not exist in namespace {seen.job.metadata.namespace}"
        _tell_waiting(look, Reason.CLAIM_NOT_FOUND, message)
    elif seen.refusal is not None:
        _tell_waiting(look, Reason.REQUEST_REFUSED, seen.refusal.message)
    elif seen.waiting is not None:
        _tell_waiting(look, seen.waiting.reason, seen.waiting.message)


def _tell_waiting(look: _Look, reason: Reason, message: str) -> None:
    before = next((c for c in look.seen.job.status.conditions if c.type == ConditionType.QUEUED), None)
    if (
        before is not None
        and before.status == "True"
        and before.reason == reason
        and before.message != message
    ):
        # Only numbers moved, as they do at every start and end of any job: tell it, but not every time.
        told = look.seen.now.timestamp() % WAIT_MESSAGE_EVERY_SECONDS
        if told > 1.0:
            look.look_again(WAIT_MESSAGE_EVERY_SECONDS - told)
            return
    if before is None or before.reason != reason or before.status != "True":
        look.announce(reason, message)
    look.draft.true(ConditionType.QUEUED, reason, message)
    _reconciling(look.draft, True, message, reason)


def _admit(look: _Look, places: tuple[Placement, ...]) -> None:
    """Write the place down. The pods come with the next look, after this write has gone through."""
    draft, status = look.draft, look.seen.job.status
    generation = max([status.generation, *(pod.generation for pod in look.seen.pods)]) + 1
    now = times.to_text(look.seen.now)
    draft.set(placement=places, generation=generation, start_time=status.start_time or now)
    draft.set(queued_time=status.queued_time or now)
    nodes = len({place.node for place in places})
    draft.false(ConditionType.QUEUED, Reason.ADMITTED, "has its place")
    draft.true(
        ConditionType.ADMITTED,
        Reason.ADMITTED,
        f"{len(places)} worker{'s' if len(places) > 1 else ''} on {nodes} node{'s' if nodes > 1 else ''}",
    )
    _reconciling(draft, True, "pods are being created", Reason.PODS_STARTING)
    if not look.seen.pods:  # else the fence comes first
        _make(look, places, generation)


# --- running


def _run(look: _Look) -> None:
    """It holds a place: fence, make what is missing, watch how it goes."""
    seen, status = look.seen, look.seen.job.status
    if seen.refusal is not None:
        _refused(look, seen.refusal)
        return
    old = [pod for pod in seen.pods if pod.generation < status.generation]
    if old:
        _fence(look, old)
        return
    gang = _gang(look)
    ends = _ends(look, gang)
    if ends:
        _broken(look, gang, ends)
        return
    missing = [place for place in status.placement if place.rank not in gang]
    if missing:
        _make(look, tuple(missing), status.generation)
        return
    _tell_running(look, gang)
    if 0 in gang:
        _take_report(look)


def _gang(look: _Look) -> dict[int, PodView]:
    """The pods of the present generation, by rank."""
    generation = look.seen.job.status.generation
    return {pod.rank: pod for pod in look.seen.pods if pod.generation == generation}


def _finished(look: _Look) -> bool:
    """End the job if the gang has done its work."""
    job, gang = look.seen.job, _gang(look)
    first = gang.get(0)
    if not job.status.placement or first is None or first.phase != "Succeeded":
        return False
    said = termination(first)
    output = _output(said) if said and said.get("result") == "Succeeded" else None
    others = [pod for rank, pod in gang.items() if rank and pod.phase != "Succeeded"]
    if job.spec.container is None:
        if output is None:
            end = WorkerEnd(first, Cause.USER_CODE, "worker 0 ended with exit code 0 but left no result")
            _fail(look, Reason.WORKER_FAILED, _sentence(end), end)
            return True
        running = [pod for pod in others if not pod.finished and pod.deleted_at is None]
        ended = first.ended.finished_at if first.ended else None
        patience = STRAGGLER_PATIENCE_SECONDS - times.since(ended, look.seen.now)
        if running and patience > 0:
            # The result is safe; give the others the time to leave by themselves.
            look.look_again(patience + _END_MARGIN_SECONDS)
            return True
        _succeed(look, first, output)
        return True
    if len(gang) == job.spec.workers.count and not others:
        _succeed(look, first, output)
        return True
    return False


def _output(said: dict[str, object]) -> TrainedModel | None:
    """The finished model; None where nothing readable is said of one: any program may write any JSON there."""
    output, progress = said.get("output"), said.get("progress")
    if not isinstance(output, dict):
        return None
    metrics = progress.get("metrics") if isinstance(progress, dict) else None
    plain = {"uri": output.get("uri"), "digest": output.get("digest")}
    for body in ({**plain, "metrics": metrics or {}}, plain):
        with contextlib.suppress(ValidationError):
            return TrainedModel.model_validate(body)
    return None


def _ends(look: _Look, gang: dict[int, PodView]) -> list[WorkerEnd]:
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
        WorkerEnd(pod, Cause.UNSCHEDULABLE, f"node {pod.node}: {pod.unschedulable}")
        for pod in gang.values()
        if pod.unschedulable and not pod.bound and _age(pod, seen) > BIND_PATIENCE_SECONDS
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


def _vanished(look: _Look, place: Placement) -> PodView:
    """A stand-in for a pod that is no longer there to be looked at."""
    meta, generation = look.seen.job.metadata, look.seen.job.status.generation
    return PodView(
        namespace=meta.namespace,
        name=labels.worker_pod(meta.name, generation, place.rank),
        uid="",
        version=0,
        labels={labels.GENERATION: str(generation), labels.RANK: str(place.rank)},
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


def _broken(look: _Look, gang: dict[int, PodView], ends: list[WorkerEnd]) -> None:
    """A gang with a hole in it: fail, or start the next generation."""
    seen, status = look.seen, look.seen.job.status
    end = telling(ends)
    if end.cause is Cause.PEER_LOST and any(not pod.finished for pod in gang.values()):
        finished = min(filter(None, (e.pod.ended.finished_at for e in ends if e.pod.ended)), default=None)
        patience = ROOT_CAUSE_PATIENCE_SECONDS - times.since(finished, seen.now)
        if finished is not None and patience > 0:
            look.look_again(min(patience, 1.0))
            return
    if end.cause.fatal:
        _fail(look, Reason.BAD_INPUT, end.message, end)
        return
    restarts = status.restarts or Restarts()
    allowed = seen.job.spec.failure_policy.max_restarts
    if end.cause.counted and restarts.counted >= allowed:
        text = f"{_sentence(end)}; maxRestarts {allowed} reached"
        _fail(look, Reason.RESTARTS_EXHAUSTED, text, end)
        return
    _take_report(look, always=True)
    draft = look.draft
    draft.set(
        failure=_failure(look, end),
        restarts=Restarts(
            counted=restarts.counted + int(end.cause.counted),
            uncounted=restarts.uncounted + int(not end.cause.counted),
        ),
    )
    reason = Reason.WORKER_FAILED if end.cause.counted else Reason.WORKER_LOST
    draft.false(ConditionType.RUNNING, Reason.NOT_RUNNING, _sentence(end))
    nodes = {place.node for place in status.placement}
    elsewhere = end.cause in (Cause.UNSCHEDULABLE, Cause.NODE_LOST, Cause.EVICTED, Cause.PREEMPTED)
    if elsewhere or nodes & (seen.unfit_nodes | seen.lost_nodes):
        draft.set(placement=(), queued_time=times.to_text(seen.now))
        draft.false(ConditionType.ADMITTED, Reason.NOT_ADMITTED, "needs a new place")
        draft.true(ConditionType.QUEUED, reason, f"{_sentence(end)}; waits for a new place")
        draft.true(ConditionType.RESTARTING, reason, _sentence(end))
    else:
        draft.set(generation=status.generation + 1)
        draft.true(
            ConditionType.RESTARTING, reason, f"{_sentence(end)}; generation {status.generation + 1} follows"
        )
    _reconciling(draft, True, "the gang is started again", reason)
    look.announce(reason, _sentence(end))
    _stop(look, list(gang.values()), all_of_them=True)
    look.look_again(1)


def _fence(look: _Look, old: list[PodView]) -> None:
    """Pods of an earlier generation exist: nothing of this one may, until they are gone."""
    _stop(look, old, all_of_them=True)
    look.look_again(5)


def _tell_running(look: _Look, gang: dict[int, PodView]) -> None:
    draft, seen = look.draft, look.seen
    count = len(gang)
    running = sum(pod.running or pod.phase == "Succeeded" for pod in gang.values())
    if running == count:
        if not draft.is_true(ConditionType.RUNNING) and draft.is_true(ConditionType.RESTARTING):
            look.announce(Reason.RESTARTED, f"generation {seen.job.status.generation} runs")
        draft.true(ConditionType.RUNNING, Reason.GANG_RUNNING, f"{count} of {count} workers run")
        draft.false(ConditionType.RESTARTING, Reason.RESTARTED if seen.job.status.restarts else None)
        _reconciling(draft, False)
        draft.false(ConditionType.STALLED)
        return
    stuck = next((p for p in gang.values() if p.waiting_reason in PULL_PROBLEMS), None) or next(
        (p for p in gang.values() if p.waiting_reason.endswith("Error")), None
    )
    if stuck is None:
        return  # starting: the status already says so, and a write per pod that starts would tell nobody more
    message = f"worker {stuck.rank} ({stuck.name}): {stuck.waiting_reason}: {stuck.waiting_message}"
    pull = stuck.waiting_reason in PULL_PROBLEMS
    reason = Reason.IMAGE_PULL_FAILED if pull else Reason.PODS_STARTING
    patience = look.settings.start_timeout_seconds - _age(stuck, seen)
    if stuck.waiting_reason == "InvalidImageName" or patience <= 0:
        cause = Cause.IMAGE_PULL if pull else Cause.USER_CODE
        _fail(look, reason, message, WorkerEnd(stuck, cause, message))
        return
    look.look_again(patience + _END_MARGIN_SECONDS)
    before = next((c for c in seen.job.status.conditions if c.type == ConditionType.RUNNING), None)
    if before is None or before.reason != reason:
        look.announce(reason, message)
        draft.false(ConditionType.RUNNING, reason, message)
        _reconciling(draft, True, message, reason)


def _refused(look: _Look, refusal: Refusal) -> None:
    """A child cannot be made: end if it never can be, else give the place back and try later."""
    gang = [pod for pod in look.seen.pods if not pod.finished]
    if refusal.final:
        look.draft.set(failure=_plain_failure(look, Cause.BAD_INPUT, refusal.message))
        _fail(look, Reason.REQUEST_REFUSED, refusal.message)
        return
    draft = look.draft
    _release(draft)
    draft.set(queued_time=times.to_text(look.seen.now))
    draft.true(ConditionType.QUEUED, Reason.REQUEST_REFUSED, refusal.message)
    _reconciling(draft, True, refusal.message, Reason.REQUEST_REFUSED)
    look.announce(Reason.REQUEST_REFUSED, refusal.message)
    _stop(look, gang, all_of_them=True)


# --- what the trainer says


def _take_report(look: _Look, *, always: bool = False) -> None:
    """Take the newest report into the status, not more often than is useful."""
    report, status = look.seen.report, look.seen.job.status
    if report is None or report.generation != status.generation:
        return
    if report.progress == status.progress and report.checkpoint in (None, status.last_checkpoint):
        return
    age = times.since(status.progress.time, look.seen.now) if status.progress else PROGRESS_EVERY_SECONDS
    if age < PROGRESS_EVERY_SECONDS and not always:
        look.look_again(PROGRESS_EVERY_SECONDS - age)
        return
    look.draft.set(progress=report.progress)
    if report.checkpoint is not None:
        look.draft.set(last_checkpoint=report.checkpoint)


def _take_last_word(look: _Look, first: PodView) -> None:
    """Take over what can be read of the last progress and checkpoint; the rest is no reason to lose the result."""
    said = termination(first) or {}
    if isinstance(progress := said.get("progress"), dict):
        with contextlib.suppress(ValidationError):
            look.draft.set(progress=read_progress(progress, look.seen.now))
    if isinstance(checkpoint := said.get("checkpoint"), dict):
        with contextlib.suppress(ValidationError):
            look.draft.set(last_checkpoint=LastCheckpoint.model_validate(checkpoint))


def read_progress(raw: dict[str, object], now: datetime.datetime) -> Progress:
    """A progress object as the trainer sends it, with the two fields that the operator adds.

    Raises:
        pydantic.ValidationError: it is not one.
    """
    progress = Progress.model_validate(raw)
    percent = None
    if progress.step is not None and progress.total_steps:
        percent = min(100, 100 * progress.step // progress.total_steps)
    return progress.model_copy(update={"percent": percent, "time": times.to_text(now)})


# --- small parts


def _make(look: _Look, places: tuple[Placement, ...], generation: int) -> None:
    job = look.seen.job
    if job.spec.workers.count > 1:
        # Not watched, so made anew with every generation: that it exists already costs one call and is no error.
        look.actions.append(Create(SERVICES, build.workers_service(job)))
    for place in places:
        pod = build.worker_pod(job, generation=generation, place=place, settings=look.settings)
        look.actions.append(Create(PODS, pod))


def _stop(look: _Look, pods: list[PodView], *, all_of_them: bool = False) -> None:
    """Delete pods: each once, and by force where the node that should confirm it is lost.

    Args:
        look: the look.
        pods: which.
        all_of_them: also those that have finished, to make room for the next generation.
    """
    for pod in pods:
        if not pod.uid or (pod.finished and not all_of_them):
            continue
        grace: int | None = None
        if pod.deleted_at is not None:
            overdue = times.since(pod.deleted_at, look.seen.now) > FORCE_AFTER_SECONDS
            if not (overdue and pod.node in look.seen.lost_nodes):
                continue
            grace = 0
        look.actions.append(Delete(PODS, pod.namespace, pod.name, pod.uid, grace))


def _reconciling(
    draft: StatusDraft, on: bool, message: str = "", reason: Reason = Reason.PROGRESSING
) -> None:
    if on:
        draft.true(ConditionType.RECONCILING, reason, message)
    else:
        draft.false(ConditionType.RECONCILING)


def _failure(look: _Look, end: WorkerEnd) -> Failure:
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


def _plain_failure(look: _Look, cause: Cause, message: str) -> Failure:
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


def _sentence(end: WorkerEnd) -> str:
    where = f" on {end.pod.node}" if end.pod.node else ""
    return f"worker {end.pod.rank} ({end.pod.name}{where}): {end.cause}: {end.message}"[:2048]


def _age(pod: PodView, seen: Seen) -> float:
    return times.since(pod.created_at, seen.now)
