"""Waiting for a state: what counts as reached, what can never be reached, and the wait itself, by watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from datahall.api.conditions import (
    INFERENCE_SERVICE_CONDITIONS,
    TRAINING_JOB_CONDITIONS,
    ConditionType,
    find_condition,
)
from datahall.api.inferenceservice import InferenceService
from datahall.api.reasons import Reason
from datahall.api.trainingjob import TrainingJob
from datahall.kube import KubeClient
from datahall.sdk.errors import JobFailed, MisuseError, NotFoundError, WaitTimeout
from datahall.sdk.explaining import explanation, failure_sentence, state_of
from datahall.sdk.kinds import INFERENCE_SERVICE, TRAINING_JOB, Kind, Workload, typed
from datahall.sdk.watching import snapshots

DELETED = "Deleted"
"""Not a condition: what `wait` calls the absence of the object."""

_FINAL = {ConditionType.SUCCEEDED, ConditionType.FAILED}
_ON_THE_WAY_TO_SUCCESS = {ConditionType.QUEUED, ConditionType.ADMITTED, ConditionType.RUNNING}
_HOPELESS = {
    Reason.TRAINING_JOB_FAILED,
    Reason.NO_TRAINED_MODEL,
    Reason.BAD_INPUT,
    Reason.INVALID_SPEC,
    Reason.REPLICA_FAILING,
    Reason.IMAGE_PULL_FAILED,
}
"""Why an InferenceService that is stalled will stay so. A Queue or a TrainingJob that is missing may yet be made."""


def wanted_state(kind: Kind, for_: str | None) -> str:
    """The condition type that `for_` means, whatever its case; the happy end of the kind for None.

    Raises:
        MisuseError: the kind has no such condition.
    """
    by_kind = {TRAINING_JOB: TRAINING_JOB_CONDITIONS, INFERENCE_SERVICE: INFERENCE_SERVICE_CONDITIONS}
    if kind not in by_kind:
        raise MisuseError(f"a {kind.name} has no state to wait for")
    if for_ is None:
        return str(ConditionType.SUCCEEDED if kind is TRAINING_JOB else ConditionType.READY)
    names = [*map(str, by_kind[kind]), DELETED]
    for name in names:
        if name.lower() == for_.lower():
            return name
    raise MisuseError(f"a {kind.name} is never {for_!r}; it can be {', '.join(names)}")


def reached(workload: Workload, wanted: str) -> bool:
    """Whether the object is in the wanted state.

    A state that is not final counts only if the operator has seen the present spec: right after a change the old
    Ready still stands there.

    Raises:
        JobFailed: it cannot get there any more.
    """
    conditions = workload.status.conditions
    true = {condition.type for condition in conditions if condition.status == "True"}
    fresh = workload.status.observed_generation >= workload.metadata.generation
    if wanted in true and (wanted in _FINAL or fresh):
        return True
    if wanted == DELETED:
        return False
    if ConditionType.SUCCEEDED in true:
        if wanted in _ON_THE_WAY_TO_SUCCESS:
            return True
        raise JobFailed(
            f"{_title(workload)} succeeded and will never be {wanted}",
            object=workload,
            reason=_reason(workload),
        )
    if ConditionType.FAILED in true or (ConditionType.STALLED in true and fresh and _hopeless(workload)):
        raise JobFailed(failure_sentence(workload), object=workload, reason=_reason(workload))
    return False


async def wait_for(
    kube: KubeClient,
    kind: Kind,
    name: str,
    *,
    namespace: str,
    wanted: str,
    timeout_seconds: float | None,
    on_progress: Callable[[Workload], object] | None,
) -> Workload | None:
    """Follow one object until it is in the wanted state; the object then, or None if it is to be deleted and is.

    Raises:
        JobFailed: it cannot get there any more.
        WaitTimeout: `timeout_seconds` passed first.
        NotFoundError: it does not exist, or was deleted meanwhile.
        KubeError: the API server is out of reach or refuses.
    """
    last: Workload | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            async with aclosing(snapshots(kube, kind.resource, namespace=namespace, name=name)) as pictures:
                async for picture in pictures:
                    body = picture.get(name)
                    if body is None:
                        if wanted == DELETED:
                            return None
                        gone = "was deleted while it was waited for" if last else "does not exist"
                        raise NotFoundError(f"{kind.name} {name} {gone} in namespace {namespace}")
                    workload = typed(kind, body)
                    assert isinstance(workload, TrainingJob | InferenceService)
                    if last is not None and workload.metadata.uid != last.metadata.uid:
                        # Deleted and made anew between two looks: another object of the same name.
                        if wanted == DELETED:
                            return None
                        raise NotFoundError(
                            f"{kind.name} {name} was deleted and made anew while it was waited for"
                        )
                    last = workload
                    if on_progress is not None:
                        on_progress(workload)
                    if reached(workload, wanted):
                        return workload
    except TimeoutError as error:
        if isinstance(error, WaitTimeout):
            raise
        raise _timed_out(kind, name, last, wanted, timeout_seconds or 0.0) from error
    raise AssertionError("snapshots() never ends by itself")


def _timed_out(kind: Kind, name: str, last: Workload | None, wanted: str, seconds: float) -> WaitTimeout:
    if last is None:
        return WaitTimeout(f"{kind.name} {name}: no answer after {seconds:g} s", object=None, state="Unknown")
    state, why = state_of(last), explanation(last)
    detail = f"{state}: {why.message}" if why.message else state
    return WaitTimeout(
        f"{kind.name} {name} is not {wanted} after {seconds:g} s; it is {detail}", object=last, state=state
    )


def _hopeless(workload: Workload) -> bool:
    condition = find_condition(workload.status.conditions, ConditionType.STALLED)
    return workload.kind == INFERENCE_SERVICE.name and condition is not None and condition.reason in _HOPELESS


def _reason(workload: Workload) -> str:
    for type_ in (ConditionType.FAILED, ConditionType.SUCCEEDED, ConditionType.STALLED):
        condition = find_condition(workload.status.conditions, type_)
        if condition is not None and condition.status == "True":
            return condition.reason
    return ""


def _title(workload: Workload) -> str:
    return f"{workload.kind} {workload.metadata.name}"
