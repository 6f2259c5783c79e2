"""One kind of object, watched: a list, then the changes after it, for ever, without a gap.

The store's high-volume kinds (pods, nodes and what belongs to services) come this way: an event passes one decoder and
one projection here, and many layers in kopf (docs/decisions/0003). The rules are client-go's reflector's: a watch
continues from the last version seen, bookmarks included; when that version is too old, everything is listed anew; a
stream that stays silent past its time-out counts as dead.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from datahall.control import metrics
from datahall.control.sources import Source
from datahall.kube import KubeClient, KubeError, ResourceExpiredError, UnavailableError

log = structlog.get_logger(__name__)

STREAM_SECONDS = 300
SHORT_SECONDS = 1.0
"""A watch that ends sooner and brought nothing is a fault somewhere, and not asked for again at once."""

BACK_OFF_FIRST_SECONDS = 0.2
BACK_OFF_LONGEST_SECONDS = 30.0


class Reflector:
    """Keeps one table up to date."""

    def __init__(self, client: KubeClient, source: Source, *, on_event: Callable[[], None]) -> None:
        self._client = client
        self._source = source
        self._on_event = on_event
        self._version = ""
        self._counter = metrics.WATCH_EVENTS.labels(source.resource.plural)

    async def fill(self) -> None:
        """List everything once.

        Raises:
            KubeError: it cannot be listed.
        """
        self._version = await self._source.fill(self._client)

    async def run(self) -> None:
        """Watch for ever; `fill` was called before."""
        failures, expired = 0, False
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                events = await self._follow()
                short = not events and loop.time() - started < SHORT_SECONDS
                failures, expired = failures + 1 if short else 0, False
            except ResourceExpiredError:
                failures, expired = failures + expired, True
                self._version = ""
            except UnavailableError as error:
                failures += 1
                log.info("watch broke", resource=self._source.resource.plural, error=str(error))
            except KubeError as error:
                failures += 1
                self._version = ""
                log.warning("watch refused", resource=self._source.resource.plural, error=str(error))
            if failures:
                doublings = min(failures, 16)  # past the longest delay; a power that grows for ever overflows
                longest = min(BACK_OFF_FIRST_SECONDS * 2.0**doublings, BACK_OFF_LONGEST_SECONDS)
                await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads, not secrets

    async def _follow(self) -> int:
        """Watch until the stream ends; how many events it brought."""
        source, count = self._source, 0
        if not self._version:
            await self.fill()
        events = self._client.watch(
            source.resource,
            resource_version=self._version,
            label_selector=source.label_selector,
            timeout_seconds=STREAM_SECONDS,
        )
        async for event in events:
            count += 1
            self._on_event()
            metadata = event.object["metadata"]
            self._version = metadata["resourceVersion"]
            if event.type == "BOOKMARK":
                continue
            self._counter.inc()
            if event.type == "DELETED":
                source.table.remove(metadata.get("namespace") or "", metadata["name"], metadata["uid"])
            else:
                source.table.put(event.object)
        return count
