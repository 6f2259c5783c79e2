"""Datahall's CUDA kernels as torch ops.

Importing never fails for want of a GPU or of the native library: `available()` says per op whether our kernel runs,
and if not, why. The variable DATAHALL_KERNELS decides what happens then:

- `auto` (or unset): on CUDA our kernel where it can run, else torch's own op; on CPU tensors torch's own op.
- `reference`: on CPU tensors the reference, which is exact and slow; on CUDA as `auto`.
- `off`: torch's own ops everywhere.
- `require`: an error that says why, where a CUDA tensor would not be served by our kernel. CPU tensors are as in
  `auto`.

`paths()` says which path each op took so far; each is logged once.
"""

from datahall_kernels.adamw.optimizer import AdamW
from datahall_kernels.decoding.functions import (
    CacheKind,
    PagedCache,
    paged_attention,
    rope_append,
    rotary_angles,
)
from datahall_kernels.dispatch import Path, PathTaken, paths
from datahall_kernels.embedding_bag.functions import embedding_bag
from datahall_kernels.loss.functions import cross_entropy, linear_cross_entropy
from datahall_kernels.native import Availability, Reason, available
from datahall_kernels.norm.functions import layer_norm, rms_norm
from datahall_kernels.sampling.functions import sample
from datahall_kernels.settings import KernelsError, Mode
from datahall_kernels.weight_only.functions import QuantisedWeight, quantise, weight_only_linear

__all__ = [
    "AdamW",
    "Availability",
    "CacheKind",
    "KernelsError",
    "Mode",
    "PagedCache",
    "Path",
    "PathTaken",
    "QuantisedWeight",
    "Reason",
    "available",
    "cross_entropy",
    "embedding_bag",
    "layer_norm",
    "linear_cross_entropy",
    "paged_attention",
    "paths",
    "quantise",
    "rms_norm",
    "rope_append",
    "rotary_angles",
    "sample",
    "weight_only_linear",
]
