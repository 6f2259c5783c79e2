"""Everything that a person asks about one object, gathered: state, why, pods, recent events."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from datahall.api.common import Condition
from datahall.api.inferenceservice import InferenceService
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.kube import ForbiddenError, KubeClient
from datahall.kube.resources import EVENTS, INFERENCE_SERVICES, PODS, TRAINING_JOBS
from datahall.sdk.errors import UnreadableError
from datahall.sdk.explaining import explanation, state_of
from datahall.sdk.kinds import INFERENCE_SERVICE, TRAINING_JOB, Json, Kind, Typed, Workload, typed
from datahall.sdk.logs import LABEL_GENERATION, LABEL_RANK, container_of, pod_selector

EVENTS_SHOWN = 12
_PODS_ASKED_ABOUT = 5


@dataclass(frozen=True, slots=True)
class EventLine:
    """One Event, of the object or of one of its pods.

    Attributes:
        time: when it last happened, RFC 3339.
        type: Normal or Warning.
        about: `TrainingJob/digits` or `Pod/digits-g1-0`.
        reason: one word.
        message: a sentence.
        count: how often it happened.
    """

    time: str
    type: str
    about: str
    reason: str
    message: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class PodLine:
    """One pod of the workload.

    Attributes:
        name: its name.
        state: Pending, Running, Succeeded, Failed, or the word for what keeps its container from running.
        message: why it is not running, "" where it is.
        node: where it is bound to, "" if nowhere.
        restarts: how often its container was restarted in place.
        rank: the worker's rank, None for a replica.
        generation: the gang generation, None for a replica.
        created: when, RFC 3339.
    """

    name: str
    state: str
    message: str
    node: str
    restarts: int
    rank: int | None
    generation: int | None
    created: str


@dataclass(frozen=True, slots=True)
class Description:
    """One object and what surrounds it.

    Attributes:
        kind: CamelCase kind.
        name: its name.
        namespace: its namespace, "" for a Queue.
        state: its state in one word.
        reason: why, in one word of the reason catalogue.
        message: why, in a sentence: for what it waits, or what failed.
        object: the object itself, typed.
        body: the object itself, as the API server sent it.
        conditions: its conditions.
        pods: its pods, by rank.
        events: its recent events and those of its pods that do not run, oldest first.
        users: for a Queue, the jobs and services that name it, as far as the caller may read them.
    """

    kind: str
    name: str
    namespace: str
    state: str
    reason: str
    message: str
    object: Typed
    body: Json = field(repr=False)
    conditions: tuple[Condition, ...]
    pods: tuple[PodLine, ...] = ()
    events: tuple[EventLine, ...] = ()
    users: tuple[Workload, ...] = ()


async def describe(kube: KubeClient, kind: Kind, body: Json) -> Description:
    """Gather what surrounds an object; what the caller may not read is left out.

    Raises:
        KubeError: the API server is out of reach.
    """
    thing = typed(kind, body)
    pods: tuple[PodLine, ...] = ()
    users: tuple[Workload, ...] = ()
    if isinstance(thing, Queue):
        users = await _users(kube, thing.metadata.name)
    else:
        selector = pod_selector(kind, thing.metadata.name)
        try:
            listed = await kube.list(PODS, namespace=thing.metadata.namespace, label_selector=selector)
            pods = tuple(sorted((_pod_line(pod, kind) for pod in listed["items"]), key=_pod_order))
        except ForbiddenError:
            pods = ()
    why = explanation(thing)
    return Description(
        kind=kind.name,
        name=thing.metadata.name,
        namespace=thing.metadata.namespace,
        state=state_of(thing),
        reason=why.reason,
        message=why.message,
        object=thing,
        body=body,
        conditions=thing.status.conditions,
        pods=pods,
        events=await _events(kube, kind, thing, pods),
        users=users,
    )


async def events_about(kube: KubeClient, kind: str, name: str, namespace: str) -> tuple[EventLine, ...]:
    """All Events that the cluster still keeps about one object, oldest first.

    Raises:
        KubeError: the caller may not read them, or the API server is out of reach.
    """
    answer = await kube.list(
        EVENTS,
        # Events of an object without a namespace are kept in `default`.
        namespace=namespace or "default",
        field_selector=f"regarding.kind={kind},regarding.name={name}",
    )
    return tuple(sorted((_event_line(item) for item in answer["items"]), key=lambda event: event.time))


async def _events(
    kube: KubeClient, kind: Kind, thing: Typed, pods: tuple[PodLine, ...]
) -> tuple[EventLine, ...]:
    troubled = [pod.name for pod in pods if pod.state not in {"Running", "Succeeded"}]
    about = [(kind.name, thing.metadata.name), *(("Pod", name) for name in troubled[:_PODS_ASKED_ABOUT])]
    answers = await asyncio.gather(
        *(events_about(kube, what, name, thing.metadata.namespace) for what, name in about),
        return_exceptions=True,
    )
    events: list[EventLine] = []
    for answer in answers:
        if isinstance(answer, ForbiddenError):
            continue
        if isinstance(answer, BaseException):
            raise answer
        events.extend(answer)
    return tuple(sorted(events, key=lambda event: event.time)[-EVENTS_SHOWN:])


async def _users(kube: KubeClient, queue: str) -> tuple[Workload, ...]:
    users: list[Workload] = []
    for kind, resource in ((TRAINING_JOB, TRAINING_JOBS), (INFERENCE_SERVICE, INFERENCE_SERVICES)):
        try:
            answer = await kube.list(resource, from_cache=True)
        except ForbiddenError:
            continue
        for item in answer["items"]:
            if item.get("spec", {}).get("queue") != queue:
                continue
            try:
                workload = typed(kind, item)
            except UnreadableError:
                continue
            assert isinstance(workload, TrainingJob | InferenceService)
            users.append(workload)
    return tuple(users)


def _event_line(event: Json) -> EventLine:
    series = event.get("series") or {}
    time = (
        series.get("lastObservedTime")
        or event.get("deprecatedLastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp", "")
    )
    regarding = event.get("regarding") or {}
    return EventLine(
        time=time,
        type=event.get("type", "Normal"),
        about=f"{regarding.get('kind', '')}/{regarding.get('name', '')}",
        reason=event.get("reason", ""),
        message=event.get("note", ""),
        count=int(series.get("count") or event.get("deprecatedCount") or 1),
    )


def _pod_line(pod: Json, kind: Kind) -> PodLine:
    metadata, status = pod["metadata"], pod.get("status", {})
    labels = metadata.get("labels", {})
    state, message = status.get("phase", "Pending"), status.get("message", "")
    restarts = 0
    for container in status.get("containerStatuses", []):
        if container.get("name") != container_of(kind):
            continue
        restarts = int(container.get("restartCount", 0))
        waiting = container.get("state", {}).get("waiting")
        ended = container.get("state", {}).get("terminated")
        if waiting and waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            state, message = waiting["reason"], waiting.get("message", "")
        elif ended and ended.get("exitCode"):
            state = ended.get("reason") or "Error"
            message = message or f"exit code {ended['exitCode']}"
    if state == "Pending" and not message:
        unmet = next(
            (
                condition
                for condition in status.get("conditions", [])
                if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
            ),
            None,
        )
        message = unmet.get("message", "") if unmet else ""
    if metadata.get("deletionTimestamp"):
        state = "Terminating"
    rank, generation = labels.get(LABEL_RANK, ""), labels.get(LABEL_GENERATION, "")
    return PodLine(
        name=metadata["name"],
        state=state,
        message=message,
        node=pod.get("spec", {}).get("nodeName", ""),
        restarts=restarts,
        rank=int(rank) if kind is TRAINING_JOB and rank.isdigit() else None,
        generation=int(generation) if kind is TRAINING_JOB and generation.isdigit() else None,
        created=metadata.get("creationTimestamp", ""),
    )


def _pod_order(pod: PodLine) -> tuple[int, int, str]:
    return (pod.generation or 0, pod.rank or 0, pod.name)
