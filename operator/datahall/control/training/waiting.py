"""A job without a place: why it waits, and how it takes the place that the planner has found."""

from __future__ import annotations

from datahall.api.conditions import ConditionType, is_true
from datahall.api.reasons import Reason
from datahall.api.trainingjob import Placement
from datahall.control import times
from datahall.control.training.look import END_MARGIN_SECONDS, Look
from datahall.control.training.obstacles import obstacle
from datahall.control.training.seen import LeftBehind
from datahall.control.views import PodView

WAIT_MESSAGE_EVERY_SECONDS = 15.0
"""Shortest time between two status writes that change only the numbers of a waiting message."""


def wait(look: Look) -> None:
    """It holds no place: tell why, or take the place that the planner has found."""
    seen, draft = look.seen, look.draft
    left_behind = seen.left_behind
    leaving = [pod for pod in seen.pods if not pod.finished]
    if leaving:
        # What it held is not free yet; only then may it wait in line for something new.
        look.stop(leaving)
        look.look_again(5)
        left_behind = left_behind or _left_behind(look, leaving)
    in_the_way = obstacle(seen.job, claims=seen.claims, left_behind=left_behind, now=seen.now)
    if not leaving and in_the_way is None and seen.refusal is None:
        if seen.admitted is not None:
            _admit(look, seen.admitted)
            return
        if seen.waiting is None:
            # The planner has not looked at it yet. Its answer comes within a moment and makes one write, not two.
            look.silent = not is_true(seen.job.status.conditions, ConditionType.SUSPENDED)
            return
    if seen.job.status.queued_time is None:
        draft.set(queued_time=times.to_text(seen.now))
    if in_the_way is not None:
        _tell_waiting(look, in_the_way.reason, in_the_way.message)
        if in_the_way.seconds is not None:
            look.look_again(in_the_way.seconds + END_MARGIN_SECONDS)
    elif seen.refusal is not None:
        _tell_waiting(look, Reason.REQUEST_REFUSED, seen.refusal.message)
    elif seen.waiting is not None:
        _tell_waiting(look, seen.waiting.reason, seen.waiting.message)


def _left_behind(look: Look, leaving: list[PodView]) -> LeftBehind | None:
    """The first of the pods that are not this job's: of one that had its name before."""
    uid = look.seen.job.metadata.uid
    for pod in leaving:
        if pod.owner_uid != uid:
            return LeftBehind("Pod", pod.name, pod.owner_uid)
    return None


def _tell_waiting(look: Look, reason: Reason, message: str) -> None:
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
    look.reconciling(message, reason)


def _admit(look: Look, places: tuple[Placement, ...]) -> None:
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
    look.reconciling("pods are being created", Reason.PODS_STARTING)
    if not look.seen.pods:  # else the fence comes first
        look.make(places, generation)
