"""Commands as a user would type them: shown, run, and a failure ends the demo with a sentence."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

_started = time.monotonic()


def say(text: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.monotonic() - _started:5.0f} s] {text}", flush=True)


def run(*command: str | Path, quiet: bool = False, stdin: str | None = None) -> None:
    """Run a command, showing it first; a failure ends the demo with its exit code."""
    words = [str(word) for word in command]
    if not quiet:
        say("$ " + shlex.join(words))
    out = subprocess.DEVNULL if quiet else None
    done = subprocess.run(words, check=False, stdout=out, input=stdin, text=True)
    if done.returncode != 0:
        raise SystemExit(f"`{shlex.join(words)}` failed with exit code {done.returncode}")


def output(*command: str) -> str:
    """Standard output of a command that is not shown."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"`{shlex.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def objects(kind: str, *arguments: str) -> list[dict[str, Any]]:
    """What `kubectl get KIND` finds."""
    items: list[dict[str, Any]] = json.loads(output("kubectl", "get", kind, *arguments, "-o", "json"))[
        "items"
    ]
    return items


def found(kind: str, name: str, *, namespace: str) -> dict[str, Any]:
    """One object; {} where it does not exist."""
    where = ("-n", namespace, "--ignore-not-found", "-o", "json")
    text = output("kubectl", "get", kind, name, *where)
    body: dict[str, Any] = json.loads(text) if text.strip() else {}
    return body
