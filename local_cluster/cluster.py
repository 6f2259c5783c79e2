"""The full cluster: bring it up, mend it, take it down, say how it is.

`up` goes through the same steps whether nothing is there or everything is; each step looks first and does what is
missing. Images are built and imported beside the other steps, as they take longest and nothing else waits for
them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from local_cluster import (
    binaries,
    cgroups,
    components,
    containerd,
    images,
    machine,
    network,
    objects,
    pki,
)
from local_cluster.components import Component
from local_cluster.errors import ClusterError
from local_cluster.locks import file_lock
from local_cluster.login import connect
from local_cluster.processes import Identity, end, log_tail, read_identity, spawn, write_identity
from local_cluster.progress import say
from local_cluster.rest import RestError
from local_cluster.site import GPUS, NODE, Site

_NODE_PROGRAMS = tuple(name for name in binaries.PROGRAMS if name not in {"kwok", "helm", "kubectl"})
_TOOLS = ("kubectl", "helm")
_STEP_SECONDS = 90.0
_GRACE_SECONDS = 2.0
"""For ending: nothing is kept that would have to be written down in order."""
# Both write as they go and neither is ours to clear as a whole.
_LOG_LINKS = Path("/var/log/containers")
_CNI_RESULTS = Path("/var/lib/cni/results")


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """One component, as `status` shows it."""

    name: str
    pid: int | None
    seconds: float | None
    healthy: bool


def up(*, with_images: bool = True, wait_seconds: float = 0.0) -> None:
    """Start what is missing; returns when the node is Ready with its GPUs and both images are in.

    Args:
        with_images: Whether both images are brought.
        wait_seconds: How long to wait for the local cluster of another cache to end, if one is here.
    """
    site = Site()
    machine.wait_for_other(site, wait_seconds)
    machine.check(site, images=with_images)
    with (
        file_lock(site.state.with_name("cluster.lock"), waiting_for="cluster"),
        ThreadPoolExecutor(2) as pool,
    ):
        runtime = threading.Event()
        bringing = pool.submit(_bring_images, site, runtime) if with_images else None
        try:
            _bring_cluster(site, pool, runtime)
        finally:
            runtime.set()  # also after a failure: nobody must wait for containerd for ever
        if bringing is not None:
            bringing.result()
    say(f"cluster is up: export KUBECONFIG={site.kubeconfig}")


def prepare(*, with_images: bool = True) -> None:
    """Build what `up` and the API mode need, and start nothing; whoever needs it meanwhile waits for its part."""
    if with_images:
        machine.check(Site(), images=True, starts=False)
    with ThreadPoolExecutor(1) as pool:
        building = [pool.submit(images.build, image) for image in images.IMAGES if with_images]
        binaries.ensure(*binaries.PROGRAMS)
        for each in building:
            each.result()


def _bring_cluster(site: Site, pool: ThreadPoolExecutor, runtime: threading.Event) -> None:
    """Everything but the images; sets `runtime` once containerd can take some."""
    if not network.exists(site):
        # Nothing of an earlier run can work without its namespace: after a reboot there are files, and no more.
        _clear(site)
    _prepare(site)
    # First of all: it is not ours to compile, and takes in the images, which are large, while the others are.
    wanted = components.components(site, {name: binaries.location(name) for name in _NODE_PROGRAMS})
    _start(site, next(component for component in wanted if component.name == "containerd"))
    runtime.set()
    programs = binaries.ensure(*_NODE_PROGRAMS)
    pki.make(site, programs["kubeadm"])
    containerd.import_pause(site, programs["pause"])
    for component in wanted:
        _start(site, component)
    # Helm and kubectl last: the cluster starts without them, and helm takes long to compile.
    tools = pool.submit(binaries.ensure, *_TOOLS)
    _wait_for_node(site)
    tools.result()


def _bring_images(site: Site, runtime: threading.Event) -> None:
    """Build the images, and import them once containerd runs."""
    for image in images.IMAGES:
        images.build(image)
    runtime.wait()
    for image in images.IMAGES:
        containerd.import_image(site, image)


def down() -> None:
    """End and remove everything but the caches (programs, images).

    Raises:
        ClusterError: The cluster on this machine is one under another DATAHALL_CACHE; nothing is touched.
    """
    site = Site()
    if (other := site.other_state) is not None:
        raise ClusterError(
            f"the cluster on this machine belongs to {other}: end it with DATAHALL_CACHE={other.parent}"
        )
    with file_lock(site.state.with_name("cluster.lock"), waiting_for="cluster"):
        _clear(site)
    say("cluster is down")


def bring_images() -> None:
    """Build both images and, where the cluster runs, import them."""
    site = Site()
    machine.check(site, images=True)
    with file_lock(site.state.with_name("cluster.lock"), waiting_for="cluster"):
        for image in images.IMAGES:
            images.build(image)
            if containerd.answers(site):
                containerd.import_image(site, image)
        if not containerd.answers(site):
            say("the cluster is down; `up` will import them")


def status() -> list[Status]:
    """How each component is. Components that were never started are listed too."""
    site = Site()
    programs = {name: binaries.location(name) for name in _NODE_PROGRAMS}
    found = []
    for component in components.components(site, programs):
        identity = _running(site, component.name)
        found.append(
            Status(
                name=component.name,
                pid=identity.pid if identity else None,
                seconds=identity.age_seconds() if identity else None,
                healthy=identity is not None and _healthy(site, component),
            )
        )
    return found


def _prepare(site: Site) -> None:
    """Everything that is neither a process nor made by a program of ours: namespace, cgroup, files."""
    for folder in (site.state, site.logs, site.volumes, site.run, site.kubelet_own, site.kubelet_root):
        folder.mkdir(parents=True, exist_ok=True)
    network.mount(site.kubelet_own, site.kubelet_root)
    site.kubelet_mark.write_text(f"{site.state}\n")
    if not network.exists(site):
        network.set_up(site)
    cgroups.set_up()
    cni = machine.cni_folder()
    assert cni is not None  # `machine.check` saw to it
    for path, content in components.files(site, cni=cni).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        # kube-proxy ends itself when its file is written to, even with what it held before.
        if not path.exists() or path.read_text() != content:
            path.write_text(content)


def _start(site: Site, component: Component) -> None:
    """Start one component unless it runs with this very command, and wait until it is well."""
    identity = _running(site, component.name)
    if identity is not None and _recorded_command(site, component.name) != _fingerprint(component):
        say(f"{component.name}: its settings changed, starting it anew")
        end([identity])
        identity = None
    if identity is None:
        log = site.logs / f"{component.name}.log"
        process = spawn(
            network.enter(site, *component.command), log=log, environment={**_PATH, **component.environment}
        )
        identity = Identity.of(process.pid)
        if identity is not None:
            write_identity(_pid_file(site, component.name), identity)
        _command_file(site, component.name).write_text(_fingerprint(component))
        # Not this function's child any more: it lives on, so nobody waits for it.
        process.returncode = 0
        _until(site, component, lambda: _healthy(site, component))
        say(f"{component.name} runs")
    else:
        _until(site, component, lambda: _healthy(site, component))
    if component.name == "kube-apiserver":
        rest = connect(site.logins / "super-admin.conf")
        objects.create(rest)
        rest.close()


_PATH = {"PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])}


def _wait_for_node(site: Site) -> None:
    rest = connect(site.logins / "super-admin.conf")
    kubelet = Component(name="kubelet", command=())

    def ready() -> bool:
        node = rest.call("GET", f"/api/v1/nodes/{NODE}")
        conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", [])}
        gpus = node["status"].get("allocatable", {}).get("nvidia.com/gpu")
        return conditions.get("Ready") == "True" and gpus == str(GPUS) and not node["spec"].get("taints")

    try:
        _until(site, kubelet, ready)
    finally:
        rest.close()


def _healthy(site: Site, component: Component) -> bool:
    if component.name == "containerd":
        return containerd.answers(site)
    if component.health is None:
        return True
    context = ssl._create_unverified_context() if component.health.startswith("https") else None
    try:
        with urllib.request.urlopen(component.health, timeout=2, context=context) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _until(site: Site, component: Component, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _STEP_SECONDS
    log = site.logs / f"{component.name}.log"
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, RestError):
            if ready():
                return
        if _running(site, component.name) is None:
            raise ClusterError(f"{component.name} ended; the end of {log}:\n{log_tail(log)}")
        time.sleep(0.1)
    raise ClusterError(
        f"{component.name} was not well in {_STEP_SECONDS:.0f} s; the end of {log}:\n{log_tail(log)}"
    )


def _clear(site: Site) -> None:
    """Undo everything, in the order in which nothing comes back: those who start things go first."""
    starters = ("provisioner", "gpusim", "kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    end(_identities(site, starters), grace_seconds=_GRACE_SECONDS)
    cgroups.tear_down()
    sandboxes = containerd.remove_containers(site)
    end(_identities(site, ("coredns", "containerd")), grace_seconds=_GRACE_SECONDS)
    end([identity for pid in containerd.shims(site) if (identity := Identity.of(pid)) is not None])
    end(_identities(site, ("kube-apiserver", "etcd")), grace_seconds=_GRACE_SECONDS)
    for folder in (site.kubelet_root, site.run / "containerd", site.state):
        network.unmount_under(folder)
    network.tear_down(site)
    cgroups.tear_down()
    for folder in (site.state, site.run):
        shutil.rmtree(folder, ignore_errors=True)
    results = [path for name in sandboxes for path in _CNI_RESULTS.glob(f"*-{name}-*")]
    for path in [*_dangling(_LOG_LINKS), *_CNI_RESULTS.glob("datahall-*"), *results]:
        path.unlink(missing_ok=True)
    for folder in (
        _LOG_LINKS,
        _CNI_RESULTS,
        _CNI_RESULTS.parent,
        Path("/run/containerd/s"),
        Path("/run/containerd"),
        site.kubelet_root,
    ):
        with contextlib.suppress(OSError):
            folder.rmdir()  # only when it is empty


def _dangling(folder: Path) -> Iterator[Path]:
    for path in folder.glob("*"):
        if path.is_symlink() and not path.exists():
            yield path


def _identities(site: Site, names: tuple[str, ...]) -> list[Identity]:
    return [identity for name in names if (identity := _running(site, name)) is not None]


def _running(site: Site, name: str) -> Identity | None:
    identity = read_identity(_pid_file(site, name))
    return identity if identity is not None and identity.alive() else None


def _pid_file(site: Site, name: str) -> Path:
    return site.state / f"{name}.pid"


def _command_file(site: Site, name: str) -> Path:
    return site.state / f"{name}.command"


def _recorded_command(site: Site, name: str) -> str:
    try:
        return _command_file(site, name).read_text()
    except FileNotFoundError:
        return ""


def _fingerprint(component: Component) -> str:
    """Command and the configuration files it names: another version or setting means another process."""
    digest = hashlib.sha256()
    for part in component.command:
        if part == sys.executable:
            continue  # whoever runs `up` next may do it with another Python, which is no change of settings
        digest.update(part.encode() + b"\0")
        file = Path(part.rpartition("=")[2])
        if file.suffix in {".json", ".toml"} or file.name == "Corefile":
            digest.update(file.read_bytes())
    return digest.hexdigest()
