"""The one variable, DATAHALL_KERNELS, that people set."""

from __future__ import annotations

import os
from enum import StrEnum

VARIABLE = "DATAHALL_KERNELS"


class KernelsError(RuntimeError):
    """What was asked of the kernels by DATAHALL_KERNELS cannot be had; the text says why and the way out."""


class Mode(StrEnum):
    """What DATAHALL_KERNELS may be."""

    AUTO = "auto"
    REFERENCE = "reference"
    OFF = "off"
    REQUIRE = "require"


def mode() -> Mode:
    """DATAHALL_KERNELS as it is now; `auto` where it is unset or empty.

    Raises:
        KernelsError: it has another value.
    """
    value = os.environ.get(VARIABLE, "") or Mode.AUTO
    try:
        return Mode(value)
    except ValueError:
        raise KernelsError(f"{VARIABLE}: {value!r} is none of auto, reference, off, require") from None
