"""What keeps a job without a place from getting one, whatever the planner says.

Claims that are missing or not bound, an object that an earlier job of the name left behind, and a back-off after nodes
that refused the gang. While one stands, the job neither waits in line nor keeps anything from others. All but the
back-off end by an event, so nobody asks again and again.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from datahall.api.conditions import ConditionType, find_condition
from datahall.api.reasons import Cause, Reason
from datahall.api.trainingjob import TrainingJob
from datahall.control import claims as pvc
from datahall.control import times
from datahall.control.claims import Claims
from datahall.control.training.seen import LeftBehind

BACK_OFF_FIRST_SECONDS = 30.0
BACK_OFF_LONGEST_SECONDS = 600.0
"""The second start in a row that nodes refuse is waited for 30 s, each further one twice as long."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a job cannot have a place now.

    Attributes:
        reason: the reason.
        message: the sentence.
        seconds: when it ends by itself; None where an event ends it.
    """

    reason: Reason
    message: str
    seconds: float | None = None


def obstacle(
    job: TrainingJob, *, claims: Claims, left_behind: LeftBehind | None, now: datetime.datetime
) -> Obstacle | None:
    """The first thing that is in a job's way.

    Args:
        job: a job that has no place.
        claims: what is wrong with its claims.
        left_behind: what an earlier job of its name left.
        now: the present time.
    """
    if claims.missing:
        return Obstacle(Reason.CLAIM_NOT_FOUND, pvc.not_found(claims.missing, job.metadata.namespace))
    if claims.stuck:
        return Obstacle(Reason.CLAIM_NOT_BOUND, pvc.not_bound(claims.stuck))
    if left_behind is not None:
        return Obstacle(Reason.NAME_IN_USE, left_behind.sentence)
    return _back_off(job, claims, now)


def _back_off(job: TrainingJob, claims: Claims, now: datetime.datetime) -> Obstacle | None:
    restarts, failure = job.status.restarts, job.status.failure
    refused = restarts.unschedulable or 0 if restarts is not None else 0
    if refused < 2 or failure is None or failure.time is None:
        return None  # the first refusal may be one node's alone
    restarting = find_condition(job.status.conditions, ConditionType.RESTARTING)
    for_claims = restarting is not None and restarting.reason == Reason.CLAIM_NOT_BOUND
    if failure.cause != Cause.UNSCHEDULABLE or (for_claims and not claims.unbound):
        return None  # what it failed for is over
    doublings = min(refused - 2, 16)
    patience = min(BACK_OFF_FIRST_SECONDS * 2.0**doublings, BACK_OFF_LONGEST_SECONDS)
    left = patience - times.since(failure.time, now)
    if left <= 0:
        return None
    at = times.to_text(times.from_text(failure.time) + datetime.timedelta(seconds=patience))
    reason = Reason.CLAIM_NOT_BOUND if for_claims else Reason.PLACE_REFUSED
    message = (
        f"{refused} starts in a row found no node; the next is tried at {at}. The last: {failure.message}"
    )
    return Obstacle(reason, message, left)
