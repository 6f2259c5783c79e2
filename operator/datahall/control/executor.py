"""Makes plans happen: the only place that writes to the API server on behalf of a reconcile.

Every answer goes into the store at once, so the next look at the object sees its own writes even if the watch lags.
Nothing is written unless this process leads; a token bucket caps the rate, so that a bug is slow instead of a storm.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from datahall.control import labels
from datahall.control.actions import Action, Apply, Create, Delete, Patch
from datahall.kube import AlreadyExistsError, ConflictError, KubeClient, NotFoundError, Resource

Json = dict[str, Any]
Sink = Callable[[Resource, Json], None]
Gone = Callable[[Resource, str, str, str], None]


class NotLeadingError(Exception):
    """This process may not write any more; another one may be leading already."""


class NameTakenError(ConflictError):
    """Somebody else's object has the name that a child must have; only a person can tell which of them may go."""


class TokenBucket:
    """At most `rate` writes per second in the long run, `rate` at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = float("-inf")

    async def take(self) -> None:
        """Take one token, waiting for it if there is none."""
        loop = asyncio.get_running_loop()
        self._tokens = min(self._rate, self._tokens + (loop.time() - self._at) * self._rate)
        self._at = loop.time()
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)


class Executor:
    """Carries out actions and status writes."""

    def __init__(
        self,
        client: KubeClient,
        *,
        leading: Callable[[], bool],
        writes_per_second: float,
        saw: Sink,
        gone: Gone,
    ) -> None:
        self._client = client
        self._leading = leading
        self._bucket = TokenBucket(writes_per_second)
        self._saw = saw
        self._gone = gone

    async def run(self, action: Action) -> None:
        """Carry out one action.

        Raises:
            NotLeadingError: this process may not write.
            KubeError: the API server refused, or did not answer.
        """
        await self._permit()
        match action:
            case Create():
                await self._create(action)
            case Apply():
                await self._apply(action)
            case Delete():
                await self._delete(action)
            case Patch():
                await self._patch(action)

    async def write_status(
        self, resource: Resource, *, before: Json, after: Json, at_version: int, meta: Json
    ) -> None:
        """Change a status from `before` to `after` if the object is still at `at_version`.

        The version makes it a compare-and-swap: a leader that was replaced while it slept cannot write over its
        successor's status.

        Raises:
            ConflictError: the object has changed since; look at it again.
        """
        await self._permit()
        patch = {"metadata": {"resourceVersion": str(at_version)}, "status": difference(before, after)}
        answer = await self._client.merge_patch(
            resource,
            patch,
            name=meta["name"],
            namespace=meta.get("namespace") or None,
            field_manager=labels.STATUS_MANAGER,
            subresource="status",
        )
        self._saw(resource, answer)

    async def _permit(self) -> None:
        await self._bucket.take()
        if not self._leading():
            raise NotLeadingError

    async def _create(self, action: Create) -> None:
        metadata = action.body["metadata"]
        namespace = metadata.get("namespace")
        try:
            answer = await self._client.create(action.resource, action.body, namespace=namespace)
        except AlreadyExistsError:
            # Made by an earlier run of ours, or by somebody else: take its state in and look again.
            answer = await self._client.get(action.resource, metadata["name"], namespace=namespace)
            if _left_behind(answer, action.body):
                self._saw(action.resource, answer)  # the next look tells of it, and waits for it to go
            _check_owner(action.resource, answer, action.body)
        self._saw(action.resource, answer)

    async def _apply(self, action: Apply) -> None:
        metadata = action.body["metadata"]
        if action.first:
            # A forced apply would take over whatever has that name, and turn a stranger's Service to our pods.
            with contextlib.suppress(NotFoundError):
                existing = await self._client.get(
                    action.resource, metadata["name"], namespace=metadata.get("namespace")
                )
                _check_owner(action.resource, existing, action.body)
        answer = await self._client.apply(
            action.resource,
            action.body,
            name=metadata["name"],
            namespace=metadata.get("namespace"),
            field_manager=labels.FIELD_MANAGER,
            force=True,
        )
        self._saw(action.resource, answer)

    async def _delete(self, action: Delete) -> None:
        namespace = action.namespace or None
        try:
            answer = await self._client.delete(
                action.resource,
                action.name,
                namespace=namespace,
                uid=action.uid,
                grace_seconds=action.grace_seconds,
            )
        except NotFoundError:
            self._gone(action.resource, action.namespace, action.name, action.uid)
            return
        except ConflictError:
            # Either its name belongs to a later object by now, or something else was in the way and it is still there.
            if await self._exists(action):
                raise
            self._gone(action.resource, action.namespace, action.name, action.uid)
            return
        if answer.get("kind") == action.resource.kind and "deletionTimestamp" in answer.get("metadata", {}):
            with contextlib.suppress(KeyError):
                self._saw(action.resource, answer)
        else:
            self._gone(action.resource, action.namespace, action.name, action.uid)

    async def _patch(self, action: Patch) -> None:
        namespace = action.namespace or None
        try:
            answer = await self._client.merge_patch(
                action.resource,
                action.body,
                name=action.name,
                namespace=namespace,
                field_manager=labels.FIELD_MANAGER,
            )
        except NotFoundError:
            self._gone(action.resource, action.namespace, action.name, action.uid)
            return
        except ConflictError:
            # Somebody else has changed it: what it is now brings the next look, which decides anew.
            try:
                answer = await self._client.get(action.resource, action.name, namespace=namespace)
            except NotFoundError:
                self._gone(action.resource, action.namespace, action.name, action.uid)
                return
        self._saw(action.resource, answer)

    async def _exists(self, action: Delete) -> bool:
        with contextlib.suppress(NotFoundError):
            found = await self._client.get(action.resource, action.name, namespace=action.namespace or None)
            return bool(found["metadata"]["uid"] == action.uid)
        return False


def _check_owner(resource: Resource, existing: Json, wanted: Json) -> None:
    if _owned_by_same(existing, wanted):
        return
    what = f"{resource.kind} {wanted['metadata']['name']}"
    if _left_behind(existing, wanted):
        raise ConflictError(f"{what} of an earlier object is not collected yet", status=409)
    raise NameTakenError(f"{what} exists and is not ours: rename or delete one", status=409)


def _owned_by_same(existing: Json, wanted: Json) -> bool:
    def owners(body: Json) -> set[str]:
        return {reference["uid"] for reference in body["metadata"].get("ownerReferences") or ()}

    return owners(wanted) <= owners(existing)


def _left_behind(existing: Json, wanted: Json) -> bool:
    """Whether the owner was an earlier object of the same kind and name, so that the garbage collector takes it."""
    if _owned_by_same(existing, wanted):
        return False

    def owners(body: Json) -> set[tuple[str, str]]:
        return {(ref["kind"], ref["name"]) for ref in body["metadata"].get("ownerReferences") or ()}

    return bool(owners(wanted) & owners(existing))


def difference(before: Json, after: Json) -> Json:
    """The JSON merge patch (RFC 7396) that turns `before` into `after`; lists are replaced whole."""
    patch: Json = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if old == value and key in before:
            continue
        patch[key] = difference(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return patch
