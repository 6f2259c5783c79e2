"""Which implementation serves an op: the one place that decides, logs it once and keeps it for metrics.

The decision is made when an op first meets a device and a type, and holds from then on: DATAHALL_KERNELS is read then,
not at every call, which would cost as much as a small kernel takes. Under torch.compile it is made while tracing.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from enum import StrEnum

import torch

from datahall_kernels import native, settings
from datahall_kernels.native import Availability, Reason
from datahall_kernels.settings import KernelsError, Mode

__all__ = ["KernelsError", "Mode", "Path", "PathTaken", "decide", "forget", "path_of", "paths"]

_log = logging.getLogger(__name__)
NATIVE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Path(StrEnum):
    """Who computes an op."""

    CUDA = "cuda"
    """Our CUDA kernel."""
    REFERENCE = "reference"
    """Our implementation in plain torch, which defines what is right; slow, since it computes in float64."""
    TORCH = "torch"
    """Torch's own op."""


@dataclass(frozen=True)
class PathTaken:
    """What an op runs by, for one device and type."""

    op: str
    device: str
    dtype: str
    path: Path
    reason: Reason


_taken: dict[tuple[str, torch.device, torch.dtype], PathTaken] = {}
_lock = threading.Lock()


def decide(op: str, *, device_type: str, mode: Mode, kernel: Availability) -> Path:
    """The path of an op.

    Args:
        op: as people call it, such as "rms_norm".
        device_type: of the tensors, such as "cuda".
        mode: what DATAHALL_KERNELS says.
        kernel: whether our CUDA kernel could run; of no interest for other devices.

    Raises:
        KernelsError: the mode is `require` and a CUDA tensor cannot be served by our kernel.
    """
    if mode is Mode.OFF:
        return Path.TORCH
    if device_type == "cpu" and mode is Mode.REFERENCE:
        return Path.REFERENCE
    if device_type != "cuda":
        return Path.TORCH
    if kernel.ok:
        return Path.CUDA
    if mode is Mode.REQUIRE:
        raise KernelsError(
            f"{settings.VARIABLE}=require, but {op} has no kernel here: {kernel.reason}: {kernel.detail}. "
            f"Mend that, or set {settings.VARIABLE}=auto to run torch's own op"
        )
    return Path.TORCH


def path_of(op: str, device: torch.device, dtype: torch.dtype) -> str:
    """The `Path` of an op for tensors of this device and type, decided at the first call; logged then, once.

    Raises:
        KernelsError: the mode is `require` and a CUDA tensor cannot be served by our kernel; or it is no mode.
    """
    taken = _taken.get((op, device, dtype))
    if taken is None:
        with _lock:
            taken = _taken.get((op, device, dtype)) or _take(op, device, dtype)
    return taken.path.value


# What torch.compiler.assume_constant_result does, without its import of Dynamo, which takes seconds.
path_of._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _take(op: str, device: torch.device, dtype: torch.dtype) -> PathTaken:
    mode = settings.mode()
    kernel = _kernel(op, device, dtype, mode)
    path = decide(op, device_type=device.type, mode=mode, kernel=kernel)
    name = str(dtype).removeprefix("torch.")
    taken = PathTaken(op=op, device=str(device), dtype=name, path=path, reason=kernel.reason)
    _taken[op, device, dtype] = taken
    why = f": {kernel.detail or kernel.reason}" if path is Path.TORCH else ""
    # On a GPU a kernel that is missing costs time that nobody asked to give away.
    unasked = device.type == "cuda" and path is Path.TORCH and mode is not Mode.OFF
    level = logging.WARNING if unasked else logging.INFO
    _log.log(level, "kernel op=%s device=%s dtype=%s path=%s%s", op, device, name, path, why)
    return taken


def _kernel(op: str, device: torch.device, dtype: torch.dtype, mode: Mode) -> Availability:
    if mode is Mode.OFF:
        return Availability(Reason.FORCED_OFF, f"{settings.VARIABLE}=off")
    if device.type != "cuda":
        return Availability(Reason.NO_CUDA_DEVICE, f"the tensors are on {device}")
    if dtype not in NATIVE_DTYPES:
        return Availability(Reason.DTYPE, f"the kernels know float32, bfloat16 and float16, not {dtype}")
    return native.judge(op, library=native.LIBRARY, device=device)


def paths() -> tuple[PathTaken, ...]:
    """What each op has run by in this process so far, in order of first use."""
    with _lock:
        return tuple(_taken.values())


def forget() -> None:
    """Decides anew from here on, for tests that set DATAHALL_KERNELS. What torch.compile has traced stays."""
    with _lock:
        _taken.clear()
