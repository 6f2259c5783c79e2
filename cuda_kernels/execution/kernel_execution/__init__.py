"""Runs our CUDA kernel sources on the CPU, and reports what a GPU would do silently: for tests and the bench.

    library = build([csrc / "norm.cu"])
    library.check("datahall_rms_norm_forward", Input("x", x), ..., Output("y", y), 199, 384, 1e-5, 0, 0, None)

`check` runs a plain-C launcher on buffers of exact extent and raises `KernelError` for anything out of bounds, racing,
uninitialised, misaligned or dead-locked; what is right is then in `y`. How it works, and what it cannot see: README.md.
"""

from __future__ import annotations

from .buffers import Array, InOut, Input, Output, Scratch, Table
from .building import BuildError, build, compile_unchecked
from .faults import Fault, FaultError, find_survivors
from .findings import Finding, Kind
from .library import KernelError, Library, Order, Outcome

__all__ = [
    "Array",
    "BuildError",
    "Fault",
    "FaultError",
    "Finding",
    "InOut",
    "Input",
    "KernelError",
    "Kind",
    "Library",
    "Order",
    "Outcome",
    "Output",
    "Scratch",
    "Table",
    "build",
    "compile_unchecked",
    "find_survivors",
]
