"""The cgroup that holds every pod: through it `down` finds each of their processes, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from local_cluster.site import CGROUP

_TOP = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """Every cgroup hierarchy that is mounted: one per controller in version 1, a single one in version 2."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in {"cgroup", "cgroup2"}:
            points.append(Path(left.split()[4]))
    return points


def set_up() -> None:
    """Make the cgroup in every hierarchy: a kubelet refuses a `cgroupRoot` that is not there."""
    for top in hierarchies():
        folder = top / CGROUP
        folder.mkdir(exist_ok=True)
        if (
            top / "cgroup.controllers"
        ).exists():  # version 2: controllers are handed down one level at a time
            controllers = (top / "cgroup.controllers").read_text().split()
            for level in (top, folder):
                for controller in controllers:
                    with contextlib.suppress(OSError):
                        (level / "cgroup.subtree_control").write_text(f"+{controller}")
        for name in ("cpuset.cpus", "cpuset.mems"):
            # Version 1 starts a cpuset empty, and no process can enter it until it has both.
            source, target = top / name, folder / name
            if source.exists() and target.exists() and not target.read_text().strip():
                target.write_text(source.read_text())


def tear_down() -> None:
    """Kill every process in the cgroup (pods, all of them ours) and remove it."""
    deadline = time.monotonic() + 10
    while pids := _pids():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for folder in reversed(_folders()):
        with contextlib.suppress(OSError):
            folder.rmdir()


def leftovers() -> list[Path]:
    """Cgroups of ours that exist."""
    return [top / CGROUP for top in hierarchies() if (top / CGROUP).exists()]


def _pids() -> set[int]:
    found: set[int] = set()
    for folder in _folders():
        with contextlib.suppress(OSError):
            found.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
    return found - {0}


def _folders() -> list[Path]:
    """All cgroups of ours, each before those in it.

    `os.walk` passes over folders that vanish meanwhile, as containerd's and the kubelet's do; `Path.glob` raises.
    """
    return [Path(folder) for top in hierarchies() for folder, _, _ in os.walk(top / CGROUP)]
