"""The cluster's programs, compiled from Go modules into a cache that outlives the clone.

Each folder with a `go.mod` here pins a set of programs, and `go.sum` pins every byte that goes into them, so what is
built depends on those files and the flags (near enough: also on the Go version): their hash names the folder in the
cache. A new clone with the same pins finds everything built.

The modules stand apart where their requirements clash, but the ones that use Kubernetes' libraries are held, by
`replace`, to the versions that `go/kubernetes` has: Go then compiles each shared package once instead of four times.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from local_cluster.errors import ClusterError
from local_cluster.locks import file_lock
from local_cluster.paths import ROOM, cache_home
from local_cluster.progress import say

KUBERNETES_VERSION = "v1.36.3"


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A program and the package that builds it; `package` is `.` for a main of our own."""

    name: str
    module: str
    """Folder of the go.mod, relative to this room."""
    package: str


def _kubernetes(name: str) -> Program:
    return Program(name=name, module="go/kubernetes", package=f"k8s.io/kubernetes/cmd/{name}")


PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (
        # In the order of building, which is that in which tests wait for them: Helm for the chart's tests, the API mode
        # and what the cluster tests run beside it, and last what only a real node needs.
        Program(name="etcd", module="go/kubernetes", package="go.etcd.io/etcd/server/v3"),
        _kubernetes("kube-apiserver"),
        Program(name="helm", module="go/helm", package="helm.sh/helm/v4/cmd/helm"),
        _kubernetes("kubectl"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        Program(name="kwok", module="go/kwok", package="sigs.k8s.io/kwok/cmd/kwok"),
        _kubernetes("kubeadm"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        Program(name="coredns", module="go/coredns", package="."),
        Program(name="gpusim", module="gpusim", package="."),
        Program(name="pause", module="go/pause", package="."),
    )
}

_VERSION = "k8s.io/component-base/version"
# Without these, the API server reports v0.0.0 and kubeadm refuses to work with it. In helm the same package decides
# what `Capabilities.KubeVersion` is when there is no cluster.
_LDFLAGS = " ".join(
    [
        "-s -w",
        f"-X {_VERSION}.gitVersion={KUBERNETES_VERSION}",
        f"-X {_VERSION}.gitMajor=1",
        f"-X {_VERSION}.gitMinor=36",
        f"-X {_VERSION}.gitTreeState=clean",
    ]
)
# Without -trimpath: with it, Go tells a package by the version that a module asks for and not by the one that `replace`
# gives, and compiles what the modules share once for each of them after all.
# Without DWARF, which the linker would leave out anyway (-s -w): a tenth less to compute, and a smaller cache.
_BUILD = ("go", "build", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags", _LDFLAGS)


def module_hash(folder: Path, *, flags: Iterable[str] = _BUILD) -> str:
    """Hash of everything in the module that decides what is built: pins, own sources, flags."""
    digest = hashlib.sha256("\0".join(flags).encode())
    for path in sorted(folder.iterdir()):
        if path.name in {"go.mod", "go.sum"} or path.suffix == ".go":
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def location(name: str) -> Path:
    """Where the program is, or will be once `ensure` has built it."""
    program = PROGRAMS[name]
    return cache_home() / "bin" / module_hash(ROOM / program.module) / name


def ensure(*names: str) -> dict[str, Path]:
    """Build what is missing, in the order of `PROGRAMS`, and say where each program is."""
    paths = {name: location(name) for name in PROGRAMS if name in names}
    for name, path in paths.items():
        if not path.exists():
            _build(PROGRAMS[name], path)
    return paths


def _build(program: Program, path: Path) -> None:
    if shutil.which("go") is None:
        raise ClusterError(
            f"{program.name} must be compiled, and there is no `go` on PATH (Go 1.26 or newer)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # One at a time: Go takes all cores by itself, and two at once would both compile what the programs share.
    with file_lock(cache_home() / "bin" / ".compiling.lock", waiting_for=program.name):
        if path.exists():  # built by another process while we waited
            return
        say(f"{program.name}: compiling")
        started = time.monotonic()
        unfinished = path.with_name(f".{program.name}.unfinished")
        result = subprocess.run(
            [*_BUILD, "-o", str(unfinished), program.package],
            cwd=ROOM / program.module,
            # The compiler's own collector takes a fifth of a cold build's time; memory is there for a moment.
            env={"GOGC": "400", **os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            tail = "\n".join(result.stderr.splitlines()[-20:])
            raise ClusterError(f"{program.name} did not compile:\n{tail}")
        unfinished.rename(path)  # last, so that a half-written file never counts as built
        say(f"{program.name} built in {time.monotonic() - started:.0f} s")
