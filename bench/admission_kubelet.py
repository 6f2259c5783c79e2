"""The bench as every node's kubelet, and as the one who takes down what happens to jobs and pods.

A pod that the scheduler has bound runs; when all of a gang run, it ends well after its class's run time; a pod that is
to go is gone at once. Jobs that end within a second are reported once, as ended: so does a kubelet whose look at its
containers comes once a second. One watch of jobs and one of pods, both without an informer's cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from bench.admission_hall import now_text, say
from bench.admission_ledger import Key, Ledger
from bench.admission_objects import Json, gang_of, holds_place, is_true, running, succeeded
from datahall.kube import KubeClient, KubeError, NotFoundError, ResourceExpiredError, UnavailableError
from datahall.kube.resources import PODS, TRAINING_JOBS, Resource

REPORTERS = 8
"""Reports in flight. A hall has one kubelet per node; more at once would only queue in the API server."""
TYPE_STRATEGIC = "application/strategic-merge-patch+json"
_GONE = "DELETED"


@dataclass(slots=True)
class _Gang:
    """The pods of one generation of a job: those bound so far, and the timer of their end."""

    bound: set[str] = field(default_factory=set)
    timer: asyncio.TimerHandle | None = None


class Witness:
    """Takes down what the statuses of jobs tell."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.failed: dict[Key, str] = {}

    def job(self, kind: str, body: Json, at: float) -> Key | None:
        """Take down a change of a job; its key, None if it is none of the set's."""
        key = (body["metadata"]["namespace"], body["metadata"]["name"])
        if key not in self.ledger.entries or kind == _GONE:
            return None
        status: dict[str, Any] = body.get("status") or {}
        if is_true(status, "Succeeded"):
            self.ledger.finish(key, at)
        elif is_true(status, "Failed"):
            self.failed.setdefault(key, str(status.get("failure") or status.get("conditions")))
        elif holds_place(status):
            self.ledger.hold(key, at)
        else:
            self.ledger.release(key, at)
        return key


class Kubelet(Witness):
    """Plays the nodes and keeps the ledger."""

    def __init__(
        self,
        client: KubeClient,
        ledger: Ledger,
        *,
        runtimes: dict[str, float],
        reports_running: bool,
        operator: bool = True,
    ) -> None:
        """Start with nothing seen.

        Args:
            client: a connection pool of its own.
            ledger: what happens is written there.
            runtimes: seconds that a job of a class runs; a class without an entry runs for ever.
            reports_running: whether a kubelet says Running before it says Succeeded.
            operator: False for the control: a job is its pods then, and done when they are.
        """
        super().__init__(ledger)
        self._client = client
        self._runtimes = runtimes
        self._reports_running = reports_running
        self._operator = operator
        self._gangs: dict[tuple[str, str, str], _Gang] = {}
        self._ended: dict[Key, set[str]] = {}
        self._leaving: set[str] = set()
        self._reports: asyncio.Queue[tuple[str, str, Callable[[str], Json] | None]] = asyncio.Queue()
        self.on_job: Callable[[Key, Json], None] | None = None
        """Told of every change of a job, for a set that waits for one."""
        self.nodes_of: dict[Key, dict[str, str]] = {}
        """Bound pods of each job and their nodes."""

    async def run(self) -> None:
        """Watch and report for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(PODS, self._pod))
            if self._operator:
                group.create_task(self._follow(TRAINING_JOBS, self._job))
            for _ in range(REPORTERS):
                group.create_task(self._report())

    # ---- what is seen

    async def _follow(self, resource: Resource, take: Callable[[str, Json, float], None]) -> None:
        clock = asyncio.get_running_loop().time
        async for kind, body in changes(self._client, resource):
            take(kind, body, clock())

    def _job(self, kind: str, body: Json, at: float) -> None:
        key = self.job(kind, body, at)
        if key is not None and self.on_job is not None:
            self.on_job(key, body.get("status") or {})

    def _pod(self, kind: str, body: Json, at: float) -> None:
        gang = gang_of(body)
        if gang is None:
            return
        key = (gang[0], gang[1])
        entry = self.ledger.entries.get(key)
        if entry is None:
            return
        name, node = body["metadata"]["name"], body["spec"].get("nodeName")
        phase, place = body["status"].get("phase"), f"{key[0]}/{name}"
        if kind == _GONE:
            self._leaving.discard(place)
            self._forget(gang, key, name)
            return
        if phase in ("Succeeded", "Failed"):
            ended = self._ended.setdefault(key, set())
            ended.add(name)
            if not self._operator and len(ended) == entry.workers:
                self.ledger.finish(key, at)
            return
        if "deletionTimestamp" in body["metadata"]:
            self._forget(gang, key, name)
            if node and place not in self._leaving:
                self._leaving.add(place)
                self._reports.put_nowait((key[0], name, None))
            return
        if node:
            self._bound(gang, key, name, node, at)

    def _bound(self, gang: tuple[str, str, str], key: Key, name: str, node: str, at: float) -> None:
        state = self._gangs.setdefault(gang, _Gang())
        if name in state.bound:
            return
        state.bound.add(name)
        self.nodes_of.setdefault(key, {})[name] = node
        entry = self.ledger.entries[key]
        if self._reports_running:
            self._reports.put_nowait((key[0], name, running))
        if len(state.bound) < entry.workers:
            return
        if not self._operator:
            self.ledger.hold(key, at)
        self.ledger.bind(key, at)
        seconds = self._runtimes.get(entry.kind)
        if seconds is not None:
            state.timer = asyncio.get_running_loop().call_later(seconds, self._end, gang, tuple(state.bound))

    def _end(self, gang: tuple[str, str, str], names: tuple[str, ...]) -> None:
        for name in names:
            self._reports.put_nowait((gang[0], name, succeeded))

    def _forget(self, gang: tuple[str, str, str], key: Key, name: str) -> None:
        """A pod goes: what it was part of does not end by itself any more."""
        self.nodes_of.get(key, {}).pop(name, None)
        state = self._gangs.get(gang)
        if state is not None and state.timer is not None:
            state.timer.cancel()
            state.timer = None

    # ---- what is reported

    async def _report(self) -> None:
        while True:
            namespace, name, say_what = await self._reports.get()
            try:
                if say_what is None:
                    await self._client.delete(PODS, name, namespace=namespace, grace_seconds=0)
                    continue
                await self._client.request(
                    "PATCH",
                    PODS.path(namespace=namespace, name=name, subresource="status"),
                    verb="patch",
                    resource="pods/status",
                    body=say_what(now_text()),
                    content_type=TYPE_STRATEGIC,
                )
            except NotFoundError:
                continue  # it was deleted meanwhile
            except UnavailableError as error:
                say(f"report of {namespace}/{name} is repeated: {error}")
                self._reports.put_nowait((namespace, name, say_what))


async def changes(client: KubeClient, resource: Resource) -> AsyncIterator[tuple[str, Json]]:
    """Every object of a kind, then every change of one, for ever."""
    version = ""
    while True:
        try:
            if not version:
                listed = await client.list(resource)
                version = listed["metadata"]["resourceVersion"]
                for item in listed["items"]:
                    yield "ADDED", item
            async for event in client.watch(resource, resource_version=version):
                version = event.object["metadata"]["resourceVersion"]
                if event.type != "BOOKMARK":
                    yield event.type, event.object
        except ResourceExpiredError:
            version = ""
        except KubeError as error:
            say(f"watch of {resource.plural} is repeated: {error}")
            await asyncio.sleep(0.2)
