"""All families of ops, and what the functions that people call are made of.

They are defined in Python, so that they are there without the native library; that one, when it is loaded, registers
its kernels for CUDA under the same names (csrc/bindings).
"""

from __future__ import annotations

import torch

from datahall_kernels import registry
from datahall_kernels.adamw import ops as adamw
from datahall_kernels.decoding import ops as decoding
from datahall_kernels.embedding_bag import ops as embedding_bag
from datahall_kernels.loss import ops as loss
from datahall_kernels.norm import ops as norm
from datahall_kernels.sampling import ops as sampling
from datahall_kernels.weight_only import ops as weight_only

_FAMILIES = (norm, loss, adamw, weight_only, decoding, sampling, embedding_bag)
OPS = tuple(op for family in _FAMILIES for op in family.OPS)
PARTS = {function: parts for family in _FAMILIES for function, parts in family.PARTS.items()}
"""Per function that people call, the ops that it runs by, gradients included."""

assert {op.name for op in OPS} == {part for parts in PARTS.values() for part in parts}

_LIBRARY = torch.library.Library("datahall", "FRAGMENT")
registry.define(OPS, _LIBRARY)
registry.register(OPS, _LIBRARY)
