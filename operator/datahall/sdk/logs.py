"""Logs of all pods of one workload as one stream, also across restarts of the gang.

Following is two watches, of the pods and of the workload, and one reader per container. A restarted gang is new pods of
the next generation; they are read as they appear. It ends when the workload has ended and every reader has.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from datahall.api.conditions import ConditionType, is_true
from datahall.api.trainingjob import TrainingJob
from datahall.kube import InvalidError, KubeClient, KubeError, UnavailableError
from datahall.kube import NotFoundError as KubeNotFoundError
from datahall.kube.resources import PODS
from datahall.sdk.errors import NoLogsError
from datahall.sdk.explaining import explanation, state_of
from datahall.sdk.kinds import TRAINING_JOB, Json, Kind, Workload, typed
from datahall.sdk.watching import delay_seconds, snapshots

LABEL_JOB = "datahall.dev/training-job"
LABEL_SERVICE = "datahall.dev/inference-service"
LABEL_GENERATION = "datahall.dev/generation"
LABEL_RANK = "datahall.dev/rank"

_BUFFERED_LINES = 1000
_LAST_WORDS_SECONDS = 10.0
_PATIENCE_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of one container.

    Attributes:
        text: the line, without its end.
        pod: the pod that wrote it.
        generation: the gang generation, None for a replica of an InferenceService.
        rank: the worker's rank, None for a replica.
        prefix: what tells the writers apart in one stream, such as "[rank 1] "; "" where there is only one.
    """

    text: str
    pod: str
    generation: int | None = None
    rank: int | None = None
    prefix: str = ""

    def __str__(self) -> str:
        return self.prefix + self.text


@dataclass(frozen=True, slots=True)
class _Writer:
    """One run of one container."""

    pod: str
    container: str
    restarts: int
    generation: int | None
    rank: int | None

    @property
    def order(self) -> tuple[int, str]:
        return (self.rank if self.rank is not None else 0, self.pod)

    def line(self, text: str, *, prefixed: bool) -> LogLine:
        prefix = ""
        if prefixed:
            prefix = f"[rank {self.rank}] " if self.rank is not None else f"[{self.pod}] "
        return LogLine(text, self.pod, self.generation, self.rank, prefix)


def pod_selector(kind: Kind, name: str) -> str:
    """The label selector of a workload's pods."""
    return f"{LABEL_JOB if kind is TRAINING_JOB else LABEL_SERVICE}={name}"


def container_of(kind: Kind) -> str:
    """The container whose log is the workload's."""
    return "trainer" if kind is TRAINING_JOB else "server"


async def read_logs(
    kube: KubeClient, workload: Workload, kind: Kind, *, rank: int | None, tail: int | None
) -> AsyncGenerator[LogLine, None]:
    """What the pods of the newest generation have written so far, one pod after the other.

    Raises:
        NoLogsError: no container has started, or all pods are gone.
    """
    namespace, name = workload.metadata.namespace, workload.metadata.name
    pods = (await kube.list(PODS, namespace=namespace, label_selector=pod_selector(kind, name)))["items"]
    writers = _newest(_writers(pods, kind, rank))
    if not writers:
        raise NoLogsError(_no_logs(workload, has_pods=bool(pods), rank=rank))
    for writer in writers:
        try:
            stream = kube.pod_logs(
                writer.pod, namespace=namespace, container=writer.container, tail_lines=tail
            )
            async with aclosing(stream) as lines:
                async for text in lines:
                    yield writer.line(text, prefixed=len(writers) > 1)
        except (KubeNotFoundError, InvalidError):
            continue  # it went away, or has not quite started, since it was listed


async def follow_logs(
    kube: KubeClient, workload: Workload, kind: Kind, *, rank: int | None, tail: int | None
) -> AsyncGenerator[LogLine, None]:
    """What the pods write, from the newest generation on, until the workload has ended or is deleted."""
    follower = _Follower(kube, workload, kind, rank=rank, tail=tail)
    tasks = [asyncio.create_task(follower.watch_pods()), asyncio.create_task(follower.watch_workload())]
    try:
        async for line in follower.lines(tasks):
            yield line
    finally:
        await follower.stop(tasks)


