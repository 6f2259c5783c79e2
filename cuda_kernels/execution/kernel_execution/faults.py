"""Deliberate faults: whether the tests of a kernel would notice that it is wrong.

Each is put alone into a copy of the sources, which is built and given to the tests. A fault that they do not notice is
a gap in them, as is one that no longer applies since the source has changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .building import BuildError, build
from .library import Library


class FaultError(Exception):
    """A fault cannot be put into the sources, or what comes of it does not compile: it says nothing then."""


@dataclass(frozen=True)
class Fault:
    """A change of a source that makes it wrong."""

    file: str
    """Its name, in the folder of the sources."""
    old: str
    """Text that is in it once."""
    new: str
    what: str
    """In words, for whoever reads that it was not noticed."""

    def put_into(self, folder: Path) -> None:
        """Changes the file in `folder`.

        Raises:
            FaultError: The old text is not there, or not just once.
        """
        path = folder / self.file
        text = path.read_text()
        count = text.count(self.old)
        if count != 1:
            raise FaultError(
                f"{self.what}: {self.file} has {self.old!r} {count} times; it must be there once"
            )
        path.write_text(text.replace(self.old, self.new))


def build_with(fault: Fault, sources: Sequence[Path], *, include: Sequence[Path] = ()) -> Library:
    """The library of `sources` with the fault in them.

    Args:
        fault: What to change.
        sources: The .cu files, all in one folder, whose headers, also those in its folders, are copied with them.
        include: More folders of headers, taken as they are.

    Raises:
        FaultError: It cannot be put into them, or what comes of it does not compile.
    """
    folder = sources[0].parent
    with tempfile.TemporaryDirectory() as copy:
        for path in folder.rglob("*"):
            if path.suffix in {".cu", ".cuh", ".h"}:
                target = Path(copy) / path.relative_to(folder)
                target.parent.mkdir(exist_ok=True)
                shutil.copy(path, target)
        fault.put_into(Path(copy))
        try:
            return build([Path(copy) / source.name for source in sources], include=include)
        except BuildError as error:
            raise FaultError(f"{fault.what}: does not compile: {error}") from error


def find_survivors(
    faults: Sequence[Fault],
    sources: Sequence[Path],
    check: Callable[[Library], None],
    *,
    include: Sequence[Path] = (),
) -> list[Fault]:
    """The faults that `check` does not notice.

    Args:
        faults: Each is tried alone.
        sources: As for `build_with`.
        check: Raises if the library is wrong, and must not for the sources as they are.
        include: As for `build_with`.
    """
    check(build(sources, include=include))
    survivors = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        libraries = pool.map(lambda fault: build_with(fault, sources, include=include), faults)
        for fault, library in zip(faults, libraries, strict=True):
            try:
                check(library)
            except Exception:  # noqa: S112 - whatever says that it is wrong
                continue
            finally:
                library.release()
            survivors.append(fault)
    return survivors
