"""An API server in memory, spoken to over real HTTP: objects, watches that can be cut or expired, pod logs, a proxy.

It runs in a thread of its own, so that synchronous code can be tested against it, and it is changed from any thread.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

Json = dict[str, Any]
KINDS = {
    "TrainingJob": "trainingjobs",
    "InferenceService": "inferenceservices",
    "Queue": "queues",
    "Pod": "pods",
    "Event": "events",
}
OURS = {"trainingjobs", "inferenceservices", "queues"}

HANG_UP = "hang up"  # cut the connection in mid-air
END = "end"  # end the watch in order
EXPIRE = "expire"  # say 410, as for a version that was compacted away


@dataclass
class Log:
    lines: list[tuple[str, str]] = field(default_factory=list)
    closed: bool = False
    cut_after: int | None = None
    """Hang up once after so many lines."""


class FakeApi:
    def __init__(self) -> None:
        self.objects: dict[str, dict[tuple[str, str], Json]] = defaultdict(dict)
        self.history: list[tuple[int, str, str, Json]] = []
        self.version = 100
        self.logs: dict[str, Log] = defaultdict(Log)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[Json] = []
        self.installed = True
        self.forbidden: set[str] = set()
        self.forbidden_everywhere: set[str] = set()
        """What may be listed in a namespace, and not in all of them."""
        self.answers: deque[tuple[int, Any]] = deque()
        self.proxy: Callable[[str, Json], tuple[int, Any]] = lambda path, body: (404, {})
        self.on_watch: dict[str, deque[Callable[[], str | None]]] = defaultdict(deque)
        self.on_log: dict[str, Callable[[], object]] = {}
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # --- life ---

    def start(self) -> None:
        self._thread.start()
        self._run(self._start())

    def stop(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        # A client that gave up leaves connections that are still being accepted: without these rounds of the loop
        # they would be accepted by a server that has closed, and never be closed themselves.
        await _rounds(10)
        await self._runner.cleanup()
        await _rounds(10)

    def kubeconfig(self, directory: Path, namespace: str = "team-a") -> Path:
        path = directory / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": "t0ken"}}],
            "contexts": [
                {"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": namespace}}
            ],
            "current-context": "fake",
        }
        path.write_text(json.dumps(config))
        return path

    # --- state, from any thread ---

    def put(self, body: Json) -> Json:
        return self._do(lambda: self._put(body))

    def remove(self, kind: str, name: str, namespace: str = "team-a") -> None:
        self._do(lambda: self._remove(KINDS[kind], namespace, name))

    def status(self, kind: str, name: str, namespace: str = "team-a", **status: Any) -> Json:
        """Change fields of the status."""
        return self._do(lambda: self._status(KINDS[kind], namespace, name, status))

    def log(self, pod: str, *lines: str, close: bool = False) -> None:
        def write() -> None:
            log = self.logs[pod]
            for line in lines:
                number = len(log.lines)
                log.lines.append((f"2026-11-22T15:00:{number // 4:02d}.{number:09d}Z", line))
            log.closed = log.closed or close
            self._notify()

        self._do(write)

    def count(self, verb: str, path_end: str) -> int:
        return sum(1 for method, path, _ in self.requests if method == verb and path.endswith(path_end))

    # --- inside ---

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _do(self, action: Callable[[], Any]) -> Any:
        if threading.current_thread() is self._thread:
            return action()

        async def inside() -> Any:
            return action()

        return self._run(inside())

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _put(self, body: Json, *, bump: bool = False) -> Json:
        plural = KINDS[body["kind"]]
        metadata = dict(body["metadata"])
        key = (metadata.get("namespace", ""), metadata["name"])
        old = self.objects[plural].get(key)
        self.version += 1
        metadata.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{self.version}")
        metadata.setdefault("creationTimestamp", "2026-11-22T15:00:00Z")
        generation = old["metadata"].get("generation", 1) if old else metadata.get("generation", 1)
        metadata["generation"] = generation + 1 if bump and old else generation
        metadata["resourceVersion"] = str(self.version)
        stored = {**body, "metadata": metadata}
        self.objects[plural][key] = stored
        self.history.append((self.version, plural, "MODIFIED" if old else "ADDED", stored))
        self._notify()
        return stored

    def _remove(self, plural: str, namespace: str, name: str) -> Json:
        gone = self.objects[plural].pop((namespace, name))
        self.version += 1
        gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
        self.history.append((self.version, plural, "DELETED", gone))
        self._notify()
        return gone

    def _status(self, plural: str, namespace: str, name: str, status: Json) -> Json:
        old = self.objects[plural][(namespace, name)]
        return self._put({**old, "status": {**old.get("status", {}), **status}})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path, dict(request.query)
        self.requests.append((request.method, path, query))
        if self.answers:
            status, answer = self.answers.popleft()
            return (
                web.Response(status=status, text=answer)
                if isinstance(answer, str)
                else web.json_response(answer, status=status)
            )
        body = json.loads(await request.read() or b"{}")
        self.bodies.append(body)
        parts = path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        plural, name, rest = parts[0], parts[1] if len(parts) > 1 else "", parts[2:]
        if plural in OURS and not self.installed:
            return web.Response(status=404, text="404 page not found\n")
        everywhere = not namespace and not name
        if plural in self.forbidden or (everywhere and plural in self.forbidden_everywhere):
            return _failure(403, "Forbidden", f'{plural} is forbidden: User "me" cannot list resource')
        if plural == "services" and rest[:1] == ["proxy"]:
            status, answer = self.proxy("/" + "/".join(rest[1:]), body)
            return web.json_response(answer, status=status)
        if rest == ["log"]:
            return await self._log(request, name, query)
        if not name:
            if query.get("watch") == "true":
                return await self._watch(request, plural, namespace, query)
            return self._list(plural, namespace, query)
        return self._object(request.method, plural, namespace, name, rest, body)

    def _object(
        self, method: str, plural: str, namespace: str, name: str, rest: list[str], body: Json
    ) -> web.Response:
        stored = self.objects[plural].get((namespace, name))
        if method == "PATCH" and stored is None and not rest and "kind" in body:
            return web.json_response(self._put(body), status=201)
        if stored is None:
            return _failure(404, "NotFound", f'{plural}.datahall.dev "{name}" not found')
        if method == "GET":
            return web.json_response(stored)
        if method == "DELETE":
            return web.json_response(self._remove(plural, namespace, name))
        if rest == ["scale"]:
            replicas = body["spec"]["replicas"]
            changed = {**stored, "spec": {**stored["spec"], "replicas": {"min": replicas}}}
            self._put(changed, bump=True)
            return web.json_response({"kind": "Scale", "spec": {"replicas": replicas}})
        changed = {**stored, "spec": {**stored["spec"], **body.get("spec", {})}}
        return web.json_response(self._put(changed, bump=True))

    def _list(self, plural: str, namespace: str, query: dict[str, str]) -> web.Response:
        items = [
            body
            for (where, _), body in sorted(self.objects[plural].items())
            if (not namespace or where == namespace) and _selected(body, query)
        ]
        metadata = {"resourceVersion": str(self.version)}
        return web.json_response({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})

    async def _watch(
        self, request: web.Request, plural: str, namespace: str, query: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        seen = int(query["resourceVersion"])
        act = self.on_watch[plural].popleft() if self.on_watch[plural] else None
        what = act() if act else None
        if what == EXPIRE:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        while True:
            changed = self._changed
            for version, where, type_, body in self.history:
                if version <= seen or where != plural or not _selected(body, query):
                    continue
                if namespace and body["metadata"].get("namespace") != namespace:
                    continue
                await response.write(json.dumps({"type": type_, "object": body}).encode() + b"\n")
            seen = self.version
            if what == HANG_UP:
                assert request.transport is not None
                request.transport.abort()
                return response
            if what == END:
                return response
            await changed.wait()

    async def _log(self, request: web.Request, pod: str, query: dict[str, str]) -> web.StreamResponse:
        if pod not in self.logs:
            return _failure(400, "BadRequest", f'container in pod "{pod}" is waiting to start')
        response = web.StreamResponse()
        await response.prepare(request)
        log, sent = self.logs[pod], 0
        if act := self.on_log.pop(pod, None):
            act()
        start = 0
        if "tailLines" in query:
            start = max(0, len(log.lines) - int(query["tailLines"]))
        since = query.get("sinceTime", "")
        position = start
        while True:
            changed = self._changed
            while position < len(log.lines):
                time, text = log.lines[position]
                position += 1
                if time[:19] < since[:19]:
                    continue
                line = f"{time} {text}" if query.get("timestamps") == "true" else text
                await response.write(line.encode() + b"\n")
                sent += 1
                if log.cut_after == sent:
                    log.cut_after = None
                    await asyncio.sleep(0)
                    assert request.transport is not None
                    request.transport.close()
                    return response
            if log.closed or query.get("follow") != "true":
                return response
            await changed.wait()


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _selected(body: Json, query: dict[str, str]) -> bool:
    for term in filter(None, query.get("labelSelector", "").split(",")):
        name, _, value = term.partition("=")
        if body["metadata"].get("labels", {}).get(name) != value:
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        where, _, value = term.partition("=")
        found: Any = body
        for part in where.split("."):
            found = found.get(part, {})
        if found != value:
            return False
    return True


def _failure(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message},
        status=code,
    )
