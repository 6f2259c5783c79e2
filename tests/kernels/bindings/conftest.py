"""csrc/bindings without a GPU: built for CPU tensors, with the very kernels behind them, on the execution layer.

Not a check of accesses (tests/kernels/sources does that), but of the whole way from an op's arguments to its results.
Where there is a GPU that the installed library can run on, all of it is done there, too.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map

import datahall_kernels
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


class OnGpu:
    """The ops for CUDA tensors as if they were for CPU tensors: arguments go to the GPU, and results come back."""

    def __getattr__(self, op: str) -> Callable[..., Any]:
        function = getattr(torch.ops.datahall, op)

        def call(*given: Any) -> Any:
            there = tree_map(_on_gpu, given)
            found = function(*there)
            # What the op has written to.
            tree_map(_back, given, there)
            return tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, found)

        return call


def _on_gpu(x: Any) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    # With its gaps, which `cuda()` would close.
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda").copy_(x)


def _back(given: Any, there: Any) -> None:
    if isinstance(given, torch.Tensor):
        given.copy_(there)


HAS_GPU = datahall_kernels.available()["rms_norm"].ok


@pytest.fixture(params=["cpu", *(["gpu"] if HAS_GPU else [])])
def bindings(request: pytest.FixtureRequest) -> Any:
    """The ops, computed by bindings and kernels."""
    return OnGpu() if request.param == "gpu" else request.getfixturevalue("bindings_on_cpu")


@pytest.fixture(scope="session")
def bindings_on_cpu() -> Iterator[Any]:
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
