"""API mode: a control plane on loopback ports, ready in seconds, gone when its owner is.

    with ApiServer() as server:
        kubectl --kubeconfig server.kubeconfig ...

etcd and the API server always run; controller manager, scheduler and KWOK (with fake GPU nodes) where asked. Each
instance has its own ports and its own temporary folder, so several run side by side. Nothing needs root.

What differs from a cluster that must last: etcd does not wait for the disk and keeps its data in memory where there
is a tmpfs, rate limits are raised so far that a benchmark measures the operator and not the limits, and the programs
take more memory rather than collect garbage all the time.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from local_cluster import binaries, certificates, gpu_nodes, guard, kubeconfig
from local_cluster.errors import ClusterError
from local_cluster.gpu_nodes import Layout
from local_cluster.paths import ROOM
from local_cluster.processes import Identity, log_tail, spawn, write_identity
from local_cluster.rest import Rest, RestError

_QPS = 5000
"""Requests per second that a component's client allows itself; a load test hits the default of 50 first of all."""
_GARBAGE_PERCENT = 400
"""By default a Go program collects whenever what it uses has doubled. In an API server under load, marking alone took
15 % of its CPU time so, and takes 6 % like this."""
_SHARED_MEMORY = Path("/dev/shm")
_STEP_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What runs beside etcd and the API server."""

    controller_manager: bool = False
    """Without it nothing is garbage collected, no Deployment makes pods, and pods need no service account."""
    scheduler: bool = False
    layout: Layout | None = None
    """GPU nodes to fake with KWOK; None runs no KWOK."""
    service_accounts: bool = False
    """Without a controller manager: pods need a service account all the same, and the caller makes it."""
    api_server_flags: tuple[str, ...] = ()
    """More flags for kube-apiserver, after ours."""
    memory_gib: int = 2
    """What each program keeps its memory below by collecting more often. One that needs more does nothing else: twenty
    thousand objects that change want 8."""

    @property
    def refusals_without_controllers(self) -> tuple[str, ...]:
        """Admission plugins that refuse what only a controller manager would put right."""
        return (
            ("TaintNodesByCondition",)
            if self.service_accounts
            else ("ServiceAccount", "TaintNodesByCondition")
        )


class PortTakenError(ClusterError):
    """A port that was free a moment ago is not any more."""


class ApiServer:
    """A running control plane; a context manager, or `start` and `close`."""

    def __init__(self, options: Options | None = None) -> None:
        """Nothing is started yet."""
        self.options = options or Options()
        self.token = secrets.token_hex(16)
        self._folder: Path | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    @property
    def folder(self) -> Path:
        """Its temporary folder: data, certificates, kubeconfigs, logs (`*.log`)."""
        if self._folder is None:
            raise ClusterError("this API server is not running")
        return self._folder

    @property
    def url(self) -> str:
        """Where it listens, for instance https://127.0.0.1:40123."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of a cluster administrator."""
        return self.folder / "admin.kubeconfig"

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed the server's."""
        return self.folder / "ca.crt"

    @property
    def pids(self) -> dict[str, int]:
        """The running processes by program, for whoever measures them."""
        return {name: process.pid for name, process in self._processes.items()}

    def connect(self) -> Rest:
        """A connection as administrator."""
        return Rest(url=self.url, token=self.token, context=ssl.create_default_context(cafile=str(self.ca)))

    def start(self) -> Self:
        """Build what is missing, start everything asked for, and return when all of it answers."""
        wanted = ["etcd", "kube-apiserver"]
        wanted += ["kube-controller-manager"] if self.options.controller_manager else []
        wanted += ["kube-scheduler"] if self.options.scheduler else []
        wanted += ["kwok"] if self.options.layout else []
        programs = binaries.ensure(*wanted)
        for attempt in (1, 2, 3):
            try:
                self._start(programs)
                break
            except PortTakenError:
                # Between finding a free port and binding it another program can be faster; then all ports are new.
                self.close()
                if attempt == 3:
                    raise
            except BaseException:
                self.close()
                raise
        return self

    def close(self) -> None:
        """End everything that was started and remove the folder. Calling it twice is fine."""
        # etcd last: the others would fill their logs with errors and take longer to end.
        for name in reversed(list(self._processes)):
            process = self._processes.pop(name)
            process.kill()  # nothing here outlives us, so nobody needs to leave in order
            process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def _start(self, programs: dict[str, Path]) -> None:
        parent = _SHARED_MEMORY if _roomy(_SHARED_MEMORY) else None
        self._folder = Path(tempfile.mkdtemp(prefix="datahall-api-", dir=parent))
        self._guard = guard.start(self._folder)
        ports = _free_ports(6)
        self._port = ports[0]
        files = certificates.make(self.folder)
        self._write_logins(files.ca)

        self._spawn(
            "etcd", programs, *etcd_flags(self.folder / "etcd", client_port=ports[1], peer_port=ports[2])
        )
        self._spawn(
            "kube-apiserver",
            programs,
            f"--etcd-servers=http://127.0.0.1:{ports[1]}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # a loopback address is refused as endpoint of the Service kubernetes
            f"--tls-cert-file={files.certificate}",
            f"--tls-private-key-file={files.key}",
            f"--cert-dir={self.folder / 'apiserver'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={files.service_account_key}",
            f"--service-account-signing-key-file={files.service_account_key}",
            "--service-cluster-ip-range=10.0.0.0/16",
            "--allow-privileged=true",
            # The first refuses pods until the namespace has a default service account, the second taints nodes until
            # they are Ready: it is the controller manager that makes the account and removes the taint.
            *(
                []
                if self.options.controller_manager
                else [f"--disable-admission-plugins={','.join(self.options.refusals_without_controllers)}"]
            ),
            "--max-requests-inflight=4000",
            "--max-mutating-requests-inflight=2000",
            "--profiling=false",
            *self.options.api_server_flags,
        )
        rest = self.connect()
        try:
            self._until("kube-apiserver", lambda: bool(rest.call("GET", "/api/v1/namespaces/default")))
            self._until("kube-apiserver", lambda: _ready(rest))
            self._start_controllers(programs, ports[3:], files)
            if self.options.layout is not None:
                self._start_kwok(programs, port=ports[5])
        finally:
            rest.close()

    def _start_controllers(
        self, programs: dict[str, Path], ports: list[int], files: certificates.ServerCertificates
    ) -> None:
        if self.options.controller_manager:
            login = self.folder / "controller-manager.kubeconfig"
            self._spawn(
                "kube-controller-manager",
                programs,
                f"--kubeconfig={login}",
                "--bind-address=127.0.0.1",
                f"--secure-port={ports[0]}",
                f"--cert-dir={self.folder / 'controller-manager'}",
                "--leader-elect=false",
                f"--flex-volume-plugin-dir={self.folder / 'volume-plugins'}",  # else one under /usr/libexec
                # The role of the user kube-controller-manager is small: each controller brings an account of its own.
                "--use-service-account-credentials=true",
                f"--root-ca-file={files.ca}",
                f"--service-account-private-key-file={files.service_account_key}",
                f"--kube-api-qps={_QPS}",
                f"--kube-api-burst={2 * _QPS}",
                # Fake nodes are told alive by KWOK's leases, one machine doing it for thousands; be patient with it.
                "--node-monitor-grace-period=3m",
            )
        if self.options.scheduler:
            login = self.folder / "scheduler.kubeconfig"
            config = self.folder / "scheduler.json"
            config.write_text(scheduler_config(login))
            self._spawn(
                "kube-scheduler",
                programs,
                f"--config={config}",
                "--bind-address=127.0.0.1",
                f"--secure-port={ports[1]}",
                f"--cert-dir={self.folder / 'scheduler'}",
            )
        if self.options.controller_manager:
            self._until("kube-controller-manager", lambda: _healthy(ports[0]))
            self._until("kube-controller-manager", self._has_default_service_account)
        if self.options.scheduler:
            self._until("kube-scheduler", lambda: _healthy(ports[1]))

    def _start_kwok(self, programs: dict[str, Path], *, port: int) -> None:
        layout = self.options.layout
        assert layout is not None
        names = gpu_nodes.create(layout, self.connect)
        self._spawn(
            "kwok",
            programs,
            f"--kubeconfig={self.kubeconfig}",
            f"--config={ROOM / 'kwok_stages.yaml'}",
            f"--manage-nodes-with-annotation-selector={gpu_nodes.KWOK_ANNOTATION}=fake",
            "--cidr=10.64.0.0/10",
            "--node-ip=127.0.0.1",
            f"--server-address=127.0.0.1:{port}",
            "--node-lease-duration-seconds=120",
            "-v=WARN",  # by default it writes a line for each pod it plays
        )
        rest = self.connect()
        try:
            self._until("kwok", lambda: _ready_nodes(rest) >= len(names), seconds=60.0 + 0.1 * len(names))
        finally:
            rest.close()

    def _has_default_service_account(self) -> bool:
        rest = self.connect()
        try:
            return bool(rest.call("GET", "/api/v1/namespaces/default/serviceaccounts/default"))
        finally:
            rest.close()

    def _write_logins(self, ca: Path) -> None:
        """One token each, so that the default RBAC roles of the components are really exercised."""
        users = {
            "admin": ("admin", "system:masters", self.token),
            "controller-manager": ("system:kube-controller-manager", "", secrets.token_hex(16)),
            "scheduler": ("system:kube-scheduler", "", secrets.token_hex(16)),
        }
        lines = []
        for name, (user, group, token) in users.items():
            lines.append(f"{token},{user},{name},{group}")
            text = kubeconfig.render(url=self.url, ca=ca.read_bytes(), token=token, user=name)
            kubeconfig.write(self.folder / f"{name}.kubeconfig", text)
        kubeconfig.write(self.folder / "tokens.csv", "\n".join(lines) + "\n")

    def _spawn(self, name: str, programs: dict[str, Path], *flags: str) -> None:
        garbage = {"GOGC": str(_GARBAGE_PERCENT), "GOMEMLIMIT": f"{self.options.memory_gib}GiB"}
        process = spawn([programs[name], *flags], log=self.folder / f"{name}.log", environment=garbage)
        self._processes[name] = process
        identity = Identity.of(process.pid)
        if identity is not None:
            write_identity(self.folder / f"{name}.pid", identity)

    def _until(self, name: str, ready: Callable[[], bool], *, seconds: float = _STEP_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        last = "no answer"
        while time.monotonic() < deadline:
            for running, process in self._processes.items():
                if process.poll() is not None:
                    tail = log_tail(self.folder / f"{running}.log")
                    kind = PortTakenError if "address already in use" in tail else ClusterError
                    raise kind(f"{running} ended with status {process.returncode}:\n{tail}")
            try:
                if ready():
                    return
            except (OSError, RestError) as error:
                last = str(error)
            time.sleep(0.05)
        tail = log_tail(self.folder / f"{name}.log")
        raise ClusterError(f"{name} was not ready within {seconds:.0f} s ({last}); end of its log:\n{tail}")


def etcd_flags(data: Path, *, client_port: int, peer_port: int, address: str = "127.0.0.1") -> list[str]:
    """An etcd of one member that never waits for the disk: it holds nothing that must survive the machine."""
    client, peer = f"http://{address}:{client_port}", f"http://{address}:{peer_port}"
    return [
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        f"--quota-backend-bytes={4 << 30}",
        "--log-level=warn",
    ]


def scheduler_config(login: Path) -> str:
    """The scheduler takes its client's limits from its configuration file only, once it has one."""
    return json.dumps(
        {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": str(login), "qps": _QPS, "burst": 2 * _QPS},
            "leaderElection": {"leaderElect": False},
        }
    )


def _roomy(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free > 1 << 30
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    """Ports that are free now; all sockets stay open until the last is found, so that no port comes twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()


def _ready(rest: Rest) -> bool:
    # /readyz answers in plain text, which `call` wraps; only the status matters.
    return bool(rest.call("GET", "/readyz"))


def _ready_nodes(rest: Rest) -> int:
    """Nodes that can take pods: Ready, and rid of the taint they had until then."""
    items = rest.call("GET", "/api/v1/nodes?resourceVersion=0")["items"]
    return sum(
        not item["spec"].get("taints")
        and any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in item["status"].get("conditions", [])
        )
        for item in items
    )


def _healthy(port: int) -> bool:
    """Ask a component for /healthz; it made its certificate itself at start, so nothing could verify it."""
    context = ssl._create_unverified_context()
    rest = Rest(url=f"https://127.0.0.1:{port}", context=context)
    try:
        return bool(rest.call("GET", "/healthz"))
    finally:
        rest.close()
