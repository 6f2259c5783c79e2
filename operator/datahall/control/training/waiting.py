"""A job without a place: why it waits, and how it takes the place that the planner has found.

What is told of a wait has numbers, and those of ten thousand waiting jobs move at every start and end. So numbers alone
are written at set times only: often for those at the head of a line, seldom far behind, where they say little. That
keeps all the writes of a line below one a second however long it is.
"""

from __future__ import annotations

import datetime
import zlib

from datahall.api import trainingjob_status as api
from datahall.api.conditions import ConditionType, is_true
from datahall.api.reasons import Reason
from datahall.api.trainingjob import Placement
from datahall.control import times
from datahall.control.training.look import END_MARGIN_SECONDS, Look
from datahall.control.training.obstacles import obstacle
from datahall.control.training.seen import Blocker, LeftBehind, Waiting
from datahall.control.views import PodView
from datahall.planning.move_plans import MovePlan

WAIT_MESSAGE_EVERY_SECONDS = 15.0
"""Shortest time between two status writes that change only the numbers of a waiting message, per place in line."""

WAIT_MESSAGE_LONGEST_SECONDS = 3600.0
"""The longest such time."""

IN_LINE = frozenset(
    {
        Reason.QUOTA_EXCEEDED,
        Reason.BORROWED_AWAY,
        Reason.POWER_BUDGET,
        Reason.ENERGY_BUDGET,
        Reason.NO_ROOM,
        Reason.TOPOLOGY_NO_ROOM,
        Reason.WAITING_IN_LINE,
        Reason.RESERVED_FOR_OTHER,
    }
)
"""Reasons of those who just wait for their turn. They change into each other as others come and go: like numbers."""

_EVENTS_UP_TO_POSITION = 3
"""Those further behind are told of in status alone: an Event for each of ten thousand would tell nobody more."""

_ON_TIME_SECONDS = 1.0
_BLOCKERS = 8
_BLOCKER_LENGTH = 1024
_MOVES = 64
_NODES = 8
_STARTS_STEP_SECONDS = 60
"""An expected start is told to the minute: it is an estimate, and would move at every look."""


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
            _admit(look, seen.admitted, seen.spread)
            return
        if seen.waiting is None:
            # The planner has not looked at it yet. Its answer comes within a moment and makes one write, not two.
            look.silent = not is_true(seen.job.status.conditions, ConditionType.SUSPENDED)
            return
    if seen.job.status.queued_time is None:
        draft.set(queued_time=times.to_text(seen.now))
    if in_the_way is not None:
        _tell_waiting(look, Waiting(in_the_way.reason, in_the_way.message))
        if in_the_way.seconds is not None:
            look.look_again(in_the_way.seconds + END_MARGIN_SECONDS)
    elif seen.refusal is not None:
        _tell_waiting(look, Waiting(Reason.REQUEST_REFUSED, seen.refusal.message))
    elif seen.waiting is not None:
        _tell_waiting(look, seen.waiting)


def _left_behind(look: Look, leaving: list[PodView]) -> LeftBehind | None:
    """The first of the pods that are not this job's: of one that had its name before."""
    uid = look.seen.job.metadata.uid
    for pod in leaving:
        if pod.owner_uid != uid:
            return LeftBehind("Pod", pod.name, pod.owner_uid)
    return None


def _tell_waiting(look: Look, answer: Waiting) -> None:
    """Say why it waits: another reason at once, other numbers now and then."""
    reason, draft = answer.reason, look.draft
    before, after = draft.find(ConditionType.QUEUED), told(look, answer)
    known = before is not None and before.status == "True"
    if before is not None and before.reason != reason:
        known = known and answer.position is not None and {before.reason, reason} <= IN_LINE
    if known and draft.value.waiting not in (None, after):
        left = _until_due(look, answer)
        if left > 0:
            look.look_again(left)
            return
    near = answer.position is None or answer.position <= _EVENTS_UP_TO_POSITION
    if not known and (near or reason not in IN_LINE):
        # What happens to others is told as what it is: to whom it happens hears of it as well.
        look.announce(Reason.PREEMPTING if reason is Reason.MAKING_ROOM else reason, answer.message)
    draft.true(ConditionType.QUEUED, reason, answer.message)
    draft.set(waiting=after)
    look.reconciling(answer.message, reason)
    if answer.position is not None:
        look.look_again(_until_due(look, answer) or _every_seconds(answer))


def told(look: Look, answer: Waiting) -> api.Waiting:
    """`status.waiting` for why a job waits."""
    blockers = answer.blockers or (Blocker(answer.reason, answer.message),)
    return api.Waiting(
        position=answer.position,
        reason=str(answer.reason),
        starts_at=None if answer.starts_seconds is None else _to_the_minute(answer.starts_seconds),
        blockers=tuple(
            api.Blocker(reason=str(b.reason), message=b.message[:_BLOCKER_LENGTH])
            for b in blockers[:_BLOCKERS]
        ),
        moves=None if answer.moves is None else _moves(answer.moves),
        since_time=look.draft.value.queued_time,
    )


def _moves(plan: MovePlan) -> api.Moves:
    return api.Moves(
        jobs=tuple(
            api.Move(
                job=move.name,
                from_nodes=move.source[:_NODES],
                to_nodes=move.target[:_NODES],
                gpu_seconds=_two_digits(move.gpu_seconds),
            )
            for move in plan.moves[:_MOVES]
        ),
        gpu_seconds=_two_digits(plan.gpu_seconds),
        due_time=_to_the_minute(plan.due_seconds),
    )


def _to_the_minute(seconds: float) -> str:
    minutes = -(-seconds // _STARTS_STEP_SECONDS)
    return times.to_text(datetime.datetime.fromtimestamp(minutes * _STARTS_STEP_SECONDS, datetime.UTC))


def _two_digits(number: int) -> int:
    """A number with its two leading digits, rounded up: work that is not saved yet grows at every look."""
    unit: int = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


def _every_seconds(answer: Waiting) -> float:
    return min(WAIT_MESSAGE_EVERY_SECONDS * (answer.position or 1), WAIT_MESSAGE_LONGEST_SECONDS)


def _until_due(look: Look, answer: Waiting) -> float:
    """Seconds until new numbers may be written; 0 for now. Each job has its own times, or all would write at once."""
    every = _every_seconds(answer)
    offset = zlib.crc32(look.seen.job.metadata.uid.encode()) % every
    into = (look.seen.now.timestamp() - offset) % every
    return 0.0 if into <= _ON_TIME_SECONDS else every - into


def _admit(look: Look, places: tuple[Placement, ...], spread: str) -> None:
    """Write the place down. The pods come with the next look, after this write has gone through."""
    draft, status = look.draft, look.seen.job.status
    generation = max([status.generation, *(pod.generation for pod in look.seen.pods)]) + 1
    now = times.to_text(look.seen.now)
    draft.set(placement=places, workers=len(places), spread=spread[:256] or None, waiting=None)
    draft.set(generation=generation, start_time=status.start_time or now)
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
