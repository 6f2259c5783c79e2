"""The native library, and why it can or cannot serve an op here.

It is loaded when the package is imported, which is cheap and asks no GPU anything; whether there is a GPU is asked only
when somebody wants to know, because the question starts CUDA in this process.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from dataclasses import dataclass
from enum import StrEnum

import torch

from datahall_kernels import families, settings

OLDEST_TORCH = (2, 11)
OLDEST_CAPABILITY = (8, 0)
OLDEST_CUDA = (13, 0)
"""Of the driver: the CUDA runtime in the library asks for it, whatever torch itself is content with."""
_MODULE = "datahall_kernels._native"


class Reason(StrEnum):
    """Whether our kernel can run, and the first thing that is in the way."""

    OK = "ok"
    FORCED_OFF = "forced off"
    WRONG_TORCH = "wrong torch"
    NOT_BUILT = "library not built"
    NOT_LOADED = "library does not load"
    NOT_IN_LIBRARY = "not in the library"
    NO_CUDA_DEVICE = "no CUDA device"
    OLD_DRIVER = "driver too old"
    OLD_DEVICE = "device too old"
    DTYPE = "no kernel for this type"


@dataclass(frozen=True)
class Availability:
    """Of one op on one device: `detail` is a sentence for people, empty where `reason` is OK."""

    reason: Reason
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether our kernel runs."""
        return self.reason is Reason.OK


OK = Availability(Reason.OK)


def judge_torch(version: str) -> Availability:
    """Whether this torch can load a library that was built for OLDEST_TORCH and later."""
    numbers = tuple(int(number) for number in version.split("+", maxsplit=1)[0].split(".")[:2])
    if numbers >= OLDEST_TORCH:
        return OK
    oldest = ".".join(map(str, OLDEST_TORCH))
    return Availability(Reason.WRONG_TORCH, f"torch is {version}; the kernels need {oldest} or newer")


def load() -> Availability:
    """Loads the native library, which registers its kernels; never raises."""
    torch_is = judge_torch(torch.__version__)
    if not torch_is.ok:
        return torch_is
    if importlib.util.find_spec(_MODULE) is None:
        return Availability(
            Reason.NOT_BUILT,
            "the package has no native library; install the wheel that `make kernels` builds",
        )
    try:
        importlib.import_module(_MODULE)
    except (ImportError, OSError, RuntimeError) as error:
        return Availability(Reason.NOT_LOADED, f"{_MODULE}: {error}")
    return OK


LIBRARY = load()


def cuda_of_driver() -> tuple[int, int]:
    """The newest CUDA that the driver supports; to be asked where there is one."""
    version = ctypes.c_int()
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def judge(op: str, *, library: Availability, device: torch.device | None = None) -> Availability:
    """Whether our kernel can run `op` on `device` (None: torch's current CUDA device), whatever the variable says."""
    if not library.ok:
        return library
    for part in families.PARTS[op]:
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"datahall::{part}", "CUDA"):
            return Availability(Reason.NOT_IN_LIBRARY, f"the native library is older than datahall::{part}")
    if not torch.cuda.is_available():
        built = "finds no CUDA device" if torch.version.cuda else "is built without CUDA"
        return Availability(Reason.NO_CUDA_DEVICE, f"torch {torch.__version__} {built}")
    driver = cuda_of_driver()
    if driver < OLDEST_CUDA:
        found, oldest = (".".join(map(str, version)) for version in (driver, OLDEST_CUDA))
        return Availability(
            Reason.OLD_DRIVER, f"the driver supports CUDA up to {found}; the kernels need {oldest}"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        found, oldest = (".".join(map(str, c)) for c in (capability, OLDEST_CAPABILITY))
        return Availability(
            Reason.OLD_DEVICE, f"the device has compute capability {found}; the kernels need {oldest}"
        )
    return OK


def available() -> dict[str, Availability]:
    """Per op, whether our CUDA kernel would run on the current device, and if not, why.

    Raises:
        KernelsError: DATAHALL_KERNELS has a value that is none.
    """
    if settings.mode() is settings.Mode.OFF:
        off = Availability(Reason.FORCED_OFF, f"{settings.VARIABLE}=off")
        return dict.fromkeys(families.PARTS, off)
    return {op: judge(op, library=LIBRARY) for op in families.PARTS}
