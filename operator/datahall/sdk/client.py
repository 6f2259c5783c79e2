"""The synchronous client: `AsyncClient` verb by verb, over a background thread. No logic here.

A test compares the signatures of the two, so that they cannot drift apart.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from datahall.api.inferenceservice import InferenceService
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.sdk.async_client import AsyncClient
from datahall.sdk.describing import Description
from datahall.sdk.kinds import Json, Typed, Workload
from datahall.sdk.logs import LogLine
from datahall.sdk.manifests import Manifest
from datahall.sdk.moving import PlannedMoves
from datahall.sdk.portal import Portal
from datahall.sdk.predicting import Input, Predictions
from datahall.sdk.queueing import QueueLine, QueueStanding
from datahall.sdk.telling import Story


class Client:
    """Submit, follow and use TrainingJobs, InferenceServices and Queues, from synchronous code.

    Use it as a context manager, or call `close`. `AsyncClient` documents each method and what it raises.
    """

    def __init__(
        self,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
    ) -> None:
        """Make a client; nothing is read or sent yet. Arguments as for `AsyncClient`."""
        self._portal = Portal()
        self._client = AsyncClient(kubeconfig=kubeconfig, context=context, namespace=namespace)
        self._closing = weakref.finalize(self, _close, self._portal, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread; the client cannot be used again."""
        self._closing()

    def namespace(self) -> str:
        """See `AsyncClient.namespace`."""
        return self._portal.call(self._client.namespace())

    def submit(self, manifest: Manifest, *, namespace: str | None = None, force: bool = False) -> Typed:
        """See `AsyncClient.submit`."""
        return self._portal.call(self._client.submit(manifest, namespace=namespace, force=force))

    def list_training_jobs(
        self, *, namespace: str | None = None, all_namespaces: bool = False, label_selector: str = ""
    ) -> list[TrainingJob]:
        """See `AsyncClient.list_training_jobs`."""
        return self._portal.call(
            self._client.list_training_jobs(
                namespace=namespace, all_namespaces=all_namespaces, label_selector=label_selector
            )
        )

    def list_inference_services(
        self, *, namespace: str | None = None, all_namespaces: bool = False, label_selector: str = ""
    ) -> list[InferenceService]:
        """See `AsyncClient.list_inference_services`."""
        return self._portal.call(
            self._client.list_inference_services(
                namespace=namespace, all_namespaces=all_namespaces, label_selector=label_selector
            )
        )

    def list_queues(self) -> list[Queue]:
        """See `AsyncClient.list_queues`."""
        return self._portal.call(self._client.list_queues())

    def list_objects(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        all_namespaces: bool = False,
        label_selector: str = "",
    ) -> list[Json]:
        """See `AsyncClient.list_objects`."""
        return self._portal.call(
            self._client.list_objects(
                kind, namespace=namespace, all_namespaces=all_namespaces, label_selector=label_selector
            )
        )

    def get_training_job(self, name: str, *, namespace: str | None = None) -> TrainingJob:
        """See `AsyncClient.get_training_job`."""
        return self._portal.call(self._client.get_training_job(name, namespace=namespace))

    def get_inference_service(self, name: str, *, namespace: str | None = None) -> InferenceService:
        """See `AsyncClient.get_inference_service`."""
        return self._portal.call(self._client.get_inference_service(name, namespace=namespace))

    def get_queue(self, name: str) -> Queue:
        """See `AsyncClient.get_queue`."""
        return self._portal.call(self._client.get_queue(name))

    def get_object(self, kind: str, name: str, *, namespace: str | None = None) -> Json:
        """See `AsyncClient.get_object`."""
        return self._portal.call(self._client.get_object(kind, name, namespace=namespace))

    def describe(self, kind: str, name: str, *, namespace: str | None = None) -> Description:
        """See `AsyncClient.describe`."""
        return self._portal.call(self._client.describe(kind, name, namespace=namespace))

    def explain(self, name: str, *, kind: str = "TrainingJob", namespace: str | None = None) -> Story:
        """See `AsyncClient.explain`."""
        return self._portal.call(self._client.explain(name, kind=kind, namespace=namespace))

    def moves(self, *, namespace: str | None = None, all_namespaces: bool = False) -> list[PlannedMoves]:
        """See `AsyncClient.moves`."""
        return self._portal.call(self._client.moves(namespace=namespace, all_namespaces=all_namespaces))

    def queue_tree(self) -> list[QueueStanding]:
        """See `AsyncClient.queue_tree`."""
        return self._portal.call(self._client.queue_tree())

    def queue_line(self, name: str) -> QueueLine:
        """See `AsyncClient.queue_line`."""
        return self._portal.call(self._client.queue_line(name))

    def logs(
        self,
        name: str,
        *,
        rank: int | None = None,
        follow: bool = False,
        tail: int | None = None,
        kind: str = "TrainingJob",
        namespace: str | None = None,
    ) -> Iterator[LogLine]:
        """See `AsyncClient.logs`."""
        return self._portal.iterate(
            self._client.logs(name, rank=rank, follow=follow, tail=tail, kind=kind, namespace=namespace)
        )

    def wait(
        self,
        name: str,
        *,
        for_: str | None = None,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Workload], object] | None = None,
        kind: str = "TrainingJob",
        namespace: str | None = None,
    ) -> Workload | None:
        """See `AsyncClient.wait`; `on_progress` is called in the thread that waits."""
        return self._portal.call_with_callback(
            lambda report: self._client.wait(
                name,
                for_=for_,
                timeout_seconds=timeout_seconds,
                on_progress=report,
                kind=kind,
                namespace=namespace,
            ),
            on_progress or _ignore,
        )

    def predict(
        self,
        name: str,
        inputs: Sequence[Input],
        *,
        timeout_seconds: float = 30.0,
        url: str | None = None,
        namespace: str | None = None,
    ) -> Predictions:
        """See `AsyncClient.predict`."""
        return self._portal.call(
            self._client.predict(name, inputs, timeout_seconds=timeout_seconds, url=url, namespace=namespace)
        )

    def suspend(self, name: str, *, namespace: str | None = None) -> TrainingJob:
        """See `AsyncClient.suspend`."""
        return self._portal.call(self._client.suspend(name, namespace=namespace))

    def resume(self, name: str, *, namespace: str | None = None) -> TrainingJob:
        """See `AsyncClient.resume`."""
        return self._portal.call(self._client.resume(name, namespace=namespace))

    def scale(self, name: str, replicas: int, *, namespace: str | None = None) -> InferenceService:
        """See `AsyncClient.scale`."""
        return self._portal.call(self._client.scale(name, replicas, namespace=namespace))

    def delete(self, kind: str, name: str, *, namespace: str | None = None) -> None:
        """See `AsyncClient.delete`."""
        return self._portal.call(self._client.delete(kind, name, namespace=namespace))


def _close(portal: Portal, client: AsyncClient) -> None:
    if portal.is_here:
        return  # garbage collection chanced upon this thread, which cannot wait for itself; it ends with the process
    portal.call(client.close())
    portal.close()


def _ignore(_: object) -> None:
    pass
