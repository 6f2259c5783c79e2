"""A job that holds a place: fence off what is older, make what is missing, watch how it goes, start again.

How it ends early for another is in `making_way`.
"""

from __future__ import annotations

from datahall.api.conditions import ConditionType
from datahall.api.reasons import Cause, Reason
from datahall.api.trainingjob import Restarts
from datahall.control import times
from datahall.control.claims import not_bound
from datahall.control.training.causes import WorkerEnd, telling
from datahall.control.training.endings import fail
from datahall.control.training.failures import (
    BIND_PATIENCE_SECONDS,
    age_seconds,
    early_ends,
    failure_of,
    plain_failure,
    sentence,
)
from datahall.control.training.look import END_MARGIN_SECONDS, Look
from datahall.control.training.making_way import make_way
from datahall.control.training.progress import take_report
from datahall.control.training.seen import Refusal
from datahall.control.views import PULL_PROBLEMS, PodView

ROOT_CAUSE_PATIENCE_SECONDS = 10.0
"""How long to wait, after a worker says only that it lost a peer, for the peer's own word."""

CLAIM_PATIENCE_SECONDS = 10.0
"""How long a volume that is made for a pod may take before the status says what is waited for."""


def run(look: Look) -> None:
    """It holds a place: fence, make what is missing, watch how it goes."""
    seen, status = look.seen, look.seen.job.status
    if seen.refusal is not None:
        _refused(look, seen.refusal)
        return
    uid = seen.job.metadata.uid
    gang = look.gang()
    ends = early_ends(look, gang)
    if seen.eviction is not None and not ends:
        make_way(look, seen.eviction)
        return
    old = [pod for pod in seen.pods if pod.generation < status.generation or pod.owner_uid != uid]
    if old:
        _fence(look, old)
        return
    if ends:
        _broken(look, gang, ends)
        return
    missing = [place for place in status.placement if place.rank not in gang]
    if missing and seen.left_behind is not None:
        look.reconciling(seen.left_behind.sentence, Reason.NAME_IN_USE)
        return
    if missing:
        look.make(tuple(missing), status.generation)
        return
    _tell_running(look, gang)
    if 0 in gang:
        take_report(look)


def _broken(look: Look, gang: dict[int, PodView], ends: list[WorkerEnd]) -> None:
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
        fail(look, Reason.BAD_INPUT, end.message, end)
        return
    restarts = status.restarts or Restarts()
    allowed = seen.job.spec.failure_policy.max_restarts
    if end.cause.counted and restarts.counted >= allowed:
        text = f"{sentence(end)}; maxRestarts {allowed} reached"
        fail(look, Reason.RESTARTS_EXHAUSTED, text, end)
        return
    take_report(look, always=True)
    draft = look.draft
    refused = end.cause is Cause.UNSCHEDULABLE
    draft.set(
        failure=failure_of(look, end),
        restarts=Restarts(
            counted=restarts.counted + int(end.cause.counted),
            uncounted=restarts.uncounted + int(not end.cause.counted),
            unschedulable=(restarts.unschedulable or 0) + 1 if refused else None,
        ),
    )
    reason = Reason.WORKER_FAILED if end.cause.counted else Reason.WORKER_LOST
    if refused and seen.claims.unbound:
        reason = Reason.CLAIM_NOT_BOUND
    draft.false(ConditionType.RUNNING, Reason.NOT_RUNNING, sentence(end))
    nodes = {place.node for place in status.placement}
    elsewhere = end.cause in (Cause.UNSCHEDULABLE, Cause.NODE_LOST, Cause.EVICTED, Cause.PREEMPTED)
    if elsewhere or seen.eviction is not None or nodes & (seen.unfit_nodes | seen.lost_nodes):
        look.give_back()
        draft.set(queued_time=times.to_text(seen.now))
        draft.false(ConditionType.ADMITTED, Reason.NOT_ADMITTED, "needs a new place")
        draft.true(ConditionType.QUEUED, reason, f"{sentence(end)}; waits for a new place")
        draft.true(ConditionType.RESTARTING, reason, sentence(end))
    else:
        draft.set(generation=status.generation + 1)
        draft.true(
            ConditionType.RESTARTING, reason, f"{sentence(end)}; generation {status.generation + 1} follows"
        )
    look.reconciling("the gang is started again", reason)
    look.announce(reason, sentence(end))
    look.stop(list(gang.values()), all_of_them=True)
    look.look_again(1)


