"""What the arguments of cross-entropy must be, for the reference and the shapes' inference."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.arguments import contiguous, floating, same_device, shaped, typed


def loss_type(logits: Tensor) -> torch.dtype:
    """In what losses, and what they are multiplied by, are kept."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def rows_of_logits(op: str, logits: Tensor, *, may_have_gaps: bool) -> None:
    """[rows, classes], floating point, contiguous; or with gaps between the rows where an op can do with them.

    Raises:
        ValueError: names the argument, what it is and what it must be; so do all functions here.
    """
    floating(op, "logits", logits)
    if logits.dim() != 2 or logits.shape[1] == 0:
        raise ValueError(
            f"{op}: logits has shape {list(logits.shape)}; it must be [rows, classes] with at least 1 class"
        )
    if not may_have_gaps:
        contiguous(op, "logits", logits)
    elif (logits.shape[1] > 1 and logits.stride(1) != 1) or (
        logits.shape[0] > 1 and logits.stride(0) < logits.shape[1]
    ):
        raise ValueError(
            f"{op}: logits has strides {list(logits.stride())}; each row must be contiguous, none may overlap"
        )


def targets_of(op: str, targets: Tensor, rows: Tensor, name: str = "logits") -> None:
    """Class indices: int64 [rows]."""
    typed(op, "targets", targets, torch.int64)
    shaped(op, "targets", targets, (rows.shape[0],), f", one per row of {name}")
    same_device(op, "targets", targets, rows, name)
    contiguous(op, "targets", targets)


def gradient_of_losses(op: str, dlosses: Tensor, logits: Tensor) -> None:
    """[rows], of the losses' type; any stride, since most often one number is expanded over all rows."""
    shaped(op, "dlosses", dlosses, (logits.shape[0],), ", one per row of logits")
    typed(op, "dlosses", dlosses, loss_type(logits))
    same_device(op, "dlosses", dlosses, logits, "logits")


def smoothing(op: str, label_smoothing: float) -> None:
    """The part of the target that is spread over all classes."""
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"{op}: label_smoothing is {label_smoothing}; it must be from 0 to 1")


def cross_entropy(
    op: str,
    logits: Tensor,
    targets: Tensor,
    label_smoothing: float,
    *,
    dlosses: Tensor | None = None,
    may_have_gaps: bool = False,
) -> None:
    """All that the loss is made from, and its gradient."""
    rows_of_logits(op, logits, may_have_gaps=may_have_gaps)
    targets_of(op, targets, logits)
    if dlosses is not None:
        gradient_of_losses(op, dlosses, logits)
    smoothing(op, label_smoothing)


def linear(
    op: str, hidden: Tensor, weight: Tensor, bias: Tensor | None, *, targets: Tensor, label_smoothing: float
) -> None:
    """All that the loss of a linear layer's outputs is made from."""
    floating(op, "hidden", hidden)
    if hidden.dim() != 2 or hidden.shape[1] == 0:
        raise ValueError(
            f"{op}: hidden has shape {list(hidden.shape)}; it must be [rows, width], at least 1 wide"
        )
    if weight.dim() != 2 or weight.shape[1] != hidden.shape[1] or weight.shape[0] == 0:
        raise ValueError(
            f"{op}: weight has shape {list(weight.shape)}; it must be [classes, {hidden.shape[1]}], hidden's width"
        )
    _parameter(op, "weight", weight, hidden)
    if bias is not None:
        shaped(op, "bias", bias, (weight.shape[0],), ", weight's classes")
        _parameter(op, "bias", bias, hidden)
    targets_of(op, targets, hidden, "hidden")
    smoothing(op, label_smoothing)


def _parameter(op: str, name: str, parameter: Tensor, hidden: Tensor) -> None:
    if parameter.dtype not in {hidden.dtype, torch.float32}:
        raise ValueError(
            f"{op}: {name} is {parameter.dtype}; it must be {hidden.dtype} as hidden is, or float32"
        )
    same_device(op, name, parameter, hidden, "hidden")
