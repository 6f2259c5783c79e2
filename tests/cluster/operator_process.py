"""The operator as a real process before a real API server, and those around it that tests play: proxy, kubelet, user.

Everything lives on the test's event loop. `Proxy` stands between one operator and the API server: it records every
call and can answer in the server's place, lose an answer, or have the operator killed at that very moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from datahall.kube import AlreadyExistsError, KubeClient, NotFoundError, Resource, UnavailableError
from datahall.kube.login import Login
from datahall.kube.resources import (
    INFERENCE_SERVICES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    QUEUES,
    TRAINING_JOBS,
)
from local_cluster import kubeconfig
from local_cluster.api import ApiServer
from tests.cluster.warm_start import WarmStart

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
CRDS = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)
API = "datahall.dev/v1alpha1"
DIGEST = "sha256:" + "0123456789abcdef" * 4
LEASE_SECONDS = 3
SUCCEEDED = {
    "result": "Succeeded",
    "output": {"uri": "pvc://models/digits/versions/0123456789abcdef", "digest": DIGEST},
    "progress": {"step": 10, "totalSteps": 10, "metrics": {"validation_accuracy": 0.98}},
    "checkpoint": None,
}


# ---- processes


class Operator:
    """`python -m datahall.control`, started, killed and started again under one identity."""

    def __init__(
        self,
        login: Path,
        *,
        namespace: str,
        folder: Path,
        name: str = "operator-0",
        warm: WarmStart | None = None,
        **env: str,
    ) -> None:
        self.name = name
        self.report_port, self.probe_port = free_ports(2)
        self.log = folder / f"{name}-{time.monotonic_ns()}.log"
        self._env = os.environ | {
            "KUBECONFIG": str(login),
            "POD_NAME": name,
            "POD_NAMESPACE": namespace,
            "DATAHALL_REPORT_PORT": str(self.report_port),
            "DATAHALL_PROBE_PORT": str(self.probe_port),
            "DATAHALL_LEASE_SECONDS": str(LEASE_SECONDS),
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._warm, self._pid = warm, 0

    @property
    def running(self) -> bool:
        return bool(self._pid) or (self._process is not None and self._process.poll() is None)

    def start(self) -> None:
        assert not self.running
        if self._warm is not None:
            self._pid = self._warm.start(self._env, self.log)
            return
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "datahall.control"]
            self._process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and gone."""
        if self._warm is not None and self._pid:
            self._warm.kill(self._pid)
            self._pid = 0
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(15)
        finally:
            self._process.kill()

    async def leads(self, seconds: float = 20) -> None:
        async def leading() -> bool:
            assert self.running, self.log.read_text()[-3000:]
            return (await self.metrics()).get("datahall_leader") == 1

        await until(leading, seconds=seconds, what=f"{self.name} leads")

    async def metrics(self) -> dict[str, float]:
        text = (await self.probe("metrics"))[1]
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(number) for name, _, number in lines}

    async def probe(self, path: str) -> tuple[int, str]:
        """Status and text of a probe; (0, "") where nobody answers."""

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{self.probe_port}/{path}", timeout=5
                ) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except OSError:
                return 0, ""

        return await asyncio.to_thread(ask)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


async def until(
    check: Callable[[], Awaitable[Any]], *, seconds: float = 20, what: str = "", every: float = 0.05
) -> Any:
    """Poll until `check` gives something true; its value."""
    deadline = time.monotonic() + seconds
    while True:
        if value := await check():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what or check}")
        await asyncio.sleep(every)


# ---- the proxy


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


# ---- the cluster, as its administrator and users see it


