"""Following objects as they change: list, then watch, and the same again when the stream is lost.

Level-triggered like the operator: every yield is the whole present picture, so a consumer cannot miss a deletion that
happened while the stream was down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from datahall.kube import KubeClient, ResourceExpiredError, TooManyRequestsError, UnavailableError
from datahall.kube.resources import Resource
from datahall.sdk.kinds import Json

PATIENCE_SECONDS = 300.0
"""How long the API server may stay away before a follower gives up: longer than a control plane upgrade takes."""
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 8.0


async def snapshots(
    kube: KubeClient,
    resource: Resource,
    *,
    namespace: str | None,
    name: str | None = None,
    label_selector: str = "",
) -> AsyncGenerator[dict[str, Json], None]:
    """Yield the matching objects by name, first as they are and then after every change, for ever.

    Expired versions (410), ended streams and lost connections are mended here. The very first list is not repeated:
    whoever cannot reach the API server at all should hear it at once.

    Raises:
        UnavailableError: the first list failed, or nothing came through for `PATIENCE_SECONDS`.
        KubeError: any answer that trying again cannot change.
    """
    loop = asyncio.get_running_loop()
    objects: dict[str, Json] = {}
    version: str | None = None
    reached = False
    broken_since: float | None = None
    failures = 0
    while True:
        try:
            if version is None:
                answer = await kube.list(
                    resource,
                    namespace=namespace,
                    field_selector=f"metadata.name={name}" if name is not None else "",
                    label_selector=label_selector,
                )
                objects = {item["metadata"]["name"]: item for item in answer["items"]}
                version = answer["metadata"]["resourceVersion"]
                reached, broken_since = True, None
                yield dict(objects)
            started = loop.time()
            stream = kube.watch(
                resource,
                resource_version=version,
                namespace=namespace,
                name=name,
                label_selector=label_selector,
            )
            async with aclosing(stream) as events:
                async for event in events:
                    broken_since, failures = None, 0
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type == "BOOKMARK":
                        continue
                    if event.type == "DELETED":
                        objects.pop(event.object["metadata"]["name"], None)
                    else:
                        objects[event.object["metadata"]["name"]] = event.object
                    yield dict(objects)
            broken_since = None
            if loop.time() - started >= 1:
                failures = 0
                continue  # the server ended the stream in order, as it does every few minutes
            failures += 1  # a server that hangs up at once must not be asked a thousand times a second
            wait = 0.0
        except ResourceExpiredError:
            version = None
            failures += 1
            wait = 0.0
        except UnavailableError as error:
            broken_since = loop.time() if broken_since is None else broken_since
            if not reached or loop.time() - broken_since > PATIENCE_SECONDS:
                raise
            failures += 1
            wait = error.retry_after_seconds if isinstance(error, TooManyRequestsError) else 0.0
        if failures > 1 or wait:
            await asyncio.sleep(max(wait, delay_seconds(failures)))


def delay_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row: nothing after the first, then doubling."""
    if failures < 2:
        return 0.0
    return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (failures - 2))
