"""Programs that run in the background: started, recognised later, ended, and never mistaken for somebody else's.

A pid alone does not name a process: numbers are reused, and a stale file must not get a stranger killed. A process is
therefore known by its pid *and* its start time since boot (field 22 of `/proc/PID/stat`), and also by the boot it
belongs to.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be confused with a later one of the same number."""

    pid: int
    start_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The identity of a living process; None when it is gone or a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return parse_stat(pid, stat, boot=_boot_id())

    def alive(self) -> bool:
        """True while this very process runs."""
        return Identity.of(self.pid) == self

    def age_seconds(self) -> float:
        """How long it has been running."""
        up = float(Path("/proc/uptime").read_text().split()[0])
        return up - self.start_ticks / os.sysconf("SC_CLK_TCK")


def parse_stat(pid: int, stat: str, *, boot: str) -> Identity | None:
    """Read `/proc/PID/stat`; the program's name is in brackets and may itself hold spaces and brackets."""
    fields = stat.rpartition(")")[2].split()
    state, start = fields[0], int(fields[19])
    return None if state in "ZX" else Identity(pid, start, boot)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_identity(path: Path, identity: Identity) -> None:
    """Record a process, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(asdict(identity)))
    unfinished.rename(path)


def read_identity(path: Path) -> Identity | None:
    """The recorded process; None when there is no record or it is not readable."""
    try:
        return Identity(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    detached: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a program with its output in `log`.

    `detached` puts it into a session of its own, so that it outlives the shell and a Ctrl-C meant for its parent.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=detached,
            cwd="/",
        )


def end(identities: Iterable[Identity], *, grace_seconds: float = 10.0) -> None:
    """SIGTERM, and SIGKILL for what is still there after the grace time. Returns once all are gone."""
    waiting = [identity for identity in identities if _signal(identity, signal.SIGTERM)]
    waiting = _wait_gone(waiting, seconds=grace_seconds)
    for identity in waiting:
        _signal(identity, signal.SIGKILL)
    _wait_gone(waiting, seconds=5.0)


def _signal(identity: Identity, number: signal.Signals) -> bool:
    if not identity.alive():
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(identity.pid, number)
    return True


def _wait_gone(identities: list[Identity], *, seconds: float) -> list[Identity]:
    deadline = time.monotonic() + seconds
    while True:
        identities = [identity for identity in identities if identity.alive()]
        if not identities or time.monotonic() > deadline:
            return identities
        time.sleep(0.02)


def log_tail(path: Path, *, lines: int = 15) -> str:
    """The end of a log, for an error message."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])