class _Follower:
    def __init__(
        self, kube: KubeClient, workload: Workload, kind: Kind, *, rank: int | None, tail: int | None
    ) -> None:
        self.kube, self.kind, self.rank, self.tail = kube, kind, rank, tail
        self.namespace, self.name, self.uid = (
            workload.metadata.namespace,
            workload.metadata.name,
            workload.metadata.uid,
        )
        one_worker = isinstance(workload, TrainingJob) and (
            (workload.status.workers or workload.spec.workers.count) == 1
        )
        self.several = rank is None and not one_worker
        self.queue: asyncio.Queue[LogLine | KubeError] = asyncio.Queue(_BUFFERED_LINES)
        self.readers: dict[_Writer, asyncio.Task[None]] = {}
        self.oldest_generation: int | None = None

    async def watch_pods(self) -> None:
        """Start a reader for each container that has started."""
        selector = pod_selector(self.kind, self.name)
        async with aclosing(
            snapshots(self.kube, PODS, namespace=self.namespace, label_selector=selector)
        ) as pictures:
            async for picture in pictures:
                self._look(list(picture.values()))

    def _look(self, pods: list[Json]) -> None:
        first = self.oldest_generation is None
        writers = _writers(pods, self.kind, self.rank)
        if self.oldest_generation is None:
            self.oldest_generation = max((writer.generation or 0 for writer in writers), default=0)
        for writer in writers:
            if (writer.generation or 0) >= self.oldest_generation and writer not in self.readers:
                tail = self.tail if first else None
                self.readers[writer] = asyncio.create_task(self._read(writer, tail))

    async def watch_workload(self) -> None:
        """Return once the workload has ended or is gone."""
        async with aclosing(
            snapshots(self.kube, self.kind.resource, namespace=self.namespace, name=self.name)
        ) as pictures:
            async for picture in pictures:
                body = picture.get(self.name)
                if body is None or body["metadata"]["uid"] != self.uid or _has_ended(typed(self.kind, body)):
                    return

    async def lines(self, tasks: list[asyncio.Task[None]]) -> AsyncGenerator[LogLine, None]:
        """Everything the readers bring, until the end; an error of a watch is raised here."""
        pods, end = tasks
        while True:
            take = asyncio.create_task(self.queue.get())
            try:
                await asyncio.wait({take, pods, end}, return_when=asyncio.FIRST_COMPLETED)
                if take.done():
                    yield _line_or_error(take.result())
                    continue
            finally:
                take.cancel()
            for task in tasks:
                if task.done():
                    task.result()  # raises what went wrong
            break
        async for line in self._last_words():
            yield line

    async def _last_words(self) -> AsyncGenerator[LogLine, None]:
        # The job's end may be seen before its last pods, or their last lines; the streams close with the containers.
        selector = pod_selector(self.kind, self.name)
        self._look((await self.kube.list(PODS, namespace=self.namespace, label_selector=selector))["items"])
        deadline = asyncio.get_running_loop().time() + _LAST_WORDS_SECONDS
        while True:
            while not self.queue.empty():
                yield _line_or_error(self.queue.get_nowait())
            running = {task for task in self.readers.values() if not task.done()}
            left = deadline - asyncio.get_running_loop().time()
            if not running or left <= 0:
                break
            take = asyncio.create_task(self.queue.get())
            try:
                await asyncio.wait({take, *running}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if take.done():
                    yield _line_or_error(take.result())
            finally:
                take.cancel()

    async def stop(self, tasks: list[asyncio.Task[None]]) -> None:
        """End every task, and wait for it."""
        everything = [*tasks, *self.readers.values()]
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)

    async def _read(self, writer: _Writer, tail: int | None) -> None:
        """Read one container to its end; a broken stream goes on behind the last line that came through."""
        last, failures = "", 0
        while True:
            seen = last
            try:
                stream = self.kube.pod_logs(
                    writer.pod,
                    namespace=self.namespace,
                    container=writer.container,
                    follow=True,
                    tail_lines=tail if not seen else None,
                    timestamps=True,
                    since_time=_whole_seconds(seen) if seen else None,
                )
                async with aclosing(stream) as lines:
                    async for stamped in lines:
                        time, _, text = stamped.partition(" ")
                        if seen and time <= seen:
                            continue  # since_time counts whole seconds: these came through before
                        last, failures = time, 0
                        await self.queue.put(writer.line(text, prefixed=self.several))
                return
            except KubeNotFoundError:
                return  # the pod is gone
            except (UnavailableError, InvalidError) as error:
                failures += 1
                if isinstance(error, InvalidError) and failures > _PATIENCE_ATTEMPTS:
                    return  # there will be no log (while the kubelet is still making it, it says the same)
                await asyncio.sleep(max(0.1, delay_seconds(failures)))
            except KubeError as error:
                await self.queue.put(error)
                return


def _writers(pods: list[Json], kind: Kind, rank: int | None) -> list[_Writer]:
    """The containers that have something to say, by rank."""
    writers = []
    for pod in pods:
        labels = pod["metadata"].get("labels", {})
        pod_rank = _number(labels.get(LABEL_RANK))
        if rank is not None and pod_rank != rank:
            continue
        container = container_of(kind)
        for status in pod.get("status", {}).get("containerStatuses", []):
            state = status.get("state", {})
            if status.get("name") == container and ("running" in state or "terminated" in state):
                writers.append(
                    _Writer(
                        pod["metadata"]["name"],
                        container,
                        int(status.get("restartCount", 0)),
                        _number(labels.get(LABEL_GENERATION)) if kind is TRAINING_JOB else None,
                        pod_rank if kind is TRAINING_JOB else None,
                    )
                )
    return sorted(writers, key=lambda writer: writer.order)


def _newest(writers: list[_Writer]) -> list[_Writer]:
    newest = max((writer.generation or 0 for writer in writers), default=0)
    return [writer for writer in writers if (writer.generation or 0) == newest]


def _has_ended(workload: object) -> bool:
    return isinstance(workload, TrainingJob) and any(
        is_true(workload.status.conditions, type_)
        for type_ in (ConditionType.SUCCEEDED, ConditionType.FAILED)
    )


def _no_logs(workload: Workload, *, has_pods: bool, rank: int | None) -> str:
    title = f"{workload.kind} {workload.metadata.name}"
    if rank is not None and has_pods:
        return f"{title} has no log of rank {rank}"
    if _has_ended(workload):
        return f"{title} has ended ({state_of(workload)}) and its pods are gone; describe shows how a failure ended"
    why = explanation(workload)
    return f"{title} has not started: it is {state_of(workload)}" + (
        f": {why.message}" if why.message else ""
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _line_or_error(item: LogLine | KubeError) -> LogLine:
    if isinstance(item, KubeError):
        raise item
    return item


def _whole_seconds(stamp: str) -> str:
    """`2026-11-22T15:00:00.123456789+01:00` -> `2026-11-22T15:00:00+01:00`: what `sinceTime` takes."""
    return re.sub(r"\.\d+", "", stamp)
