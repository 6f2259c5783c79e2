"""Where things lie: everything that is built or kept lives outside the source tree, under one cache folder."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ROOM = REPOSITORY / "local_cluster"


def cache_home() -> Path:
    """`$DATAHALL_CACHE`, else `datahall` in the user's cache folder; absolute, for the command lines it goes into."""
    explicit = os.environ.get("DATAHALL_CACHE")
    if explicit:
        return Path(explicit).resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").resolve() / "datahall"
