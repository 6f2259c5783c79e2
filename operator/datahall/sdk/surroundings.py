"""What a story about one workload needs beside it: the queues, who else is in its queue, its Events.

Who asks may read less than all of the cluster. What they may not read is left out and named, and never guessed. Nor is
anything read from the API server's cache: that may lag behind, and "its queue does not exist" must be true.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.kube import ForbiddenError, KubeClient
from datahall.kube.resources import QUEUES, TRAINING_JOBS
from datahall.sdk.describing import EventLine, events_about
from datahall.sdk.errors import UnreadableError
from datahall.sdk.kinds import QUEUE, TRAINING_JOB, Json, Kind, Typed, Workload, typed

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else of the cluster a story is told from.

    Attributes:
        queues: all Queues; None if they may not be read.
        jobs: TrainingJobs of the workload's queue, itself included.
        events: Events about the workload, oldest first.
        unread: what the caller may not read, such as "Queues".
    """

    queues: tuple[Queue, ...] | None = None
    jobs: tuple[TrainingJob, ...] = ()
    events: tuple[EventLine, ...] = ()
    unread: tuple[str, ...] = ()


async def surroundings(kube: KubeClient, workload: Workload) -> Surroundings:
    """Read them.

    Raises:
        KubeError: the API server is out of reach.
    """
    (queues, no_queues), (jobs, no_jobs), (events, no_events) = await asyncio.gather(
        _queues(kube),
        jobs_of(kube, workload.spec.queue, namespace=workload.metadata.namespace),
        _events(kube, workload),
    )
    return Surroundings(queues, jobs, events, tuple(gap for gap in (no_queues, no_jobs, no_events) if gap))


async def jobs_of(kube: KubeClient, queue: str, *, namespace: str) -> tuple[tuple[TrainingJob, ...], str]:
    """The TrainingJobs of a queue, and what of them could not be read; "" for nothing.

    Args:
        kube: the API server.
        queue: the queue's name.
        namespace: where to look if the caller may not read all namespaces.
    """
    gap = ""
    try:
        answer = await kube.list(TRAINING_JOBS, limit=_PAGE)
    except ForbiddenError:
        gap = f"TrainingJobs outside namespace {namespace}"
        try:
            answer = await kube.list(TRAINING_JOBS, namespace=namespace, limit=_PAGE)
        except ForbiddenError:
            return (), "TrainingJobs"
    mine = [item for item in answer["items"] if item.get("spec", {}).get("queue") == queue]
    return tuple(cast("TrainingJob", job) for job in readable(TRAINING_JOB, mine)), gap


def readable(kind: Kind, items: list[Json]) -> list[Typed]:
    """The objects that this version can read: a story does not fail for a neighbour that a newer one made."""
    found: list[Typed] = []
    for item in items:
        try:
            found.append(typed(kind, item))
        except UnreadableError:
            continue
    return found


async def _queues(kube: KubeClient) -> tuple[tuple[Queue, ...] | None, str]:
    try:
        items = (await kube.list(QUEUES, limit=_PAGE))["items"]
    except ForbiddenError:
        return None, "Queues"
    return tuple(cast("Queue", queue) for queue in readable(QUEUE, items)), ""


async def _events(kube: KubeClient, workload: Workload) -> tuple[tuple[EventLine, ...], str]:
    try:
        return await events_about(
            kube, workload.kind, workload.metadata.name, workload.metadata.namespace
        ), ""
    except ForbiddenError:
        return (), "Events"
