"""Whether this machine can run the full cluster, said at once and completely."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from local_cluster import network
from local_cluster.errors import ClusterError
from local_cluster.progress import say
from local_cluster.site import Site

_LOOK_EVERY_SECONDS = 2.0
_CAP_SYS_ADMIN, _CAP_NET_ADMIN = 21, 12
# Program -> Debian package that has it.
_PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "sysctl": "procps",
    "mount": "mount",
    "nsenter": "util-linux",
    "openssl": "openssl",
}
_IMAGE_PROGRAMS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "skopeo": "skopeo"}
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_CNI_PLUGINS = ("ptp", "host-local", "loopback")

WAY_OUT = (
    "Way out: point your kubeconfig at any cluster that you may use and set CLUSTER=current; "
    "the same commands then work on that one."
)


def check(site: Site, *, images: bool, starts: bool = True) -> None:
    """Refuse with the complete list of what is missing, or install what can be installed.

    Args:
        site: Where the cluster would be.
        images: Whether images are built.
        starts: Whether anything is started; what is only built stands beside any other cluster.
    """
    problems = _what_is_lacking()
    if starts:
        problems += _who_is_here(site)
        if not problems and find("ip") is not None and (found := network.collisions(site)):
            problems.append(
                f"addresses {site.addresses.whole} are taken ({'; '.join(found)}): "
                "set DATAHALL_NETWORK to two free leading numbers, for instance 10.214"
            )
    packages = missing_packages(images=images)
    if packages and shutil.which("apt-get") is None:
        problems.append(f"missing programs, and no apt-get to install them: {', '.join(packages)}")
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ClusterError(f"this machine cannot run the full local cluster:\n{listed}\n{WAY_OUT}")
    if packages:
        _install(packages)


def missing_packages(*, images: bool) -> list[str]:
    """Debian packages of programs that are not there."""
    wanted = {**_PROGRAMS, **(_IMAGE_PROGRAMS if images else {})}
    missing = [package for program, package in wanted.items() if find(program) is None]
    if cni_folder() is None:
        missing.append("containernetworking-plugins")
    return missing


def find(program: str) -> str | None:
    """Where a program is; /usr/sbin is not on everybody's PATH."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))


def cni_folder() -> Path | None:
    """Folder with the CNI plugins that we use."""
    for folder in CNI_FOLDERS:
        if all((folder / name).exists() for name in _CNI_PLUGINS):
            return folder
    return None


def wait_for_other(site: Site, seconds: float) -> None:
    """Wait until no local cluster of another cache is here any more, or so long."""
    if seconds and (other := site.other_state) is not None:
        say(
            f"another local cluster is here, of {other}: waiting for its end, {round(seconds / 60)} min at most"
        )
        until = time.monotonic() + seconds
        while site.other_state is not None and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_SECONDS)


def _what_is_lacking() -> list[str]:
    if platform.system() != "Linux":
        return [f"it runs {platform.system()}; containers need Linux"]
    problems = []
    if os.geteuid() != 0:
        problems.append(
            "you are not root, which a kubelet needs (the API mode does not: python -m local_cluster api)"
        )
    else:
        capabilities = _effective_capabilities(Path("/proc/self/status").read_text().splitlines())
        for name, bit in (("CAP_SYS_ADMIN", _CAP_SYS_ADMIN), ("CAP_NET_ADMIN", _CAP_NET_ADMIN)):
            if not capabilities >> bit & 1:
                problems.append(f"root has no {name} here (a container that was not started privileged?)")
        if not problems and not _can_unshare():
            problems.append("new network namespaces are refused (`unshare --net --mount true` fails)")
    if not Path("/sys/fs/cgroup").is_dir():
        problems.append("no cgroups are mounted at /sys/fs/cgroup")
    if "overlay" not in Path("/proc/filesystems").read_text() and not Path("/sys/module/overlay").exists():
        problems.append("the kernel has no overlay file system")
    return problems


def _who_is_here(site: Site) -> list[str]:
    problems = []
    if not site.kubelet_mark.exists() and (signs := _other_kubelet(site)):
        problems.append(f"another kubelet lives here ({signs}): end it first")
    if (other := site.other_state) is not None:
        problems.append(
            f"another local cluster is here, of {other}: end it with DATAHALL_CACHE={other.parent} make down"
        )
    return problems


def _other_kubelet(site: Site, proc: Path = Path("/proc")) -> str:
    """What tells that a kubelet uses the machine's folder; empty where none does.

    What one that has ended left there is no sign: ours is mounted over it, and hides it for a while.
    """
    if mounted := network.mounts_under(site.kubelet_root):
        return f"{mounted[0]} is mounted"
    ours = (proc / "self/ns/mnt").readlink()
    for process in proc.glob("[0-9]*"):
        # Ended meanwhile, or (its namespace) somebody's of whom even root may not know.
        with contextlib.suppress(OSError):
            # Those in containers (of kind, say) have folders of their own.
            if (process / "comm").read_text() == "kubelet\n" and (process / "ns/mnt").readlink() == ours:
                return f"process {process.name}"
    return ""


def _effective_capabilities(status: Iterable[str]) -> int:
    for line in status:
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0


def _can_unshare() -> bool:
    try:
        result = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return result.returncode == 0


def _install(packages: list[str]) -> None:
    say(f"installing from Debian: {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        result = subprocess.run(
            ["apt-get", "--quiet", *command], capture_output=True, text=True, check=False, env=environment
        )
        if result.returncode != 0 and command[0] == "install":
            tail = "\n".join(result.stderr.splitlines()[-10:])
            raise ClusterError(f"apt-get install failed:\n{tail}\n{WAY_OUT}")
