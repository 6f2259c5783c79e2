"""Datahall's CUDA kernels as torch ops.

Importing never fails for want of a GPU or of the native library: `available()` says per op whether our kernel runs,
and if not, why. The variable DATAHALL_KERNELS decides what happens then:

- `auto` (or unset): on CUDA our kernel where it can run, else torch's own op; on CPU tensors the reference.
- `off`: torch's own ops everywhere.
- `require`: an error that says why, where a CUDA tensor would not be served by our kernel. CPU tensors are as in
  `auto`.

`paths()` says which path each op took so far; each is logged once.
"""

from datahall_kernels.dispatch import Path, PathTaken, paths
from datahall_kernels.native import Availability, Reason, available
from datahall_kernels.norm.functions import layer_norm, rms_norm
from datahall_kernels.settings import KernelsError, Mode

__all__ = [
    "Availability",
    "KernelsError",
    "Mode",
    "Path",
    "PathTaken",
    "Reason",
    "available",
    "layer_norm",
    "paths",
    "rms_norm",
]
