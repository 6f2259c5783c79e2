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


class Carried:
    """The ops for tensors of a device as if they were for CPU tensors: arguments go there, and results come back.

    Storages are carried whole, and each once: gaps, strides, offsets and who shares memory with whom are as they were,
    and what an op writes to comes back, wherever it is.
    """

    def __init__(self, ops: Any, device: str) -> None:
        self._ops, self._device = ops, device

    def __getattr__(self, op: str) -> Callable[..., Any]:
        function = getattr(self._ops, op)

        def call(*given: Any) -> Any:
            here: dict[int, torch.Tensor] = {}
            there: dict[int, torch.Tensor] = {}

            def carried(x: Any) -> Any:
                if not isinstance(x, torch.Tensor):
                    return x
                storage = x.untyped_storage()
                key = storage._cdata
                if key not in here:
                    here[key] = torch.empty(0, dtype=torch.uint8).set_(storage)
                    there[key] = here[key].to(self._device, copy=True)
                alike = torch.empty(0, dtype=x.dtype, device=self._device)
                return alike.set_(there[key].untyped_storage(), x.storage_offset(), x.shape, x.stride())

            found = function(*tree_map(carried, given))
            for key, bytes_ in here.items():
                bytes_.copy_(there[key])
            return tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, found)

        return call


HAS_GPU = datahall_kernels.available()["rms_norm"].ok


@pytest.fixture(params=["cpu", *(["gpu"] if HAS_GPU else [])])
def bindings(request: pytest.FixtureRequest) -> Any:
    """The ops, computed by bindings and kernels."""
    if request.param == "gpu":
        return Carried(torch.ops.datahall, "cuda")
    # Carried, too, though there is no other device: so that what the GPU's half needs is tried where there is none.
    return Carried(request.getfixturevalue("bindings_on_cpu"), "cpu")


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
