"""Everything that changes, into the store. The only place that knows kopf.

kopf watches those of our kinds that people change, which are few: it finds their versions, waits for their definitions,
logs in, reconnects. It decides nothing here. Only low-level `on.event` handlers are registered, so it adds no
finalizers and writes no annotations. Two of its settings matter for speed and life: the stores for change handlers, of
which we have none, are off, because they copy and compare every object of every event; and no worker limit is set,
because kopf's limit can deadlock.

All other kinds (many objects, many events; TrainingJobs among them) come by `reflector`. For kopf's kinds a list now
and then is the safety net: its watch can die silently, and its first list may fall between two of ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import kopf
import structlog

from datahall.control import metrics
from datahall.control.reflector import Reflector
from datahall.control.sources import Source
from datahall.control.store import Table
from datahall.kube import KubeClient, KubeError

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


class _NoProgress(kopf.ProgressStorage):
    """No handler has progress to be kept: `on.event` handlers run once and are done."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class Feed:
    """Keeps the tables of the store up to date."""

    def __init__(
        self,
        client: KubeClient,
        *,
        by_kopf: tuple[Source, ...],
        by_reflector: tuple[Source, ...],
        on_event: Callable[[], None],
    ) -> None:
        """Set up, without starting anything.

        Args:
            client: for lists and watches.
            by_kopf: the kinds that kopf watches.
            by_reflector: the kinds that reflectors watch.
            on_event: called at each event, as a sign of life.
        """
        self._client = client
        self._by_kopf = by_kopf
        self._on_event = on_event
        self._reflectors = tuple(Reflector(client, source, on_event=on_event) for source in by_reflector)
        self._registry = kopf.OperatorRegistry()
        kopf.on.login(registry=self._registry)(kopf.login_via_client)
        for source in by_kopf:
            self._register(source)

    async def fill(self) -> None:
        """List every kind once: what things are placed on before what is placed.

        Raises:
            KubeError: a kind cannot be listed (not installed, not allowed, or the API server is away).
        """
        for reflector in self._reflectors:
            await reflector.fill()
        for source in self._by_kopf:
            await source.fill(self._client)

    async def run(self, started: Callable[[], None]) -> None:
        """Watch for ever.

        Args:
            started: called once kopf has set itself up; it takes SIGTERM and SIGINT then, which are the caller's.
        """
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            group.create_task(self._resync())
            group.create_task(self._kopf(started))

    async def _kopf(self, started: Callable[[], None]) -> None:
        settings = kopf.OperatorSettings()
        settings.persistence.diffbase_storage = _NoDiffBase()
        settings.persistence.progress_storage = _NoProgress()
        settings.posting.enabled = False
        settings.watching.connect_timeout = 10
        settings.watching.server_timeout = 600
        settings.watching.client_timeout = 660
        settings.queueing.idle_timeout = 1.0
        logging.getLogger("kopf").setLevel(logging.WARNING)
        tasks = await kopf.spawn_tasks(
            registry=self._registry, settings=settings, clusterwide=True, standalone=True
        )
        started()
        await kopf.run_tasks(tasks)
        raise RuntimeError("the event source ended by itself")

    async def _resync(self) -> None:
        """List kopf's kinds again and again."""
        delay = FIRST_RESYNC_SECONDS
        while True:
            await asyncio.sleep(delay)
            delay = RESYNC_SECONDS
            try:
                for source in self._by_kopf:
                    await source.fill(self._client)
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

        def unknown(event: Any, **_: Any) -> bool:
            return news(table, event)

        resource = source.resource
        kopf.on.event(
            resource.group,
            resource.version,
            resource.plural,
            registry=self._registry,
            id=resource.plural,
            when=unknown,
        )(take)


def news(table: Table[Any], event: Any) -> bool:
    """Whether an event says what the store does not know.

    Most events of a Queue are echoes of our own status writes, whose answers are in the store already. kopf asks this
    before it sets a handler's call up, which is half of what an event costs.
    """
    metadata = event["object"]["metadata"]
    known = table.get(metadata.get("namespace") or "", metadata["name"])
    if event["type"] == "DELETED" or known is None or known.uid != metadata["uid"]:
        return True
    return bool(int(metadata["resourceVersion"]) > known.version)
