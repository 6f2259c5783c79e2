"""Where compilers and headers of a build are: in the packages of requirements/kernels-build.txt, beside this Python.

Traps of those packages: nvcc's wheel asks for its parts without their versions, so that a resolver mixes CUDA minors;
they put everything under nvidia/cu13, with `lib` and no `lib64`, and libcudart.so only by its full name, which is why
the runtime is linked statically. Torch is used for its headers and one library to link with: it is never imported, so
its own dependencies (gigabytes) are not needed.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

CUDA = "13.0"
# The oldest torch that is served. Its own headers are used: newer ones could let a newer function slip in, and tell
# an older torch that the library wants more than it needs.
TORCH = "2.11"
TORCH_TARGET_VERSION = "0x020b000000000000ULL"
_REMEDY = "build by `make kernels`, which installs requirements/kernels-build.txt"


class BuildError(RuntimeError):
    """The library cannot be built here; the text says what is missing and the way out."""


@dataclass(frozen=True)
class Toolkit:
    """Folders and versions of one build."""

    cuda: Path
    torch: Path
    python_headers: Path
    nvcc_version: str
    torch_version: str

    @property
    def nvcc(self) -> Path:
        """The CUDA compiler."""
        return self.cuda / "bin" / "nvcc"


def find() -> Toolkit:
    """Finds compilers and headers in the running Python's packages.

    Raises:
        BuildError: something is missing, or of another version than the pinned one.
    """
    cuda = _package("nvidia") / "cu13"
    nvcc = cuda / "bin" / "nvcc"
    if not nvcc.is_file():
        raise BuildError(f"no nvcc under {cuda}; {_REMEDY}")
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"V(\d+\.\d+\.\d+)", said)
    if version is None or not version[1].startswith(f"{CUDA}."):
        raise BuildError(f"nvcc is {version[1] if version else said!r}; it must be {CUDA}.*; {_REMEDY}")
    torch = _package("torch")
    torch_version = re.search(r"__version__ = '([^']+)'", (torch / "version.py").read_text())
    if torch_version is None or not torch_version[1].startswith(f"{TORCH}."):
        found = torch_version[1] if torch_version else "of an unknown version"
        raise BuildError(f"torch's headers are {found}; they must be {TORCH}.*; {_REMEDY}")
    return Toolkit(
        cuda=cuda,
        torch=torch,
        python_headers=Path(sysconfig.get_paths()["include"]),
        nvcc_version=version[1],
        torch_version=torch_version[1],
    )


def _package(name: str) -> Path:
    # Found, not imported: torch's import would need all that it depends on.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise BuildError(f"no Python package {name!r}; {_REMEDY}")
    return Path(next(iter(spec.submodule_search_locations)))
