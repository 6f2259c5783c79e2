"""Events from kopf into the store: the only place that knows kopf.

kopf watches, reconnects and tells; it decides nothing here. Only low-level `on.event` handlers are registered, so it
adds no finalizers and writes no annotations. Two of its settings matter for speed and life: the diff base is switched
off, because it copies and compares every object of every event for change handlers that we do not have; and no worker
limit is set, because kopf's limit can deadlock.

A watch can die silently, and kopf's own list may fall between two of ours. `resync` therefore lists every kind now and
then from the API server's cache, and the store takes over whatever is newer or gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import kopf
import structlog

from datahall.control import metrics
from datahall.control.store import Table
from datahall.kube import KubeClient, KubeError, Resource

log = structlog.get_logger(__name__)

RESYNC_SECONDS = 300.0
FIRST_RESYNC_SECONDS = 15.0


class _NoDiffBase(kopf.DiffBaseStorage):
    """No essence of objects is built, fetched or stored: there is nothing that compares them."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Source:
    """One kind to be watched.

    Attributes:
        resource: the kind.
        table: where its objects go.
        label_selector: only objects with these labels; "" for all.
    """

    resource: Resource
    table: Table[Any]
    label_selector: str = ""


class Feed:
    """Keeps the tables of the store up to date."""

    def __init__(
        self, client: KubeClient, sources: tuple[Source, ...], *, on_event: Callable[[], None]
    ) -> None:
        """Set up, without starting anything.

        Args:
            client: for the lists.
            sources: the kinds.
            on_event: called at each event, as a sign of life.
        """
        self._client = client
        self._sources = sources
        self._on_event = on_event
        self._registry = kopf.OperatorRegistry()
        kopf.on.login(registry=self._registry)(kopf.login_via_client)
        for source in sources:
            self._register(source)

    async def fill(self) -> None:
        """List every kind once.

        Raises:
            KubeError: a kind cannot be listed (not installed, not allowed, or the API server is away).
        """
        for source in self._sources:
            listed = await self._client.list(
                source.resource, limit=2000, label_selector=source.label_selector
            )
            source.table.replace(listed["items"], int(listed["metadata"]["resourceVersion"]))
            metrics.OBJECTS.labels(source.resource.plural).set(len(source.table))

    async def run(self, started: Callable[[], None]) -> None:
        """Watch for ever.

        Args:
            started: called once kopf has set itself up; it takes SIGTERM and SIGINT then, which are the caller's.
        """
        settings = kopf.OperatorSettings()
        settings.persistence.diffbase_storage = _NoDiffBase()
        settings.posting.enabled = False
        settings.watching.connect_timeout = 10
        settings.watching.server_timeout = 600
        settings.watching.client_timeout = 660
        settings.queueing.idle_timeout = 1.0
        for source in self._sources:
            if source.label_selector:
                resource = source.resource
                where = (resource.group, resource.version, resource.plural)
                settings.watching.label_selectors[where] = source.label_selector
        logging.getLogger("kopf").setLevel(logging.WARNING)
        tasks = await kopf.spawn_tasks(
            registry=self._registry, settings=settings, clusterwide=True, standalone=True
        )
        started()
        await kopf.run_tasks(tasks)
        raise RuntimeError("the event source ended by itself")

    async def resync(self) -> None:
        """List every kind again and again, as a safety net under the watches."""
        delay = FIRST_RESYNC_SECONDS
        while True:
            await asyncio.sleep(delay)
            delay = RESYNC_SECONDS
            try:
                await self.fill()
            except KubeError as error:
                log.warning("resync failed", error=str(error))

    def _register(self, source: Source) -> None:
        counter = metrics.WATCH_EVENTS.labels(source.resource.plural)
        table, on_event = source.table, self._on_event

        async def take(event: Any, **_: Any) -> None:
            counter.inc()
            on_event()
            raw = event["object"]
            metadata = raw["metadata"]
            if event["type"] == "DELETED":
                table.remove(metadata.get("namespace") or "", metadata["name"], metadata["uid"])
            else:
                table.put(raw)

        resource = source.resource
        kopf.on.event(
            resource.group, resource.version, resource.plural, registry=self._registry, id=resource.plural
        )(take)
