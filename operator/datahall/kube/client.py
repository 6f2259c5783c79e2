"""Requests to the API server: every call the project makes goes through `KubeClient.request` or `KubeClient.watch`.

It does not retry: whether a failed write may be repeated is the caller's knowledge (a level-triggered loop simply
comes back). Server-side apply without a field manager is refused, because two managers of one name revert each other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from datahall.kube import login as login_
from datahall.kube.errors import InvalidError, ResourceExpiredError, UnavailableError, from_response
from datahall.kube.resources import Resource

TYPE_JSON = "application/json"
TYPE_MERGE_PATCH = "application/merge-patch+json"
TYPE_APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML; the API server has no JSON form of this one

SILENCE_SECONDS = 30.0
"""A watch that is silent this long past the end that was asked for is dead: the connection broke unnoticed."""

_CLEAN_UP_CLOSED = sys.version_info < (3, 12, 7)
"""Before that Python, a TLS connection that is cut off waits for the other side; it is cut at `close` then."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch stream: ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    type: str
    object: Json


@dataclass(slots=True)
class CallRecord:
    """One finished call, for metrics and for the test that compares RBAC with what is used."""

    verb: str
    resource: str
    status: int
    seconds: float


class KubeClient:
    """Raw-JSON client over one connection pool. Use it as an asynchronous context manager."""

    def __init__(
        self,
        login: login_.Login,
        *,
        connections: int = 32,
        timeout_seconds: float = 30.0,
        user_agent: str = "datahall",
        on_call: Callable[[CallRecord], None] | None = None,
    ) -> None:
        self.login = login
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=10)
        self._connector = aiohttp.TCPConnector(
            limit=connections, ssl=login.ssl_context or False, enable_cleanup_closed=_CLEAN_UP_CLOSED
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector, headers={"User-Agent": user_agent}, auto_decompress=True
        )
        # Watches and log streams live for minutes each; in the pool they would starve the short calls.
        self._stream_connector = aiohttp.TCPConnector(
            limit=0, ssl=login.ssl_context or False, enable_cleanup_closed=_CLEAN_UP_CLOSED
        )
        self._streams = aiohttp.ClientSession(
            connector=self._stream_connector, headers={"User-Agent": user_agent}
        )
        self._on_call = on_call

    @classmethod
    async def connect(
        cls, *, kubeconfig: str | None = None, context: str | None = None, **options: Any
    ) -> KubeClient:
        """Load the login and make a client.

        Raises:
            KubeConfigError: no usable kubeconfig or service account.
        """
        return cls(await login_.load(kubeconfig=kubeconfig, context=context), **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._streams.close()
        # Transports that were cut off close with the next turns of the loop, which may be its last.
        for _ in range(3):
            await asyncio.sleep(0)

    async def request(
        self,
        method: str,
        path: str,
        *,
        verb: str,
        resource: str,
        body: Any = None,
        content_type: str = TYPE_JSON,
        params: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Json:
        """One call; the decoded JSON answer. `timeout_seconds` overrides the client's own for this call.

        Raises:
            UnavailableError: no answer, or 5xx.
            KubeError: the class that fits any other answer of 400 or more.
        """
        what = f"{verb} {path}"
        headers = await self._headers(content_type if body is not None else None)
        data = orjson.dumps(body) if body is not None else None
        loop = asyncio.get_running_loop()
        started, status = loop.time(), 0
        try:
            async with self._session.request(
                method,
                self.login.server + path,
                data=data,
                params=params,
                headers=headers,
                timeout=self._timeout
                if timeout_seconds is None
                else aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=10),
            ) as response:
                status = response.status
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"{what}: {type(error).__name__}: {error}") from error
        finally:
            if self._on_call is not None:
                self._on_call(CallRecord(verb, resource, status, loop.time() - started))
        if status >= 400:
            raise from_response(
                status, _decode(raw), what=what, retry_after=response.headers.get("Retry-After")
            )
        return _object(raw, what=what) if raw else {}

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        """Read one object."""
        return await self.request(
            "GET", resource.path(namespace=namespace, name=name), verb="get", resource=resource.plural
        )

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        from_cache: bool = False,
    ) -> Json:
        """Read a list (the whole list object: `items`, and `metadata.resourceVersion` to watch from).

        Args:
            resource: the kind.
            namespace: None for all namespaces.
            label_selector: as in `kubectl -l`.
            field_selector: as in `kubectl --field-selector`.
            limit: page size; pages are joined here. 0 = one page.
            from_cache: let the API server answer from its watch cache (resourceVersion=0): cheap, maybe a little old.
        """
        params: dict[str, str] = {}
        if label_selector:
            params["labelSelector"] = label_selector
        if field_selector:
            params["fieldSelector"] = field_selector
        if limit:
            params["limit"] = str(limit)
        if from_cache:
            params["resourceVersion"] = "0"
        path = resource.path(namespace=namespace)
        answer = await self.request("GET", path, verb="list", resource=resource.plural, params=params)
        while token := answer.get("metadata", {}).get("continue"):
            page = await self.request(
                "GET", path, verb="list", resource=resource.plural, params={**params, "continue": token}
            )
            page["items"] = answer["items"] + page["items"]
            answer = page
        return answer

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        """Create one object.

        Raises:
            AlreadyExistsError: one of that name exists.
        """
        return await self.request(
            "POST", resource.path(namespace=namespace), verb="create", resource=resource.plural, body=body
        )

    async def apply(
        self,
        resource: Resource,
        body: Json,
        *,
        name: str,
        field_manager: str,
        namespace: str | None = None,
        force: bool = False,
        subresource: str | None = None,
    ) -> Json:
        """Server-side apply: what `body` holds becomes so, and is owned by `field_manager`.

        Raises:
            InvalidError: no field manager, or the object breaks a rule.
            ConflictError: another manager owns a field and `force` is False.
        """
        if not field_manager:
            raise InvalidError("server-side apply needs a field manager")
        return await self.request(
            "PATCH",
            resource.path(namespace=namespace, name=name, subresource=subresource),
            verb="patch",
            resource=_with_subresource(resource, subresource),
            body=body,
            content_type=TYPE_APPLY_PATCH,
            params={"fieldManager": field_manager, "force": "true" if force else "false"},
        )

    async def merge_patch(
        self,
        resource: Resource,
        body: Json,
        *,
        name: str,
        field_manager: str,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> Json:
        """JSON merge patch (RFC 7396): None deletes a field; a resourceVersion in `body` makes it conditional."""
        return await self.request(
            "PATCH",
            resource.path(namespace=namespace, name=name, subresource=subresource),
            verb="patch",
            resource=_with_subresource(resource, subresource),
            body=body,
            content_type=TYPE_MERGE_PATCH,
            params={"fieldManager": field_manager},
        )

    async def replace(
        self, resource: Resource, body: Json, *, name: str, namespace: str | None = None
    ) -> Json:
        """PUT: replace one object; the resourceVersion in `body` must be the current one."""
        return await self.request(
            "PUT",
            resource.path(namespace=namespace, name=name),
            verb="update",
            resource=resource.plural,
            body=body,
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: str = "Background",
    ) -> Json:
        """Delete one object; with `uid`, only that very object and not a later one of its name."""
        body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        return await self.request(
            "DELETE",
            resource.path(namespace=namespace, name=name),
            verb="delete",
            resource=resource.plural,
            body=body,
        )

    async def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        name: str | None = None,
        label_selector: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Yield changes after `resource_version` until the server ends the stream (at `timeout_seconds` at the latest).

        Raises:
            ResourceExpiredError: the version is too old; list again.
            UnavailableError: the stream broke, or stayed silent past the time-out.
        """
        params = {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_seconds),
        }
        if label_selector:
            params["labelSelector"] = label_selector
        if name is not None:
            params["fieldSelector"] = f"metadata.name={name}"
        path, silent_seconds = resource.path(namespace=namespace), timeout_seconds + SILENCE_SECONDS
        stream = self._stream(path, params, silent_seconds=silent_seconds)
        async with aclosing(stream) as lines:  # a caller that leaves early closes the connection at once
            async for line in lines:
                event = _object(line, what=f"watch {resource.plural}")
                if event["type"] == "ERROR":
                    status = event["object"]
                    code = int(status.get("code", 500))
                    if code == 410:
                        raise ResourceExpiredError(
                            str(status.get("message", "")), status=410, reason="Expired"
                        )
                    raise from_response(code, status, what=f"watch {resource.plural}")
                yield WatchEvent(event["type"], event["object"])

    async def pod_logs(
        self,
        name: str,
        *,
        namespace: str,
        container: str | None = None,
        follow: bool = False,
        tail_lines: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
        since_time: str | None = None,
    ) -> AsyncGenerator[str, None]:
        """Yield log lines of one container, without the line end.

        `timestamps` puts the time (RFC 3339, nanoseconds) and a space before each line, and `since_time` leaves out
        what is older (whole seconds): together they let a follower go on after a broken stream.
        """
        from datahall.kube.resources import PODS

        params: dict[str, str] = {"follow": str(follow).lower(), "previous": str(previous).lower()}
        if container:
            params["container"] = container
        if tail_lines is not None:
            params["tailLines"] = str(tail_lines)
        if timestamps:
            params["timestamps"] = "true"
        if since_time is not None:
            params["sinceTime"] = since_time
        path = PODS.path(namespace=namespace, name=name, subresource="log")
        async with aclosing(self._stream(path, params, silent_seconds=None)) as lines:
            async for line in lines:
                yield line.decode(errors="replace")

    async def _stream(
        self, path: str, params: Mapping[str, str], *, silent_seconds: float | None
    ) -> AsyncGenerator[bytes, None]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silent_seconds)
        try:
            async with self._streams.get(
                self.login.server + path, params=params, headers=await self._headers(None), timeout=timeout
            ) as response:
                if response.status >= 400:
                    raise from_response(
                        response.status, _decode(await response.read()), what=f"stream {path}"
                    )
                # Not `async for line in content`: aiohttp refuses lines past 64 KiB, and objects are longer.
                pending = b""
                async for chunk in response.content.iter_any():
                    pending += chunk
                    *lines, pending = pending.split(b"\n")
                    for line in lines:
                        yield line
                if pending:
                    yield pending
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"stream {path}: {type(error).__name__}: {error}") from error

    async def _headers(self, content_type: str | None) -> dict[str, str]:
        headers = {"Accept": TYPE_JSON}
        if content_type is not None:
            headers["Content-Type"] = content_type
        if authorization := await self.login.authorization():
            headers["Authorization"] = authorization
        return headers


def _with_subresource(resource: Resource, subresource: str | None) -> str:
    return f"{resource.plural}/{subresource}" if subresource else resource.plural


def _object(raw: bytes, *, what: str) -> Json:
    """The object that the API server sent; anything else comes from a proxy between us, or was cut off."""
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UnavailableError(f"{what}: not JSON: {raw[:200].decode(errors='replace')!r}") from error
    if not isinstance(answer, dict):
        raise UnavailableError(f"{what}: not an object: {str(answer)[:200]}")
    return answer


def _decode(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode(errors="replace")
