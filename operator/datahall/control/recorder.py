"""Events (events.k8s.io/v1): told once, and counted when told again.

An Event that repeats an earlier one (same object, reason and message) within the window becomes a series on it instead
of a new object. Telling is best effort and never in the way: it happens behind the reconcile and its failure is logged.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import structlog

from datahall.api import API_VERSION
from datahall.control.actions import Announce
from datahall.kube import AlreadyExistsError, KubeClient, KubeError
from datahall.kube.resources import EVENTS

log = structlog.get_logger(__name__)

WINDOW_SECONDS = 600.0
REMEMBERED = 10_000
_LONGEST_NOTE = 1024
"""The API server refuses longer notes."""


@dataclass(slots=True)
class _Told:
    at: float
    count: int = 1


class Recorder:
    """Writes Events for one operator process."""

    def __init__(self, client: KubeClient, *, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, kind: str, namespace: str, name: str, uid: str, news: Announce) -> None:
        """Tell of something about an object, behind the caller's back."""
        task = asyncio.create_task(self._tell(kind, namespace, name, uid, news))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until everything told so far is written."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tell(self, kind: str, namespace: str, name: str, uid: str, news: Announce) -> None:
        loop = asyncio.get_running_loop()
        # One name per (object, reason, message), so that a restarted operator meets its own earlier Event.
        digest = hashlib.sha256(f"{uid}/{news.reason}/{news.message}".encode()).hexdigest()[:16]
        event_name = f"{name}.{digest}"
        told = self._told.get(event_name)
        if told is not None and loop.time() - told.at < WINDOW_SECONDS:
            told.count += 1
        else:
            told = self._told[event_name] = _Told(loop.time())
            if len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
        where = namespace or "default"  # Events of cluster-scoped objects live there
        try:
            if told.count == 1:
                try:
                    await self._client.create(
                        EVENTS,
                        self._event(kind, namespace, name, uid, news, event_name=event_name, where=where),
                        namespace=where,
                    )
                    return
                except AlreadyExistsError:
                    told.count = 2
            series = {"series": {"count": told.count, "lastObservedTime": _micro_now()}}
            await self._client.merge_patch(
                EVENTS, series, name=event_name, namespace=where, field_manager="datahall"
            )
        except KubeError as error:
            self._told.pop(event_name, None)  # who tells of it next, tells of it first
            log.warning("event not written", event_reason=str(news.reason), name=name, error=str(error))

    def _event(
        self, kind: str, namespace: str, name: str, uid: str, news: Announce, *, event_name: str, where: str
    ) -> dict[str, Any]:
        regarding = {"apiVersion": API_VERSION, "kind": kind, "name": name, "uid": uid}
        if namespace:
            regarding["namespace"] = namespace
        note = (
            news.message if len(news.message) <= _LONGEST_NOTE else news.message[: _LONGEST_NOTE - 3] + "..."
        )
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": event_name, "namespace": where},
            "eventTime": _micro_now(),
            "action": "Reconcile",
            "reason": str(news.reason),
            "note": note,
            "type": str(news.reason.event_type),
            "regarding": regarding,
            "reportingController": "datahall.dev/operator",
            "reportingInstance": self._instance[:128],
        }


def _micro_now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
