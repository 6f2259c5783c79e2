"""Progress for people: one line per step on standard error, each with the seconds since the start.

Standard output stays free for what a program wants to read (`env`, `status`, the benches' JSON).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

Say = Callable[[str], None]

_started = time.monotonic()
_lock = threading.Lock()


def say(text: str) -> None:
    """Print a line such as `[ 175 s] kube-apiserver built`. Safe from several threads: builds overlap."""
    with _lock:
        print(f"[{time.monotonic() - _started:4.0f} s] {text}", file=sys.stderr, flush=True)
