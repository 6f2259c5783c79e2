"""What is read out of compilers' words and of a built library."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from pathlib import Path

import pytest
import torch

from datahall_kernels import native
from native_build import fatbinary, ptxas, toolkit
from native_build.ptxas import KernelUse

REPOSITORY = Path(__file__).resolve().parents[3]
NAME = "_ZN8datahall39_GLOBAL__N__e45affb6_7_norm_cu_16da633012norm_forwardIfLi4ELi1ELb0ELb1EEEvNS0_16ForwardArgumentsE"
SAID = f"""ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{NAME}' for 'sm_80'
ptxas info    : Function properties for {NAME}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 4224 bytes smem, 400 bytes cmem[0]
ptxas info    : Compile time = 18.561 ms
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{NAME}' for 'sm_90a'
ptxas info    : Function properties for {NAME}
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 128 registers, used 0 barriers
"""


def test_ptxas_output_is_read_per_kernel_and_architecture() -> None:
    assert ptxas.parse(SAID) == [
        KernelUse(NAME, "sm_80", 32, 0, 0, 0, 4224),
        KernelUse(NAME, "sm_90a", 128, 16, 8, 12, 0),
    ]
    assert [use.spills for use in ptxas.parse(SAID)] == [False, True]


def test_ptxas_output_without_figures_is_an_error() -> None:
    with pytest.raises(ValueError, match="no figures for _ZN8datahall"):
        ptxas.parse(SAID.replace("bytes spill loads", "bytes"))


def test_table_has_those_that_spill_first() -> None:
    lines = ptxas.table(ptxas.parse(SAID)).splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["128", "20", "0", "sm_90a"],
        ["32", "0", "4224", "sm_80"],
    ]


def container(*entries: tuple[int, int, int], version: int = 1) -> bytes:
    """Of (kind, architecture, flags), as nvcc writes it."""
    code = b""
    for kind, architecture, flags in entries:
        header = struct.pack("<HHIQ", kind, 0x101, 64, 8) + bytes(12) + struct.pack("<I", architecture)
        header += bytes(8) + struct.pack("<Q", flags)
        code += header.ljust(64, b"\0") + b"machine!"
    return struct.pack("<IHHQ", 0xBA55ED50, version, 16, len(code)) + code


def test_architectures_are_read_from_every_container(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    first = container((2, 80, 0x11), (2, 90, 0x100011), (1, 90, 0x8011))
    library.write_bytes(b"ELF and so on" + first + b"between" + container((2, 100, 0x1200011)) + b"end")
    assert fatbinary.architectures(library) == ("compute_90", "sm_100f", "sm_80", "sm_90a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no code at all", "no CUDA code in it"),
        (container((2, 80, 0), version=2), "a container of code of version 2"),
        (container((7, 80, 0)), "code of kind 7"),
        (container((2, 80, 0))[:-20], "is not known"),
    ],
    ids=["none", "version", "kind", "cut off"],
)
def test_what_is_not_known_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    library = tmp_path / "library.so"
    library.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        fatbinary.architectures(library)


@pytest.mark.skipif(
    not (REPOSITORY / "requirements").is_dir(), reason="the wheel is tested without requirements/"
)
def test_all_of_cuda_is_pinned_to_one_minor() -> None:
    # nvcc's package asks for its parts without versions: one that is left out would come from a newer CUDA.
    lock = (REPOSITORY / "requirements" / "kernels-build.txt").read_text()
    found = dict(re.findall(r"^(nvidia-[a-z-]+)==(\d+\.\d+)", lock, re.MULTILINE))
    parts = {
        "nvcc": "cuda-nvcc",
        "nvvm": "nvvm",
        "crt": "cuda-crt",
        "runtime": "cuda-runtime",
        "cccl": "cuda-cccl",
    }
    assert found == {f"nvidia-{name}": "13.0" for name in parts.values()}


@pytest.mark.skipif(torch.version.cuda is None, reason="torch is built without CUDA")
def test_torch_has_the_current_stream_where_the_bindings_look_for_it() -> None:
    loaded = ctypes.CDLL("libtorch_cuda.so", mode=os.RTLD_NOW | os.RTLD_NOLOAD)
    assert loaded.aoti_torch_get_current_cuda_stream


def test_a_driver_is_asked_for_that_the_librarys_own_runtime_runs_on() -> None:
    assert ".".join(map(str, native.OLDEST_CUDA)) == toolkit.CUDA


def test_the_build_uses_the_oldest_torch_that_is_served() -> None:
    major, minor = (int(number) for number in toolkit.TORCH.split("."))
    assert int(toolkit.TORCH_TARGET_VERSION.rstrip("UL"), 16) == major << 56 | minor << 48