def _fence(look: Look, old: list[PodView]) -> None:
    """Pods of an earlier generation exist: nothing of this one may, until they are gone."""
    look.stop(old, all_of_them=True)
    look.look_again(5)


def _tell_running(look: Look, gang: dict[int, PodView]) -> None:
    draft, seen = look.draft, look.seen
    count = len(gang)
    running = sum(pod.running or pod.phase == "Succeeded" for pod in gang.values())
    if running == count:
        if not draft.is_true(ConditionType.RUNNING) and draft.is_true(ConditionType.RESTARTING):
            look.announce(Reason.RESTARTED, f"generation {seen.job.status.generation} runs")
        draft.true(ConditionType.RUNNING, Reason.GANG_RUNNING, f"{count} of {count} workers run")
        draft.false(ConditionType.RESTARTING, Reason.RESTARTED if seen.job.status.restarts else None)
        draft.false(ConditionType.RECONCILING)
        draft.false(ConditionType.STALLED)
        look.end_back_off()
        return
    stuck = next((p for p in gang.values() if p.waiting_reason in PULL_PROBLEMS), None) or next(
        (p for p in gang.values() if p.waiting_reason.endswith("Error")), None
    )
    if stuck is None:
        _tell_starting(look, gang)
        return
    message = f"worker {stuck.rank} ({stuck.name}): {stuck.waiting_reason}: {stuck.waiting_message}"
    pull = stuck.waiting_reason in PULL_PROBLEMS
    reason = Reason.IMAGE_PULL_FAILED if pull else Reason.PODS_STARTING
    patience = look.settings.start_timeout_seconds - age_seconds(stuck, seen)
    if stuck.waiting_reason == "InvalidImageName" or patience <= 0:
        cause = Cause.IMAGE_PULL if pull else Cause.USER_CODE
        fail(look, reason, message, WorkerEnd(stuck, cause, message))
        return
    look.look_again(patience + END_MARGIN_SECONDS)
    before = next((c for c in seen.job.status.conditions if c.type == ConditionType.RUNNING), None)
    if before is None or before.reason != reason:
        look.announce(reason, message)
        draft.false(ConditionType.RUNNING, reason, message)
        look.reconciling(message, reason)


def _tell_starting(look: Look, gang: dict[int, PodView]) -> None:
    """Say what pods without a node wait for, where that is known.

    Otherwise the status already says that they start, and a write per pod would tell nobody more.
    """
    seen = look.seen
    homeless = [pod for pod in gang.values() if not pod.bound and not pod.finished]
    if not homeless:
        return
    oldest = max(age_seconds(pod, seen) for pod in homeless)
    if any(pod.unschedulable for pod in homeless):
        look.look_again(BIND_PATIENCE_SECONDS - oldest + END_MARGIN_SECONDS)
    if not seen.claims.unbound:
        return
    if oldest < CLAIM_PATIENCE_SECONDS:
        look.look_again(CLAIM_PATIENCE_SECONDS - oldest + END_MARGIN_SECONDS)
        return
    look.reconciling(
        f"{len(homeless)} of {len(gang)} pods have no node yet: {not_bound(seen.claims.unbound)}",
        Reason.CLAIM_NOT_BOUND,
    )


def _refused(look: Look, refusal: Refusal) -> None:
    """A child cannot be made: end if it never can be, else give the place back and try later."""
    gang = [pod for pod in look.seen.pods if not pod.finished]
    if refusal.final:
        look.draft.set(failure=plain_failure(look, Cause.BAD_INPUT, refusal.message))
        fail(look, Reason.REQUEST_REFUSED, refusal.message)
        return
    draft = look.draft
    look.release()
    draft.set(queued_time=times.to_text(look.seen.now))
    draft.true(ConditionType.QUEUED, Reason.REQUEST_REFUSED, refusal.message)
    look.reconciling(refusal.message, Reason.REQUEST_REFUSED)
    look.announce(Reason.REQUEST_REFUSED, refusal.message)
    look.stop(gang, all_of_them=True)
