"""The built wheel, as it is installed: `make test-kernels` runs these under the oldest and the newest torch."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import datahall_kernels
from datahall_kernels import Reason, families, native
from native_build import fatbinary
from native_build.library import ARCHITECTURES, REPORT
from native_build.ptxas import KernelUse, table

PACKAGE = Path(datahall_kernels.__file__).parent
LIBRARY = PACKAGE / "_native.abi3.so"

pytestmark = pytest.mark.skipif(
    "DATAHALL_KERNELS_WHEEL" not in os.environ, reason="no wheel is installed (make test-kernels)"
)


def test_the_wheel_is_what_is_imported_and_its_library_loads() -> None:
    assert PACKAGE.is_relative_to(sys.prefix)
    assert native.LIBRARY.ok, native.LIBRARY
    for op in (part for parts in families.PARTS.values() for part in parts):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"datahall::{op}", "CUDA"), op


def test_the_wheel_fits_every_python_from_the_oldest_on() -> None:
    wheel = importlib.metadata.distribution("datahall-kernels").read_text("WHEEL") or ""
    assert "Tag: cp311-abi3-linux_" in wheel


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_that_is_the_reason() -> None:
    found = datahall_kernels.available()
    assert {one.reason for one in found.values()} == {Reason.NO_CUDA_DEVICE}


def test_the_library_has_code_for_every_gpu_that_is_promised() -> None:
    assert fatbinary.architectures(LIBRARY) == ARCHITECTURES


def test_the_library_needs_nothing_that_a_torch_without_cuda_lacks() -> None:
    # Not libtorch_cuda.so, not a CUDA runtime: it must load, and say that there is no GPU.
    shown = subprocess.run(["readelf", "-d", LIBRARY], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].rstrip("]") for line in shown.splitlines() if "(NEEDED)" in line}
    system = {name for name in needed if name.split(".so")[0] in ("libc", "libgcc_s", "libstdc++", "libm")}
    assert {name for name in needed - system if not name.startswith("ld-linux")} == {"libtorch_cpu.so"}


def test_the_library_has_no_path_of_the_machine_that_built_it() -> None:
    content = LIBRARY.read_bytes()
    for path in (str(Path.home()), "site-packages"):
        assert path.encode() not in content


def test_no_kernel_spills_registers() -> None:
    report = json.loads((PACKAGE / REPORT).read_text())
    kernels = [KernelUse(**use) for use in report["kernels"]]
    print(table(kernels))
    assert {use.arch for use in kernels} == {a for a in ARCHITECTURES if a.startswith("sm_")}
    assert not [use for use in kernels if use.spills]
