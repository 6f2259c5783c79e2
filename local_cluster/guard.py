"""Ends a control plane whose owner died without ending it: `python -m local_cluster.guard FOLDER`.

A test run killed with -9 can clean up nothing itself. The guard reads its standard input, a pipe that only the owner
holds open, until it ends; then it ends the processes recorded in FOLDER (`*.pid`) and removes FOLDER. An owner that
closes in order removes FOLDER itself first, and the guard finds nothing to do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from local_cluster.paths import REPOSITORY
from local_cluster.processes import end, read_identity


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start a guard over `folder`; closing the returned process' `stdin` (or dying) sets it off."""
    return subprocess.Popen(
        [sys.executable, "-m", "local_cluster.guard", str(folder)],
        stdin=subprocess.PIPE,
        cwd=REPOSITORY,
        start_new_session=True,  # Ctrl-C is for the owner; the guard must outlive it
    )


def main() -> None:
    """Wait for the owner's end, then clean up."""
    folder = Path(sys.argv[1])
    sys.stdin.buffer.read()
    end(
        (identity for path in folder.glob("*.pid") if (identity := read_identity(path)) is not None),
        grace_seconds=2.0,
    )
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
