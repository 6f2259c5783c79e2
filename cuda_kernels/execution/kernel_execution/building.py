"""Kernel sources to a library that checks each of its accesses. What was built is kept, by what it was built from."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .findings import OWN_HEADERS
from .library import Library

EXECUTION = Path(__file__).resolve().parent.parent
INCLUDE = EXECUTION / "include"
RUNTIME = EXECUTION / "runtime"
QUOTED_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)

COMMON_FLAGS = ("-std=c++20", "-g1", "-fPIC", "-Wall", "-Wextra", "-Werror")
RUNTIME_FLAGS = (*COMMON_FLAGS, "-O2", "-fvisibility=hidden")
KERNEL_FLAGS = (
    *COMMON_FLAGS,
    "-O1",
    "-Wno-unknown-pragmas",  # unroll
    # The instrumentation alone: ../runtime is what it calls, and neither library of it is linked.
    "-fsanitize=thread,alignment,bounds-strict,signed-integer-overflow,shift,integer-divide-by-zero",
    "--param=tsan-instrument-func-entry-exit=0",
    "-fno-tree-sra",  # an access to a float4 stays one access
    "-fno-builtin-memcpy",  # calls, which the runtime looks at
    "-fno-builtin-memmove",
    "-fno-builtin-memset",
    "-fno-optimize-sibling-calls",  # who called is known by the return address
    "-fno-strict-aliasing",
    "-fdata-sections",
    "-fno-gnu-unique",  # two libraries with the same template have a static of it each
    "-ffp-contract=off",  # the same bits on every processor
)
UNCHECKED = "-DDATAHALL_CPU_UNCHECKED"
UNCHECKED_FLAGS = (
    *COMMON_FLAGS,
    "-O1",
    "-Wno-unknown-pragmas",
    "-fno-strict-aliasing",
    "-fno-gnu-unique",
    "-ffp-contract=off",
    UNCHECKED,
)
# A thread-local array, which only shared memory is (cuda_on_cpu.h), in the compiler's assembly.
SHARED_ARRAY = re.compile(
    r"(\.section\s+\.tbss[^\n]*\n(?:\s+\.(?:align|type|weak|size)[^\n]*\n)*([\w.$]+):\n\s+\.zero\s+)(\d+)"
)
MARGIN_BYTES = 256
LINK_FLAGS = ("-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs")


class BuildError(Exception):
    """A source does not compile, or uses what the execution layer does not offer. Has the compiler's words."""


