"""The status of a TrainingJob, built up step by step and compared once with what stands there."""

from __future__ import annotations

import datetime
from typing import Any, Self

from datahall.api.conditions import ConditionType, find_condition, is_true, set_condition, training_job_state
from datahall.api.reasons import Reason
from datahall.api.trainingjob import TrainingJob, TrainingJobStatus
from datahall.control import times

_CALM = {
    ConditionType.QUEUED: Reason.NOT_STARTED,
    ConditionType.ADMITTED: Reason.NOT_ADMITTED,
    ConditionType.RUNNING: Reason.NOT_RUNNING,
    ConditionType.RESTARTING: Reason.NOT_RESTARTING,
    ConditionType.SUSPENDED: Reason.NOT_SUSPENDED,
    ConditionType.SUCCEEDED: Reason.NOT_FINISHED,
    ConditionType.FAILED: Reason.NOT_FINISHED,
    ConditionType.RECONCILING: Reason.UP_TO_DATE,
    ConditionType.STALLED: Reason.NOT_STALLED,
}
"""The reason of each condition while it is False and nothing more is to be said."""


class StatusDraft:
    """A TrainingJobStatus in the making. Not shared, not kept: one look, one draft."""

    def __init__(self, job: TrainingJob, now: datetime.datetime) -> None:
        self._before = job.status
        self._status = job.status
        self._generation = job.metadata.generation
        self._now = times.to_text(now)

    @property
    def value(self) -> TrainingJobStatus:
        """The draft as it stands."""
        return self._status

    def set(self, **fields: Any) -> Self:
        """Set plain fields."""
        self._status = self._status.model_copy(update=fields)
        return self

    def true(self, type_: ConditionType, reason: Reason, message: str = "") -> Self:
        """Set a condition to True."""
        return self._condition(type_, True, reason, message)

    def false(self, type_: ConditionType, reason: Reason | None = None, message: str = "") -> Self:
        """Set a condition to False; without a reason, to the calm one, and only if it stands there at all."""
        if reason is None:
            before = find_condition(self._status.conditions, type_)
            if before is None or before.status == "False":
                return self
        return self._condition(type_, False, reason or _CALM[type_], message)

    def is_true(self, type_: ConditionType) -> bool:
        """Whether a condition is True in the draft."""
        return is_true(self._status.conditions, type_)

    def finish(self) -> dict[str, Any] | None:
        """The status as JSON, or None if nothing but the look itself is new."""
        conditions = tuple(
            c
            if c.observed_generation == self._generation
            else c.model_copy(update={"observed_generation": self._generation})
            for c in self._status.conditions
        )
        done = self._status.model_copy(
            update={
                "observed_generation": self._generation,
                "conditions": conditions,
                "state": training_job_state(conditions),
            }
        )
        return None if done == self._before else done.to_json()

    def _condition(self, type_: ConditionType, status: bool, reason: Reason, message: str) -> Self:
        conditions = set_condition(
            self._status.conditions,
            type_=type_,
            status=status,
            reason=reason,
            message=message,
            generation=self._generation,
            now=self._now,
        )
        return self.set(conditions=conditions)
