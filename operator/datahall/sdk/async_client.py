"""The client's one implementation, asynchronous. `Client` says the same in synchronous words.

This module is the surface: each verb looks up the login and the namespace, calls the module that does the work, and
turns the Kubernetes client's errors into the SDK's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, cast

from datahall.api.inferenceservice import InferenceService
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.kube import KubeClient
from datahall.sdk import describing, logs, manifests, predicting, queueing, telling, waiting
from datahall.sdk.describing import Description
from datahall.sdk.errors import MisuseError, translated
from datahall.sdk.kinds import (
    INFERENCE_SERVICE,
    QUEUE,
    TRAINING_JOB,
    Json,
    Kind,
    Typed,
    Workload,
    kind_of,
    typed,
)
from datahall.sdk.logs import LogLine
from datahall.sdk.manifests import Manifest
from datahall.sdk.moving import PlannedMoves, planned_moves
from datahall.sdk.predicting import Input, Predictions
from datahall.sdk.queueing import QueueLine, QueueStanding
from datahall.sdk.surroundings import jobs_of, surroundings
from datahall.sdk.telling import Story

FIELD_MANAGER = "datahall-client"
"""Who owns, in server-side apply, what is submitted here."""


class AsyncClient:
    """Submit, follow and use TrainingJobs, InferenceServices and Queues.

    Use it as an asynchronous context manager, or call `close`. It logs in at its first call, the way kubectl does.
    Every method raises subclasses of `DatahallError`: `UnreachableError`, `DeniedError` and `NotInstalledError` can
    come from any call and are not repeated below.
    """

    def __init__(
        self,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
    ) -> None:
        """Make a client; nothing is read or sent yet.

        Args:
            kubeconfig: path of a kubeconfig; else KUBECONFIG, the pod's service account or ~/.kube/config.
            context: a context of it; else the current one.
            namespace: where methods look if they are not told; else the context's namespace.
        """
        self._kubeconfig, self._context, self._namespace = kubeconfig, context, namespace
        self._kube: KubeClient | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. The client can be used again; it logs in anew."""
        kube, self._kube = self._kube, None
        if kube is not None:
            await kube.close()

    async def namespace(self) -> str:
        """The namespace where methods look if they are not told."""
        kube = await self._connected()
        return self._namespace or kube.login.namespace

    async def submit(self, manifest: Manifest, *, namespace: str | None = None, force: bool = False) -> Typed:
        """Create or change an object by server-side apply; the object as the cluster has it now.

        Args:
            manifest: a dictionary, a model, or the path of a YAML or JSON file that holds exactly one object.
            namespace: where to, if the manifest does not say.
            force: take over fields that another tool (kubectl, Argo CD) owns, instead of failing.

        Raises:
            MisuseError: the manifest is not one object of ours.
            RejectedError: it breaks a rule, or another tool owns a field and `force` is False.
            NotFoundError: the namespace does not exist.
        """
        with translated():
            kube = await self._connected()
            kind, body = manifests.to_apply(
                manifest, namespace=namespace, default_namespace=await self.namespace()
            )
            applied = await kube.apply(
                kind.resource,
                body,
                name=body["metadata"]["name"],
                namespace=body["metadata"].get("namespace"),
                field_manager=FIELD_MANAGER,
                force=force,
            )
            return typed(kind, applied)

    async def list_training_jobs(
        self, *, namespace: str | None = None, all_namespaces: bool = False, label_selector: str = ""
    ) -> list[TrainingJob]:
        """The TrainingJobs of one namespace, or of all, by name."""
        found = await self._list(TRAINING_JOB, namespace, all_namespaces, label_selector)
        return cast("list[TrainingJob]", [typed(TRAINING_JOB, item) for item in found])

    async def list_inference_services(
        self, *, namespace: str | None = None, all_namespaces: bool = False, label_selector: str = ""
    ) -> list[InferenceService]:
        """The InferenceServices of one namespace, or of all, by name."""
        found = await self._list(INFERENCE_SERVICE, namespace, all_namespaces, label_selector)
        return cast("list[InferenceService]", [typed(INFERENCE_SERVICE, item) for item in found])

    async def list_queues(self) -> list[Queue]:
        """The Queues of the cluster, by name."""
        return cast("list[Queue]", [typed(QUEUE, item) for item in await self._list(QUEUE, None, True, "")])

    async def list_objects(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        all_namespaces: bool = False,
        label_selector: str = "",
    ) -> list[Json]:
        """The objects of a kind as the API server sends them: for tools that pass them on untouched.

        Raises:
            MisuseError: no such kind.
        """
        return await self._list(kind_of(kind), namespace, all_namespaces, label_selector)

    async def get_training_job(self, name: str, *, namespace: str | None = None) -> TrainingJob:
        """One TrainingJob.

        Raises:
            NotFoundError: it does not exist.
        """
        return cast("TrainingJob", typed(TRAINING_JOB, await self._get(TRAINING_JOB, name, namespace)))

    async def get_inference_service(self, name: str, *, namespace: str | None = None) -> InferenceService:
        """One InferenceService.

        Raises:
            NotFoundError: it does not exist.
        """
        return cast(
            "InferenceService", typed(INFERENCE_SERVICE, await self._get(INFERENCE_SERVICE, name, namespace))
        )

    async def get_queue(self, name: str) -> Queue:
        """One Queue.

        Raises:
            NotFoundError: it does not exist.
        """
        return cast("Queue", typed(QUEUE, await self._get(QUEUE, name, None)))

    async def get_object(self, kind: str, name: str, *, namespace: str | None = None) -> Json:
        """One object as the API server sends it.

        Raises:
            MisuseError: no such kind.
            NotFoundError: it does not exist.
        """
        return await self._get(kind_of(kind), name, namespace)

    async def describe(self, kind: str, name: str, *, namespace: str | None = None) -> Description:
        """One object with the reason for its state, its pods and its recent events.

        Raises:
            MisuseError: no such kind.
            NotFoundError: it does not exist.
        """
        described = kind_of(kind)
        body = await self._get(described, name, namespace)
        with translated():
            return await describing.describe(await self._connected(), described, body)

    async def explain(self, name: str, *, kind: str = "TrainingJob", namespace: str | None = None) -> Story:
        """Why an object waits, how it runs or how it ended, and what would help; from statuses and Events alone.

        Args:
            name: the object.
            kind: TrainingJob or InferenceService.
            namespace: where it is.

        Raises:
            MisuseError: no such kind, or a Queue: `queue_line` tells of those.
            NotFoundError: it does not exist.
        """
        workload_kind = _workload_kind(kind)
        workload = cast("Workload", typed(workload_kind, await self._get(workload_kind, name, namespace)))
        with translated():
            return telling.story_of(workload, await surroundings(await self._connected(), workload))

    async def moves(
        self, *, namespace: str | None = None, all_namespaces: bool = False
    ) -> list[PlannedMoves]:
        """Which running jobs would move so that waiting ones find room in one piece, and when.

        Nobody is ended before that is due. The operator finds it out for the jobs at the head of each Queue's line.
        """
        jobs = await self.list_training_jobs(namespace=namespace, all_namespaces=all_namespaces)
        return list(planned_moves(jobs))

    async def queue_tree(self) -> list[QueueStanding]:
        """Where all Queues stand, in the order of the tree: what is held, lent and left, and whose turn it is."""
        return list(queueing.tree_of(await self.list_queues()))

    async def queue_line(self, name: str) -> QueueLine:
        """Where one Queue stands, and its waiting jobs, the next first, as far as the caller may read them.

        Raises:
            NotFoundError: it does not exist.
        """
        queue = await self.get_queue(name)
        queues = await self.list_queues()
        with translated():
            jobs, unread = await jobs_of(await self._connected(), name, namespace=await self.namespace())
        return queueing.queue_line(queue, queues, jobs, complete=not unread)

    async def logs(
        self,
        name: str,
        *,
        rank: int | None = None,
        follow: bool = False,
        tail: int | None = None,
        kind: str = "TrainingJob",
        namespace: str | None = None,
    ) -> AsyncIterator[LogLine]:
        """The log lines of all pods; `str(line)` carries a prefix where several pods write.

        Args:
            name: the object.
            rank: only this worker.
            follow: wait for pods that have not started, go on through restarts of the gang, and end when the
                TrainingJob has ended (an InferenceService has no end).
            tail: only so many of the lines that are there already, per pod.
            kind: TrainingJob or InferenceService.
            namespace: where it is.

        Raises:
            NotFoundError: it does not exist.
            NoLogsError: nothing has started yet, or the pods are gone; not with `follow`.
        """
        workload_kind = _workload_kind(kind)
        workload = cast("Workload", typed(workload_kind, await self._get(workload_kind, name, namespace)))
        read = logs.follow_logs if follow else logs.read_logs
        with translated():
            stream = read(await self._connected(), workload, workload_kind, rank=rank, tail=tail)
            async with aclosing(stream) as lines:
                async for line in lines:
                    yield line

    async def wait(
        self,
        name: str,
        *,
        for_: str | None = None,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Workload], object] | None = None,
        kind: str = "TrainingJob",
        namespace: str | None = None,
    ) -> Workload | None:
        """Wait, by watch, until the object is in a state; the object then (None if it waited for `Deleted`).

        Args:
            name: the object.
            for_: a condition type in any case ("succeeded", "Running", "Ready"), or "Deleted". None: Succeeded for
                a TrainingJob, Ready for an InferenceService.
            timeout_seconds: how long; None: as long as it takes.
            on_progress: called with the object when the wait begins and at every change.
            kind: TrainingJob or InferenceService.
            namespace: where it is.

        Raises:
            MisuseError: the kind has no such condition.
            NotFoundError: it does not exist, or was deleted meanwhile.
            JobFailed: it cannot get there any more; carries the failure.
            WaitTimeout: the time is up; carries the last known state.
        """
        workload_kind = _workload_kind(kind)
        wanted = waiting.wanted_state(workload_kind, for_)
        with translated():
            return await waiting.wait_for(
                await self._connected(),
                workload_kind,
                name,
                namespace=namespace or await self.namespace(),
                wanted=wanted,
                timeout_seconds=timeout_seconds,
                on_progress=on_progress,
            )

    async def predict(
        self,
        name: str,
        inputs: Sequence[Input],
        *,
        timeout_seconds: float = 30.0,
        url: str | None = None,
        namespace: str | None = None,
    ) -> Predictions:
        """Ask an InferenceService.

        Args:
            name: the InferenceService.
            inputs: texts as `str`; images as `bytes` of an image file, or as a `Path` to one.
            timeout_seconds: how long to wait for the answer.
            url: ask this server directly; None: through the API server, which works wherever kubectl does.
            namespace: where it is.

        Raises:
            MisuseError: no inputs, or a file that cannot be read.
            NotFoundError: there is no Service of that name.
            PredictError: the server refused, failed or was late.
        """
        if url is not None:
            return await predicting.by_url(url, name, inputs, timeout_seconds=timeout_seconds)
        with translated():
            return await predicting.by_proxy(
                await self._connected(),
                name,
                inputs,
                namespace=namespace or await self.namespace(),
                timeout_seconds=timeout_seconds,
            )

    async def suspend(self, name: str, *, namespace: str | None = None) -> TrainingJob:
        """Stop a TrainingJob's workers (they save first) and free what they hold.

        Raises:
            NotFoundError: it does not exist.
        """
        return await self._set_suspend(name, namespace, suspend=True)

    async def resume(self, name: str, *, namespace: str | None = None) -> TrainingJob:
        """Let a suspended TrainingJob queue again; it goes on from its last checkpoint.

        Raises:
            NotFoundError: it does not exist.
        """
        return await self._set_suspend(name, namespace, suspend=False)

    async def scale(self, name: str, replicas: int, *, namespace: str | None = None) -> InferenceService:
        """Set how many replicas an InferenceService has, as `kubectl scale` does.

        Raises:
            MisuseError: a negative number.
            NotFoundError: it does not exist.
        """
        if replicas < 0:
            raise MisuseError(f"replicas must be 0 or more, not {replicas}")
        with translated():
            kube = await self._connected()
            await kube.merge_patch(
                INFERENCE_SERVICE.resource,
                {"spec": {"replicas": replicas}},
                name=name,
                namespace=namespace or await self.namespace(),
                subresource="scale",
                field_manager=FIELD_MANAGER,
            )
        return await self.get_inference_service(name, namespace=namespace)

    async def delete(self, kind: str, name: str, *, namespace: str | None = None) -> None:
        """Delete an object and what it runs; trained models stay. It returns before the pods are gone.

        Raises:
            MisuseError: no such kind.
            NotFoundError: it does not exist.
        """
        deleted = kind_of(kind)
        with translated():
            kube = await self._connected()
            where = await self._where(deleted, namespace)
            await kube.delete(deleted.resource, name, namespace=where)

    async def _connected(self) -> KubeClient:
        if self._kube is None:
            async with self._connecting:
                if self._kube is None:
                    with translated():
                        self._kube = await KubeClient.connect(
                            kubeconfig=self._kubeconfig, context=self._context, user_agent="datahall-sdk"
                        )
        return self._kube

    async def _where(self, kind: Kind, namespace: str | None) -> str | None:
        return (namespace or await self.namespace()) if kind.resource.namespaced else None

    async def _get(self, kind: Kind, name: str, namespace: str | None) -> Json:
        with translated():
            kube = await self._connected()
            return await kube.get(kind.resource, name, namespace=await self._where(kind, namespace))

    async def _list(
        self, kind: Kind, namespace: str | None, all_namespaces: bool, label_selector: str
    ) -> list[Json]:
        with translated():
            kube = await self._connected()
            where = None if all_namespaces else await self._where(kind, namespace)
            answer = await kube.list(kind.resource, namespace=where, label_selector=label_selector, limit=500)
        items: list[Json] = answer["items"]
        for item in items:
            item.setdefault("apiVersion", kind.resource.api_version)
            item.setdefault("kind", kind.name)
        return items

    async def _set_suspend(self, name: str, namespace: str | None, *, suspend: bool) -> TrainingJob:
        with translated():
            kube = await self._connected()
            patched = await kube.merge_patch(
                TRAINING_JOB.resource,
                {"spec": {"suspend": suspend}},
                name=name,
                namespace=namespace or await self.namespace(),
                field_manager=FIELD_MANAGER,
            )
        return cast("TrainingJob", typed(TRAINING_JOB, patched))


def _workload_kind(kind: str) -> Kind:
    found = kind_of(kind)
    if found is QUEUE:
        raise MisuseError("a Queue runs nothing: there is nothing to wait for and no log")
    return found
