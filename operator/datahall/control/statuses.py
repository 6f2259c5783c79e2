"""A status in the making: changed step by step during one look, compared once with what stands there."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any, Generic, Self, TypeVar

from datahall.api.common import Condition
from datahall.api.conditions import ConditionType, find_condition, is_true, set_condition
from datahall.api.inferenceservice import InferenceServiceStatus
from datahall.api.reasons import Reason
from datahall.api.trainingjob import TrainingJobStatus
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

S = TypeVar("S", TrainingJobStatus, InferenceServiceStatus)


class StatusDraft(Generic[S]):
    """The status of one object. Not shared, not kept: one look, one draft."""

    def __init__(
        self,
        status: S,
        *,
        generation: int,
        now: datetime.datetime,
        state: Callable[[Iterable[Condition]], str],
    ) -> None:
        """Start from what stands there.

        Args:
            status: the present status.
            generation: metadata.generation of the spec that is looked at.
            now: the present time.
            state: sums the conditions up in one word.
        """
        self._before: S = status
        self._status: S = status
        self._generation = generation
        self._now = times.to_text(now)
        self._state = state

    @property
    def value(self) -> S:
        """The draft as it stands."""
        return self._status

    def set(self, **fields: Any) -> Self:
        """Set plain fields."""
        self._status = self._status.model_copy(update=fields)
        return self

    def condition(self, type_: ConditionType, status: bool | None, reason: Reason, message: str = "") -> Self:
        """Set a condition; None is Unknown."""
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

    def true(self, type_: ConditionType, reason: Reason, message: str = "") -> Self:
        """Set a condition to True."""
        return self.condition(type_, True, reason, message)

    def false(self, type_: ConditionType, reason: Reason | None = None, message: str = "") -> Self:
        """Set a condition to False; without a reason, to the calm one, and only if it is there and not False."""
        if reason is None:
            before = self.find(type_)
            if before is None or before.status == "False":
                return self
        return self.condition(type_, False, reason or _CALM[type_], message)

    def find(self, type_: ConditionType) -> Condition | None:
        """A condition as it stands in the draft."""
        return find_condition(self._status.conditions, type_)

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
                "state": self._state(conditions),
            }
        )
        return None if done == self._before else done.to_json()
