"""The end of a job: how it succeeds, how it fails, and what is still to be done afterwards."""

from __future__ import annotations

from datahall.api.conditions import ConditionType
from datahall.api.reasons import Cause, Reason
from datahall.api.trainingjob import TrainedModel, TrainingJobStatus
from datahall.control import times
from datahall.control.actions import Delete
from datahall.control.statuses import StatusDraft
from datahall.control.training.causes import WorkerEnd, termination
from datahall.control.training.failures import failure_of, plain_failure, sentence
from datahall.control.training.look import END_MARGIN_SECONDS, Look
from datahall.control.training.progress import output_of, take_last_word
from datahall.control.views import PodView
from datahall.kube.resources import TRAINING_JOBS

STRAGGLER_PATIENCE_SECONDS = 60.0
"""How long the other workers may take to leave once worker 0 has the result."""


def finished(look: Look) -> bool:
    """End the job if the gang has done its work."""
    job, gang = look.seen.job, look.gang()
    first = gang.get(0)
    if first is None or first.phase != "Succeeded":
        return False
    said = termination(first)
    output = output_of(said) if said and said.get("result") == "Succeeded" else None
    if not job.status.placement and (output is None or job.spec.container is not None):
        return False  # it was told to stop, and stopped: only a whole result makes an end of that
    others = [pod for rank, pod in gang.items() if rank and pod.phase != "Succeeded"]
    if job.spec.container is None:
        if output is None:
            end = WorkerEnd(first, Cause.USER_CODE, "worker 0 ended with exit code 0 but left no result")
            fail(look, Reason.WORKER_FAILED, sentence(end), end)
            return True
        running = [pod for pod in others if not pod.finished and pod.deleted_at is None]
        ended = first.ended.finished_at if first.ended else None
        patience = STRAGGLER_PATIENCE_SECONDS - times.since(ended, look.seen.now)
        if running and patience > 0:
            # The result is safe; give the others the time to leave by themselves.
            look.look_again(patience + END_MARGIN_SECONDS)
            return True
        _succeed(look, first, output)
        return True
    if len(gang) == len(job.status.placement) and not others:
        _succeed(look, first, output)
        return True
    return False


def _succeed(look: Look, first: PodView | None, output: TrainedModel | None) -> None:
    draft = look.draft
    if first is not None:
        take_last_word(look, first)
    message = (
        f"output {output.uri}, digest {output.digest}" if output else "all workers ended with exit code 0"
    )
    draft.set(output=output, completion_time=times.to_text(look.seen.now))
    _settle(draft)
    draft.true(ConditionType.SUCCEEDED, Reason.TRAINING_SUCCEEDED, message)
    look.announce(Reason.TRAINING_SUCCEEDED, message)
    look.stop([pod for pod in look.seen.pods if not pod.finished])


def fail(look: Look, reason: Reason, message: str, end: WorkerEnd | None = None) -> None:
    """The job has ended without a model; `end` is the worker that made it so, if one did."""
    now = times.to_text(look.seen.now)
    draft = look.draft
    if end is not None:
        draft.set(failure=failure_of(look, end))
    elif reason is Reason.DEADLINE_EXCEEDED:
        draft.set(failure=plain_failure(look, Cause.DEADLINE, message))
    draft.set(completion_time=now)
    _settle(draft)
    draft.true(ConditionType.FAILED, reason, message).true(ConditionType.STALLED, reason, message)
    look.announce(reason, message)
    look.stop([pod for pod in look.seen.pods if not pod.finished])


def _settle(draft: StatusDraft[TrainingJobStatus]) -> None:
    """Nothing of a job that ended says that anything is still going on; how many workers it had is kept."""
    draft.set(placement=(), spread=None, waiting=None)
    for type_ in (
        ConditionType.QUEUED,
        ConditionType.ADMITTED,
        ConditionType.RUNNING,
        ConditionType.RESTARTING,
        ConditionType.SUSPENDED,
        ConditionType.RECONCILING,
    ):
        draft.false(type_)


def past_deadline(look: Look) -> bool:
    """Whether activeDeadlineSeconds have passed; if not, the look is repeated when they have."""
    limit, started = look.seen.job.spec.active_deadline_seconds, look.seen.job.status.start_time
    if limit is None or started is None:
        return False
    left = limit - times.since(started, look.seen.now)
    if left > 0:
        look.look_again(left + END_MARGIN_SECONDS)
    return left <= 0


def deadline_message(look: Look) -> str:
    """What a job that ran out of time says."""
    limit = look.seen.job.spec.active_deadline_seconds
    return f"activeDeadlineSeconds: {limit} s have passed since {look.seen.job.status.start_time}"


def after_the_end(look: Look) -> None:
    """Stop what still runs, keep finished pods for their logs, delete the job when its time has come."""
    job = look.seen.job
    look.stop([pod for pod in look.seen.pods if not pod.finished])
    ttl = job.spec.ttl_seconds_after_finished
    if ttl is not None:
        left = ttl - times.since(job.status.completion_time, look.seen.now)
        if left > 0:
            look.look_again(left + END_MARGIN_SECONDS)
        else:
            meta = job.metadata
            look.actions.append(Delete(TRAINING_JOBS, meta.namespace, meta.name, meta.uid))
