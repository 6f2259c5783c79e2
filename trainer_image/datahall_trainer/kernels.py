"""Where the trainer meets our own kernels (datahall_kernels): norms of models that we did not write, and what ran.

Which path an op takes is the package's decision, by DATAHALL_KERNELS: on a CPU torch's own op, on a GPU our kernel
where it can run. It logs each path once.
"""

from __future__ import annotations

from torch import Tensor, nn

import datahall_kernels
from datahall_kernels import Path


class LayerNorm(nn.LayerNorm):
    """Torch's module, parameters and names included, computed by our op."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Of the last dimension."""
        return datahall_kernels.layer_norm(input, self.weight, self.bias, self.eps)


def use_own_norms(model: nn.Module) -> None:
    """Makes every LayerNorm in `model` that is over the last dimension one of ours, in its place."""
    for module in model.modules():
        if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
            module.__class__ = LayerNorm


def describe(device_type: str) -> str:
    """The device for the job's status, with the kernels that ran on it: "cuda (kernels: adamw, layer_norm)"."""
    own = sorted({taken.op for taken in datahall_kernels.paths() if taken.path is Path.CUDA})
    return f"{device_type} (kernels: {', '.join(own)})" if own else device_type
