"""A proxy between one operator and the API server, which records every call and makes trouble on request.

It can answer in the server's place, lose an answer, cut the connection, or have the operator killed at that very
moment: before a write is done, or after it is done and before the operator knows. Everything lives on the test's
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from local_cluster import kubeconfig
from local_cluster.api import ApiServer
from tests.cluster.operator_process import free_ports

Json = dict[str, Any]


@dataclass
class Call:
    """One request that went through the proxy."""

    method: str
    path: str
    body: Json | None
    at: float
    status: int = 0

    @property
    def is_write(self) -> bool:
        return self.method != "GET"

    @property
    def name(self) -> str:
        """The object that is written: of a create, the name in the body."""
        if self.method == "POST":
            return str((self.body or {}).get("metadata", {}).get("name", ""))
        return self.path.removesuffix("/status").rpartition("/")[2]

    @property
    def site(self) -> str:
        """What kind of write this is, without names."""
        parts = [part for part in self.path.split("/") if part]
        plural = next((p for p in PLURALS if p in parts), parts[-1])
        return f"{self.method} {plural}" + ("/status" if self.path.endswith("/status") else "")

    @property
    def of_a_job(self) -> bool:
        """Whether it writes a job's status or one of its children: neither lease, Event, Queue nor review."""
        return self.is_write and any(f"/{plural}" in self.path for plural in JOB_PLURALS)


PLURALS = (
    "trainingjobs",
    "pods",
    "services",
    "leases",
    "events",
    "queues",
    "deployments",
    "inferenceservices",
)
JOB_PLURALS = ("trainingjobs", "pods", "services")


@dataclass
class Fault:
    """What happens to one call, instead of being passed on and answered.

    Attributes:
        status: answer this in the server's place; 0: pass the call on.
        headers: of that answer.
        before: called before the call is passed on; the connection is cut afterwards, and nothing is passed on.
        after: called after the server has done it; the connection is cut afterwards.
        reset: cut the connection instead of passing the call on.
        lost: pass the call on and answer 504 nevertheless.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    reset: bool = False
    lost: bool = False


_REASONS = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError", 504: "Timeout"}
_HOPS = {"connection", "transfer-encoding", "content-length", "host", "content-encoding", "accept-encoding"}


class Proxy:
    """A plain HTTP server that passes everything on to one API server; `async with` starts and ends it."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.calls: list[Call] = []
        self.judge: Callable[[Call], Fault | None] = lambda _: None
        self._open: set[asyncio.Task[Any]] = set()
        self._server = server
        self._context = ssl.create_default_context(cafile=str(server.ca))
        (self._port,) = free_ports(1)
        self.login = folder / f"proxy-{self._port}.kubeconfig"

    async def __aenter__(self) -> Proxy:
        text = kubeconfig.render(
            url=f"http://127.0.0.1:{self._port}",
            ca=self._server.ca.read_bytes(),
            token=self._server.token,
            user="admin",
        )
        kubeconfig.write(self.login, text)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._context, limit=0))
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._runner.cleanup()
        await self._session.close()

    def writes(self, namespace: str = "") -> list[Call]:
        """Writes of jobs' statuses and children that went through, in order."""
        where = f"/namespaces/{namespace}/"
        return [call for call in self.calls if call.of_a_job and (not namespace or where in call.path)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            return await self._pass_on(request)
        finally:
            self._open.discard(task)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw) if raw else None
        call = Call(request.method, request.path, body, time.monotonic())
        if call.is_write:
            self.calls.append(call)
        fault = self.judge(call) or Fault()
        if fault.before is not None or fault.reset:
            if fault.before is not None:
                fault.before()
            return _cut(request)
        if fault.status:
            call.status = fault.status
            body = {
                "kind": "Status",
                "code": fault.status,
                "reason": _REASONS[fault.status],
                "message": "injected",
            }
            return web.json_response(body, status=fault.status, headers=fault.headers)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOPS}
        async with self._session.request(
            request.method,
            self._server.url + request.path_qs,
            data=raw or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            call.status = answer.status
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOPS}
            if request.query.get("watch") == "true":
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                return response
            content = await answer.read()
        if fault.after is not None:
            fault.after()
            return _cut(request)
        if fault.lost:
            return web.json_response(
                {"kind": "Status", "code": 504, "reason": "Timeout", "message": "injected"}, status=504
            )
        return web.Response(status=call.status, headers=kept, body=content)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
