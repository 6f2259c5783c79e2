"""csrc/bindings without a GPU: built for CPU tensors, with the very kernels behind them, on the execution layer.

Not a check of accesses (tests/kernels/sources does that), but of the whole way from an op's arguments to its results.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from datahall_kernels import families, registry
from kernel_execution import building
from native_build import library
from native_build.toolkit import Toolkit

SOURCES = Path(library.__file__).resolve().parents[1] / "csrc"
BINDINGS = SOURCES / "bindings"
NAMESPACE = "datahall_bindings"
TORCH = Path(torch.__file__).parent
PYTHON_HEADERS = Path(sysconfig.get_paths()["include"])
LINK = ("-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", "-Wl,--wrap=datahall_rms_norm_forward")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = shutil.which("g++") is None or not (PYTHON_HEADERS / "Python.h").is_file()
    for item in items:
        if lacking and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.skip(reason="no g++ or Python.h"))


@pytest.fixture(scope="session")
def bindings() -> Iterator[Any]:
    """The ops of the namespace for CPU tensors, computed by bindings and kernels."""
    with ThreadPoolExecutor() as pool:
        ops = (
            path for path in sorted(BINDINGS.glob("*.cpp")) if path.name not in {"device.cpp", "module.cpp"}
        )
        sources = [*ops, Path(__file__).with_name("device.cpp")]
        objects = [*pool.map(_object, sources), *building.compile_unchecked(sorted(SOURCES.glob("*.cu")))]
    flags = [*LINK, f"-L{TORCH / 'lib'}", "-ltorch_cpu"]
    name = building.digest([*flags, *map(str, objects)])

    def link(target: Path) -> None:
        subprocess.run(["g++", "-o", target, *objects, *flags], check=True)

    built = building.cached(f"{name}.so", link)
    namespace = torch.library.Library(NAMESPACE, "DEF")
    registry.define(families.OPS, namespace, dispatch_key=None)
    torch.ops.load_library(str(built))
    yield getattr(torch.ops, NAMESPACE)
    namespace._destroy()


def _object(source: Path) -> Path:
    tools = Toolkit(
        cuda=Path("/nonexistent"),
        torch=TORCH,
        python_headers=PYTHON_HEADERS,
        nvcc_version="",
        torch_version=torch.__version__,
    )

    def make(target: Path) -> None:
        command = library.cpp_command(tools, source, target, defines=["DATAHALL_BINDINGS_ON_CPU"])
        # Torch's headers take seconds to optimise, and what the bindings do takes none.
        subprocess.run([*command, f"-I{SOURCES}", "-O0"], check=True)

    headers = [*BINDINGS.glob("*.h"), *(SOURCES / "launchers").glob("*.h")]
    words = [torch.__version__, *library.cpp_command(tools, Path(source.name), Path("it"))]
    return building.cached(f"{building.digest(words, [source, *sorted(headers)])}.o", make)
