"""One process at a time: two terminals, or a test run beside a demo, must not build or start the same thing twice."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_cluster.progress import say


@contextmanager
def file_lock(path: Path, *, waiting_for: str) -> Iterator[None]:
    """Hold the lock `path` (the kernel lets go of it when the process ends, however it ends)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{waiting_for}: another process is at it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
