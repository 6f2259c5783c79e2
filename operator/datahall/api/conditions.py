"""Conditions: which there are, how one is set, and the one word that sums them up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

from .common import Condition

_LONGEST_MESSAGE = 4096


class ConditionType(StrEnum):
    """Every condition of every kind."""

    # TrainingJob
    QUEUED = "Queued"
    ADMITTED = "Admitted"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    # InferenceService; Ready is Queue's and PowerDomain's as well
    READY = "Ready"
    MODEL_READY = "ModelReady"
    REPLICAS_READY = "ReplicasReady"
    GPU_AVAILABLE = "GPUAvailable"
    # Abnormal when True, for tools that know kstatus
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


TRAINING_JOB_CONDITIONS: dict[ConditionType, str] = {
    ConditionType.QUEUED: "The job waits in its queue for quota or room; the message says for how much.",
    ConditionType.ADMITTED: "Quota is reserved and every worker has a node.",
    ConditionType.RUNNING: "Every worker of the gang runs.",
    ConditionType.RESTARTING: "A worker ended early: the whole gang starts again from the last checkpoint.",
    ConditionType.SUSPENDED: "The job is stopped at its user's wish and holds nothing.",
    ConditionType.SUCCEEDED: "The trained model is complete. Final.",
    ConditionType.FAILED: "The job has ended without a model; status.failure says why. Final.",
    ConditionType.RECONCILING: "The operator has not caught up with the spec yet.",
    ConditionType.STALLED: "Only a person can help; the message says how.",
}
"""What each condition of a TrainingJob means when it is True."""

INFERENCE_SERVICE_CONDITIONS: dict[ConditionType, str] = {
    ConditionType.READY: "As many replicas as the spec asks for answer requests, and none ends again and again.",
    ConditionType.MODEL_READY: "The model to serve is known and complete.",
    ConditionType.REPLICAS_READY: "As many replicas as asked for answer; in a roll-out, some with the version before.",
    ConditionType.GPU_AVAILABLE: "The queue's quota and the nodes have the GPUs that the replicas need.",
    ConditionType.RECONCILING: "The operator has not caught up with the spec yet, or replicas are being replaced.",
    ConditionType.STALLED: "Only a person can help; the message says how.",
}
"""What each condition of an InferenceService means when it is True."""

POWER_DOMAIN_CONDITIONS: dict[ConditionType, str] = {
    ConditionType.READY: "Work is started on all of its nodes, within its budget.",
    ConditionType.STALLED: "Only a person can help; the message says how.",
}
"""What each condition of a PowerDomain means when it is True."""

QUEUE_CONDITIONS: dict[ConditionType, str] = {
    ConditionType.READY: "The operator admits work against this quota.",
}
"""What each condition of a Queue means when it is True."""


def find_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of that type. By type, never by place: tools reorder the list."""
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether the condition is there and True. Absent and Unknown are not."""
    condition = find_condition(conditions, type_)
    return condition is not None and condition.status == "True"


def set_condition(
    conditions: Sequence[Condition],
    *,
    type_: str,
    status: bool | None,
    reason: str,
    message: str = "",
    generation: int,
    now: str,
) -> tuple[Condition, ...]:
    """The conditions with one of them set; the others, and the order, stay as they are.

    Args:
        conditions: What stands there now.
        type_: Which one to set.
        status: None means Unknown.
        reason: A word of the catalogue.
        message: A sentence; cut if far too long.
        generation: metadata.generation of the object that was looked at.
        now: The present time, RFC 3339. It is used only if the status flips: the time of a transition is not the
            time of the last look.
    """
    text = {True: "True", False: "False", None: "Unknown"}[status]
    before = find_condition(conditions, type_)
    after = Condition(
        type=type_,
        status=text,
        reason=str(reason),
        message=message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 3]}...",
        observed_generation=generation,
        last_transition_time=before.last_transition_time
        if before is not None and before.status == text
        else now,
    )
    if before is None:
        return (*conditions, after)
    return tuple(after if condition is before else condition for condition in conditions)


# Read from the top: the first condition that is True gives the word.
_TRAINING_JOB_STATES = (
    (ConditionType.SUCCEEDED, "Succeeded"),
    (ConditionType.FAILED, "Failed"),
    (ConditionType.SUSPENDED, "Suspended"),
    (ConditionType.RUNNING, "Running"),
    (
        ConditionType.QUEUED,
        "Queued",
    ),  # also a gang that restarts elsewhere: what it waits for is what matters
    (ConditionType.RESTARTING, "Restarting"),
    (ConditionType.ADMITTED, "Starting"),
)


def training_job_state(conditions: Iterable[Condition]) -> str:
    """The `status.state` of a TrainingJob."""
    true = {condition.type for condition in conditions if condition.status == "True"}
    return next((state for type_, state in _TRAINING_JOB_STATES if type_ in true), "Pending")


def inference_service_state(conditions: Iterable[Condition]) -> str:
    """The `status.state` of an InferenceService."""
    by_type = {condition.type: condition.status for condition in conditions}
    if by_type.get(ConditionType.STALLED) == "True":
        return "Stalled"
    if by_type.get(ConditionType.READY) == "True":
        return "Ready"
    if by_type.get(ConditionType.MODEL_READY) == "False":
        return "WaitingForModel"
    if by_type.get(ConditionType.GPU_AVAILABLE) == "False":
        return "Queued"
    return "Progressing" if by_type else "Pending"