class Cluster:
    """A namespace with nodes, a Queue and claims; helpers to make, read and await objects."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, server: ApiServer, namespace: str, *, nodes: int = 0, quota: int = 64
    ) -> AsyncIterator[Cluster]:
        """Connect; install the definitions; make nodes, a Queue named like the namespace, and claims."""
        context = ssl.create_default_context(cafile=str(server.ca))

        async def authorization() -> str:
            return f"Bearer {server.token}"

        async with KubeClient(Login(server.url, context, authorization, namespace)) as client:
            self = cls(client, namespace)
            await self._install()
            for index in range(nodes):
                await self._node(f"{namespace}-{index}")
            await until(self._account, what="the default service account")
            await self.queue(quota)
            for name in ("data", "models"):
                await self.claim(name)
            try:
                yield self
            finally:
                await self._clean(nodes)

    async def _install(self) -> None:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            body = yaml.safe_load(path.read_text())
            with contextlib.suppress(AlreadyExistsError):
                await self.client.create(CRDS, body)
        for resource in (TRAINING_JOBS, INFERENCE_SERVICES, QUEUES):

            async def served(resource: Resource = resource) -> bool:
                try:
                    await self.client.list(resource)
                except (NotFoundError, UnavailableError):  # "storage is (re)initializing" at first
                    return False
                return True

            await until(served, what=f"{resource.plural} are served")

    async def _account(self) -> bool:
        accounts = Resource("", "v1", "ServiceAccount", "serviceaccounts")
        return await self.get(accounts, "default") is not None

    async def _node(self, name: str) -> None:
        amounts = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": "8"}
        body = {
            "metadata": {
                "name": name,
                "labels": {"nvidia.com/gpu.product": "H100", "kubernetes.io/hostname": name},
            },
            "status": {
                "allocatable": amounts,
                "capacity": amounts,
                "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T15:00:00Z"}
                ],
            },
        }
        await self.client.create(NODES, body)

    async def _clean(self, nodes: int) -> None:
        for resource in (TRAINING_JOBS, INFERENCE_SERVICES, PODS):
            for item in (await self.client.list(resource, namespace=self.namespace))["items"]:
                with contextlib.suppress(NotFoundError):
                    await self.client.delete(
                        resource, item["metadata"]["name"], namespace=self.namespace, grace_seconds=0
                    )
        with contextlib.suppress(NotFoundError):
            await self.client.delete(QUEUES, self.namespace)
        for index in range(nodes):
            await self.client.delete(NODES, f"{self.namespace}-{index}")

    # ---- making

    async def queue(self, nominal: int) -> None:
        body = {
            "apiVersion": API,
            "kind": "Queue",
            "metadata": {"name": self.namespace},
            "spec": {"gpus": [{"model": "Any", "nominal": nominal}]},
        }
        await self.client.create(QUEUES, body)

    async def claim(self, name: str) -> None:
        body = {
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        await self.client.create(PERSISTENT_VOLUME_CLAIMS, body, namespace=self.namespace)

    async def job(self, name: str = "digits", *, workers: int = 2, **spec: Any) -> str:
        """Submit a TrainingJob; its name."""
        whole = {
            "queue": self.namespace,
            "task": "ImageClassification",
            "workers": {"count": workers},
            "resources": {"gpus": 1, "cpu": "1", "memory": "1Gi"},
            "model": {"architecture": "cnn"},
            "data": {"train": "pvc://data/digits", "validationFraction": 0.2},
            "training": {"epochs": 1, "batchSize": 64},
            "output": {"uri": "pvc://models/digits"},
        } | spec
        whole = {key: value for key, value in whole.items() if value is not None}
        body = {"apiVersion": API, "kind": "TrainingJob", "metadata": {"name": name}, "spec": whole}
        await self.client.create(TRAINING_JOBS, body, namespace=self.namespace)
        return name

    async def service(self, name: str = "digits", **spec: Any) -> str:
        whole = {"queue": self.namespace, "model": {"fromTrainingJob": {"name": "digits"}}} | spec
        body = {"apiVersion": API, "kind": "InferenceService", "metadata": {"name": name}, "spec": whole}
        await self.client.create(INFERENCE_SERVICES, body, namespace=self.namespace)
        return name

    async def edit(self, resource: Resource, name: str, **spec: Any) -> None:
        await self.client.merge_patch(
            resource, {"spec": spec}, name=name, namespace=self.namespace, field_manager="test"
        )

    async def delete(self, resource: Resource, name: str, **options: Any) -> None:
        await self.client.delete(resource, name, namespace=self.namespace, **options)

    # ---- reading

    async def get(self, resource: Resource, name: str) -> Json | None:
        try:
            return await self.client.get(resource, name, namespace=self.namespace)
        except NotFoundError:
            return None

    async def status(self, name: str = "digits", resource: Resource = TRAINING_JOBS) -> Json:
        body = await self.get(resource, name)
        return (body or {}).get("status") or {}

    async def pods(self, job: str = "digits") -> dict[str, Json]:
        selector = f"datahall.dev/training-job={job}"
        items = (await self.client.list(PODS, namespace=self.namespace, label_selector=selector))["items"]
        return {item["metadata"]["name"]: item for item in items}

    async def listed(self, resource: Resource) -> list[Json]:
        items: list[Json] = (await self.client.list(resource, namespace=self.namespace))["items"]
        return items

    async def events(self, name: str = "digits") -> dict[str, str]:
        """Notes of the Events about an object, by reason."""
        from datahall.kube.resources import EVENTS

        return {e["reason"]: e["note"] for e in await self.listed(EVENTS) if e["regarding"]["name"] == name}

    async def state(self, wanted: str, name: str = "digits", *, seconds: float = 20) -> Json:
        """Wait for a state word; the status."""
        status: Json = {}

        async def there() -> bool:
            nonlocal status
            status = await self.status(name)
            return status.get("state") == wanted

        try:
            await until(there, seconds=seconds, what=f"{name} is {wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {json.dumps(status, indent=1)}") from None
        return status

    async def condition(
        self,
        type_: str,
        wanted: str,
        name: str = "digits",
        *,
        reason: str = "",
        resource: Resource = TRAINING_JOBS,
        seconds: float = 20,
    ) -> Json:
        """Wait for a condition; the condition."""
        status: Json = {}

        async def there() -> Json | None:
            nonlocal status
            status = await self.status(name, resource)
            found = condition_of(status, type_)
            return found if found["status"] == wanted and reason in ("", found["reason"]) else None

        try:
            found: Json = await until(there, seconds=seconds, what=f"{name}: {type_} {wanted} {reason}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {json.dumps(status, indent=1)}") from None
        return found

    async def gang(
        self, *names: str, job: str = "digits", seconds: float = 20, reap: bool = False
    ) -> dict[str, Json]:
        """Wait until a job has exactly these pods; with `reap`, those that are to go go meanwhile."""
        pods: dict[str, Json] = {}

        async def there() -> bool:
            nonlocal pods
            if reap:
                await self.reap()
            pods = await self.pods(job)
            return set(pods) == set(names)

        try:
            await until(there, seconds=seconds, what=f"pods {names}")
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {sorted(pods)}") from None
        return pods

    # ---- the kubelet's part

    async def run(self, *names: str) -> None:
        """Bind pods to the nodes that they are pinned to, and have them run."""
        for name in names:
            pod = await self.client.get(PODS, name, namespace=self.namespace)
            if not pod["spec"].get("nodeName"):
                term = pod["spec"]["affinity"]["nodeAffinity"][
                    "requiredDuringSchedulingIgnoredDuringExecution"
                ]
                node = term["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
                binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
                await self.client.request(
                    "POST",
                    PODS.path(namespace=self.namespace, name=name, subresource="binding"),
                    verb="create",
                    resource="pods/binding",
                    body={"apiVersion": "v1", "kind": "Binding", **binding},
                )
            state = {"running": {"startedAt": "2026-11-22T15:00:00Z"}}
            await self.pod_status(name, "Running", state)

    async def end(self, name: str, exit_code: int, said: Json | str = "", reason: str = "") -> None:
        """The container of a pod ends."""
        terminated = {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": said if isinstance(said, str) else json.dumps(said),
            "startedAt": "2026-11-22T15:00:00Z",
            "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        phase = "Succeeded" if exit_code == 0 else "Failed"
        await self.pod_status(name, phase, {"terminated": terminated})

    async def pod_status(
        self, name: str, phase: str, state: Json, *, ready: bool = False, **more: Any
    ) -> None:
        container = {
            "name": "trainer",
            "image": "i",
            "imageID": "i",
            "ready": ready,
            "restartCount": 0,
            "state": state,
            **more,
        }
        conditions = [{"type": "Ready", "status": str(ready)}]
        await self.client.merge_patch(
            PODS,
            {"status": {"phase": phase, "containerStatuses": [container], "conditions": conditions}},
            name=name,
            namespace=self.namespace,
            field_manager="kubelet",
            subresource="status",
        )

    async def reap(self) -> None:
        """Pods that are to go are gone, as a kubelet confirms it."""
        for pod in await self.listed(PODS):
            if "deletionTimestamp" in pod["metadata"]:
                with contextlib.suppress(NotFoundError):
                    await self.delete(PODS, pod["metadata"]["name"], grace_seconds=0)


def condition_of(status: Json, type_: str) -> Json:
    found = next((c for c in status.get("conditions") or () if c["type"] == type_), None)
    return found or {"status": "absent", "reason": "", "message": ""}


def true_conditions(status: Json) -> set[str]:
    return {c["type"] for c in status.get("conditions") or () if c["status"] == "True"}


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


def without_times(status: Json) -> Json:
    """A status as it compares: without times, conditions by type (their order has no meaning)."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: cleaned(item)
                for key, item in value.items()
                if key
                not in ("lastTransitionTime", "time", "queuedTime", "startTime", "completionTime", "node")
            }
        if isinstance(value, list):
            return [cleaned(item) for item in value]
        return value

    plain = {k: v for k, v in cleaned(status).items() if k != "placement"}
    return plain | {"conditions": sorted(plain["conditions"], key=lambda c: str(c["type"]))}