def build(sources: Sequence[Path], *, include: Sequence[Path] = ()) -> Library:
    """Compiles kernel sources into one library and loads it.

    Args:
        sources: The .cu files. Headers (.cuh, .h) are taken from their folders, in which `platform.cuh` is, too.
        include: More folders of headers.

    Raises:
        BuildError: A source does not compile or link, or there is no g++.
    """
    folders = [*dict.fromkeys([*(source.parent for source in sources), *include])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kernels = pool.map(lambda source: _kernel_object(source, folders), sources)
        runtime = pool.map(lambda source: _runtime_object(source, RUNTIME_FLAGS), _runtime_sources())
        objects = [*kernels, *runtime]
    name = digest([*LINK_FLAGS, *(str(path) for path in objects)])
    arguments = [*LINK_FLAGS, *(str(path) for path in objects), "-o"]
    return Library(cached(f"{name}.so", lambda target: _run_compiler([*arguments, str(target)])))


def compile_unchecked(sources: Sequence[Path], *, include: Sequence[Path] = ()) -> list[Path]:
    """Compiles kernel sources, and what runs them, to objects that check no access: for a program of one's own.

    Their launchers take any memory of the process, such as torch's. One thread may launch at a time.

    Raises:
        BuildError: A source does not compile, or there is no g++.
    """
    folders = [*dict.fromkeys([*(source.parent for source in sources), *include])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kernels = pool.map(lambda source: _unchecked_object(source, folders), sources)
        runtime = pool.map(
            lambda source: _runtime_object(source, (*RUNTIME_FLAGS, UNCHECKED)), _runtime_sources()
        )
        return [*kernels, *runtime]


def _unchecked_object(source: Path, folders: Sequence[Path]) -> Path:
    searched = [*folders, INCLUDE]
    name = digest([*UNCHECKED_FLAGS, source.name], [source, *_headers_of(source, searched)])
    paths = [f"-I{folder}" for folder in searched]
    arguments = [*UNCHECKED_FLAGS, *paths, "-x", "c++", "-c", str(source), "-o"]
    return cached(f"{name}.o", lambda target: _run_compiler([*arguments, str(target)]))


def _kernel_object(source: Path, folders: Sequence[Path]) -> Path:
    searched = [*folders, INCLUDE]
    headers = _headers_of(source, searched)
    # Where the sources lie is not in what is made of them: a copy with one change is built anew for that file alone.
    maps = [f"-ffile-prefix-map={folder}=/{folder.name}" for folder in folders]
    maps.append(f"-ffile-prefix-map={INCLUDE}={OWN_HEADERS}")
    paths = [f"-I{folder}" for folder in searched]
    name = digest([*KERNEL_FLAGS, source.name, SHARED_ARRAY.pattern, str(MARGIN_BYTES)], [source, *headers])

    def make(target: Path) -> None:
        assembly = target.with_suffix(".s")
        _run_compiler([*KERNEL_FLAGS, *maps, *paths, "-x", "c++", "-S", str(source), "-o", str(assembly)])
        assembly.write_text(with_margins(assembly.read_text()))
        _run_compiler(["-c", str(assembly), "-o", str(target)])
        assembly.unlink()

    return cached(f"{name}.o", make)


def with_margins(assembly: str) -> str:
    """Assembly in which room that is nobody's follows each shared array: what goes beyond one is not in the next."""
    return SHARED_ARRAY.sub(lambda found: f"{found[1]}{int(found[3]) + MARGIN_BYTES}", assembly)


def _headers_of(source: Path, folders: Sequence[Path]) -> list[Path]:
    """All that it includes by quoted names, and what these include."""
    found: dict[Path, None] = {}
    left = [source]
    while left:
        file = left.pop()
        for name in QUOTED_INCLUDE.findall(file.read_text()):
            header = next(
                (path for folder in [file.parent, *folders] if (path := folder / name).exists()), None
            )
            if header is not None and header not in found:
                found[header] = None
                left.append(header)
    return sorted(found, key=lambda path: path.name)


def _runtime_sources() -> list[Path]:
    return sorted(RUNTIME.glob("*.cpp"))


def _runtime_object(source: Path, flags: Sequence[str]) -> Path:
    name = digest([*flags, source.name], [source, *sorted(RUNTIME.glob("*.h"))])
    maps = [f"-ffile-prefix-map={RUNTIME}={OWN_HEADERS}"]
    arguments = [*flags, *maps, "-c", str(source), "-o"]
    return cached(f"{name}.o", lambda target: _run_compiler([*arguments, str(target)]))


def cache_folder() -> Path:
    """Where the project keeps what it builds: `$DATAHALL_CACHE`, else `datahall` in the user's cache folder."""
    explicit = os.environ.get("DATAHALL_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(explicit) if explicit else (Path(base) if base else Path.home() / ".cache") / "datahall"
    return home.resolve() / "kernel_execution"


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The file of this name, made once: in another folder first, so that nobody sees half of it."""
    target = cache_folder() / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / name
            make(made)
            made.replace(target)
    return target


def _run_compiler(arguments: Sequence[str]) -> None:
    result = subprocess.run([_compiler(), *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(result.stderr)


@functools.cache
def _compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        raise BuildError("g++: not found; kernels are compiled for the CPU with g++ 12 or newer")
    return found


@functools.cache
def _compiler_version() -> str:
    return subprocess.run([_compiler(), "-v"], capture_output=True, text=True, check=True).stderr


def digest(words: Iterable[str], files: Iterable[Path] = ()) -> str:
    """A name for what the compiler makes with these flags of these files."""
    made = hashlib.sha256(_compiler_version().encode())
    for word in words:
        made.update(word.encode() + b"\0")
    for file in files:
        made.update(hashlib.sha256(file.read_bytes()).digest())
    return made.hexdigest()[:32]
