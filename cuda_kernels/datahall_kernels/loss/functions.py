"""The losses that people call: cross-entropy, and cross-entropy of a linear layer's outputs.

Classes are the last dimension, as models have them; losses are float32 whatever the type of the logits (float64 for
float64). A target that is no class makes our loss NaN, since looking at it would wait for the GPU; torch's own op
raises an error on the CPU and ends the process's CUDA on a GPU.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from datahall_kernels.dispatch import Path, path_of
from datahall_kernels.loss import checks
from datahall_kernels.loss.linear import CHUNK_BYTES

Reduction = Literal["mean", "sum", "none"]
IGNORED = -100
"""The usual target of rows that do not count."""
_TORCH = Path.TORCH.value


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of logits with the classes that are right; differentiable in the logits, once.

    Args:
        logits: [..., classes], float32, bfloat16 or float16.
        targets: [...], int64 class indices.
        ignore_index: rows with this target have neither loss nor gradient.
        label_smoothing: this part of the target is spread over all classes, 0 to 1.
        reduction: "mean" over the rows that are not ignored (NaN if all are), "sum", or "none".

    Returns:
        The loss []; with "none" those of all rows [...].

    Raises:
        ValueError: an argument is wrong; the text names it. (From the CUDA kernel: RuntimeError with the same text.)
        KernelsError: DATAHALL_KERNELS=require, and our kernel cannot run.
    """
    _check_reduction("cross_entropy", reduction, ("mean", "sum", "none"))
    _check_shapes("cross_entropy", "logits", logits, targets)
    rows, aims = logits.reshape(-1, logits.shape[-1]).contiguous(), targets.reshape(-1).contiguous()
    if path_of("cross_entropy", logits.device, logits.dtype) == _TORCH:
        checks.cross_entropy("cross_entropy", rows, aims, label_smoothing)
        by_torch = functional.cross_entropy(
            rows.to(checks.loss_type(rows)),
            aims,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
        return by_torch.reshape(targets.shape) if reduction == "none" else by_torch
    losses: Tensor = torch.ops.datahall.cross_entropy(rows, aims, ignore_index, label_smoothing)
    if reduction == "none":
        return losses.reshape(targets.shape)
    total = losses.sum()
    return total if reduction == "sum" else total / (aims != ignore_index).sum()


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """`cross_entropy(linear(hidden, weight, bias), targets)` without all logits in memory.

    The gradients are made in the forward pass, a chunk of rows at a time, and kept until the backward pass. Under
    autocast it computes in autocast's type, as a linear layer does.

    Args:
        hidden: [..., width], float32, bfloat16 or float16.
        weight: [classes, width], of hidden's type or float32: of a language model, the head or the tied embedding.
        targets: [...], int64 class indices.
        bias: [classes], as weight; None for zeros.
        ignore_index: as in `cross_entropy`.
        label_smoothing: as in `cross_entropy`.
        reduction: "mean" over the rows that are not ignored, or "sum". Not "none": gradients are made before anybody
            could say how rows count.
        chunk_bytes: of logits in memory at a time.

    Returns:
        The loss [].

    Raises:
        ValueError: an argument is wrong; the text names it. (From the CUDA kernel: RuntimeError with the same text.)
        KernelsError: DATAHALL_KERNELS=require, and our kernel cannot run.
    """
    op = "linear_cross_entropy"
    _check_reduction(op, reduction, ("mean", "sum"))
    if chunk_bytes < 1:
        raise ValueError(f"{op}: chunk_bytes is {chunk_bytes}; it must be at least 1")
    _check_shapes(op, "hidden", hidden, targets)
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    rows, aims = hidden.reshape(-1, hidden.shape[-1]).contiguous(), targets.reshape(-1).contiguous()
    if path_of(op, rows.device, rows.dtype) == _TORCH:
        checks.linear(op, rows, weight, bias, targets=aims, label_smoothing=label_smoothing)
        bias = None if bias is None else bias.to(rows.dtype)
        logits = functional.linear(rows, weight.to(rows.dtype), bias)
        return functional.cross_entropy(
            logits.to(checks.loss_type(rows)),
            aims,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
    can = torch.is_grad_enabled()
    loss: Tensor = torch.ops.datahall.linear_cross_entropy(
        *(rows, weight, bias, aims, ignore_index, label_smoothing, reduction == "mean", chunk_bytes),
        *(can and rows.requires_grad, can and weight.requires_grad),
        can and bias is not None and bias.requires_grad,
    )[0]
    return loss


def _check_reduction(op: str, reduction: str, known: tuple[str, ...]) -> None:
    if reduction not in known:
        raise ValueError(f"{op}: reduction is {reduction!r}; it must be one of {', '.join(known)}")


def _check_shapes(op: str, name: str, data: Tensor, targets: Tensor) -> None:
    if data.dim() < 1 or data.shape[-1] == 0 or data.shape[:-1] != targets.shape:
        raise ValueError(
            f"{op}: {name} has shape {list(data.shape)} and targets {list(targets.shape)}; "
            f"{name} must have one dimension more, the last, at least 1 wide"
        )
