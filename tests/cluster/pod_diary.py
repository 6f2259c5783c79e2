"""What became of the pods of a namespace, in order: the witness that no two generations ever lived together."""

from __future__ import annotations

import asyncio
import contextlib

from datahall.kube.resources import PODS
from tests.cluster.cluster import Cluster


class PodDiary:
    """Every change of the pods of a namespace, in the API server's order; `async with` starts and ends it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.entries: list[tuple[str, str]] = []

    async def __aenter__(self) -> PodDiary:
        listed = await self._cluster.client.list(PODS, namespace=self._cluster.namespace)
        self._task = asyncio.create_task(self._watch(listed["metadata"]["resourceVersion"]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self, version: str) -> None:
        async for event in self._cluster.client.watch(
            PODS, resource_version=version, namespace=self._cluster.namespace, timeout_seconds=600
        ):
            if event.type in ("ADDED", "DELETED"):
                self.entries.append((event.type, event.object["metadata"]["name"]))

    def added(self, job: str = "digits") -> list[str]:
        return [name for verb, name in self.entries if verb == "ADDED" and name.startswith(f"{job}-g")]

    def check_fence(self) -> None:
        """No pod of a generation was ever made while one of an earlier generation existed; none was made twice."""
        present: set[tuple[str, int]] = set()
        made: set[str] = set()
        for verb, name in self.entries:
            job, _, rest = name.rpartition("-g")
            generation = int(rest.partition("-")[0])
            if verb == "ADDED":
                assert name not in made, f"{name} was made twice"
                made.add(name)
                older = {p for p in present if p[0].startswith(f"{job}/") and p[1] < generation}
                assert not older, f"{name} was made while {older} existed"
                present.add((f"{job}/{name}", generation))
            else:
                present.discard((f"{job}/{name}", generation))
