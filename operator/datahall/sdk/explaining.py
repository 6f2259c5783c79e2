"""Why an object is in the state it is in, in one word and one sentence: pure functions over a status."""

from __future__ import annotations

from dataclasses import dataclass

from datahall.api.conditions import (
    ConditionType,
    find_condition,
    inference_service_state,
    training_job_state,
)
from datahall.api.inferenceservice import InferenceService
from datahall.api.trainingjob import TrainingJob
from datahall.sdk.kinds import Typed, Workload

_NOT_SEEN = "the operator has not looked at it yet; if this lasts, is the operator running?"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why.

    Attributes:
        reason: one word of the reason catalogue, "" where there is none yet.
        message: a sentence for a person, with numbers where it waits; may be empty.
    """

    reason: str
    message: str


def state_of(thing: Typed) -> str:
    """The state in one word, from the conditions where the status does not say it."""
    if isinstance(thing, TrainingJob):
        return thing.status.state or training_job_state(thing.status.conditions)
    if isinstance(thing, InferenceService):
        return thing.status.state or inference_service_state(thing.status.conditions)
    ready = find_condition(thing.status.conditions, ConditionType.READY)
    if ready is None:
        return "Pending"
    return "Ready" if ready.status == "True" else ready.reason


def explanation(thing: Typed) -> Explanation:
    """Why the object is in its state: the condition that answers it."""
    if not thing.status.conditions:
        return Explanation("", _NOT_SEEN)
    for type_ in _telling_conditions(thing):
        condition = find_condition(thing.status.conditions, type_)
        if condition is not None and condition.message:
            return Explanation(condition.reason, condition.message)
    return Explanation("", "")


def failure_sentence(workload: Workload) -> str:
    """`TrainingJob digits failed: BadInput: no such directory (pod digits-g1-0 on node n1, rank 0, exit code 65)`."""
    failure, why = workload.status.failure, explanation(workload)
    verb = "failed" if isinstance(workload, TrainingJob) else "cannot serve"
    title = f"{workload.kind} {workload.metadata.name} {verb}"
    message = (failure.message if failure else None) or why.message
    cause = (failure.cause if failure else None) or why.reason
    told = [part for part in (title, cause, message) if part]
    where = failure_place(workload)
    return ": ".join(told) + (f" ({where})" if where else "")


def failure_place(workload: Workload) -> str:
    """Where it failed and how the process ended: `pod digits-g1-0 on node n1, rank 0, exit code 65`."""
    failure = workload.status.failure
    if failure is None:
        return ""
    parts: list[str] = []
    node = getattr(failure, "node", None)
    if failure.pod:
        parts.append(f"pod {failure.pod}" + (f" on node {node}" if node else ""))
    rank, signal = getattr(failure, "rank", None), getattr(failure, "signal", None)
    if rank is not None:
        parts.append(f"rank {rank}")
    if failure.exit_code is not None:
        parts.append(f"exit code {failure.exit_code}")
    if signal:
        parts.append(f"signal {signal}")
    return ", ".join(parts)


def _telling_conditions(thing: Typed) -> list[ConditionType]:
    """The conditions that may hold the answer, the best first."""
    true = {condition.type for condition in thing.status.conditions if condition.status == "True"}
    false = {condition.type for condition in thing.status.conditions if condition.status == "False"}
    stalled = [ConditionType.STALLED] if ConditionType.STALLED in true else []
    if isinstance(thing, TrainingJob):
        for final in (ConditionType.SUCCEEDED, ConditionType.FAILED, ConditionType.SUSPENDED):
            if final in true:
                return [final]
        if ConditionType.RUNNING in true:
            return [*stalled, ConditionType.RUNNING]
        if ConditionType.RESTARTING in true:
            return [*stalled, ConditionType.RESTARTING]
        if ConditionType.ADMITTED in true:
            return [*stalled, ConditionType.RUNNING, ConditionType.ADMITTED]
        return [*stalled, ConditionType.QUEUED]
    if isinstance(thing, InferenceService):
        parts = (ConditionType.MODEL_READY, ConditionType.GPU_AVAILABLE, ConditionType.REPLICAS_READY)
        return [*stalled, *(part for part in parts if part in false), ConditionType.READY]
    return [ConditionType.READY]
