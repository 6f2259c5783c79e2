"""RMSNorm and LayerNorm over the last dimension, with or without the residual added in the same pass.

Both are differentiable in all their tensors (once), take any leading dimensions, and compute at least in float32
whatever the type. Weight and bias have x's type or are float32, as under autocast; gradients have the type of what they
belong to.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor
from torch.nn import functional

from datahall_kernels.dispatch import Path, path_of
from datahall_kernels.norm import checks

_TORCH = Path.TORCH.value


@overload
def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, residual: None = None) -> Tensor: ...
@overload
def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, residual: Tensor) -> tuple[Tensor, Tensor]: ...
def rms_norm(
    x: Tensor, weight: Tensor | None, epsilon: float, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """RMSNorm: y = x / sqrt(mean(x^2) + epsilon) * weight.

    Args:
        x: [..., width], float32, bfloat16 or float16.
        weight: [width] of x's type or float32; None for ones.
        epsilon: added to the mean of squares.
        residual: of x's shape, type and device: then the norm is of summed = x + residual, rounded to x's type.

    Returns:
        y, of x's shape and type; with a residual (y, summed).

    Raises:
        ValueError: an argument is wrong; the text names it. (From the CUDA kernel: RuntimeError with the same text.)
        KernelsError: DATAHALL_KERNELS=require, and our kernel cannot run.
    """
    if path_of("rms_norm", x.device, x.dtype) == _TORCH:
        return _torch_rms_norm(x, weight, epsilon, residual)
    if residual is None:
        return torch.ops.datahall.rms_norm(x.contiguous(), weight, epsilon)[0]  # type: ignore[no-any-return]
    y, summed, _ = torch.ops.datahall.add_rms_norm(x.contiguous(), residual.contiguous(), weight, epsilon)
    return y, summed


@overload
def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, residual: None = None
) -> Tensor: ...
@overload
def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, residual: Tensor
) -> tuple[Tensor, Tensor]: ...
def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """LayerNorm: y = (x - mean) / sqrt(variance + epsilon) * weight + bias.

    All else is as in `rms_norm`; `bias` is like `weight`, None for zeros.
    """
    if path_of("layer_norm", x.device, x.dtype) == _TORCH:
        return _torch_layer_norm(x, weight, bias, epsilon, residual)
    if residual is None:
        return torch.ops.datahall.layer_norm(x.contiguous(), weight, bias, epsilon)[0]  # type: ignore[no-any-return]
    y, summed, _, _ = torch.ops.datahall.add_layer_norm(
        x.contiguous(), residual.contiguous(), weight, bias, epsilon
    )
    return y, summed


def _torch_rms_norm(
    x: Tensor, weight: Tensor | None, epsilon: float, residual: Tensor | None
) -> Tensor | tuple[Tensor, Tensor]:
    summed = _checked_sum("rms_norm", x, residual)
    checks.scale("rms_norm", "weight", weight, x)
    wide = _in_type_of(weight, summed)
    y = functional.rms_norm(wide, wide.shape[-1:], weight, epsilon).to(x.dtype)
    return y if residual is None else (y, summed)


def _torch_layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, residual: Tensor | None
) -> Tensor | tuple[Tensor, Tensor]:
    summed = _checked_sum("layer_norm", x, residual)
    checks.weight_and_bias("layer_norm", weight, bias, x)
    wide = _in_type_of(weight if weight is not None else bias, summed)
    y = functional.layer_norm(wide, wide.shape[-1:], weight, bias, epsilon).to(x.dtype)
    return y if residual is None else (y, summed)


def _checked_sum(op: str, x: Tensor, residual: Tensor | None) -> Tensor:
    x = x.contiguous()
    checks.data(op, x)
    if residual is None:
        return x
    residual = residual.contiguous()
    checks.like_data(op, "residual", residual, x)
    return x + residual


def _in_type_of(parameter: Tensor | None, x: Tensor) -> Tensor:
    """X in the parameter's type: torch's fused ops want one type, and rounding a weight would change the result."""
    return x if parameter is None else x.to(parameter.dtype)
