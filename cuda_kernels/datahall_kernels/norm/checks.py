"""What the norms' arguments must be, for the reference and the shapes' inference."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.arguments import contiguous, floating, same_device


def rows_of(x: Tensor) -> int:
    """The number of rows that are normalised: the product of all dimensions but the last."""
    rows = 1
    for size in x.shape[:-1]:
        rows *= size
    return rows


def statistics_type(x: Tensor) -> torch.dtype:
    """In what the mean and 1 / deviation of x's rows are kept."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def data(op: str, x: Tensor, name: str = "x") -> None:
    """The tensor that is normalised: [..., width], floating point, contiguous.

    Raises:
        ValueError: names the argument, what it is and what it must be.
    """
    floating(op, name, x)
    if x.dim() < 1 or x.shape[-1] == 0:
        raise ValueError(
            f"{op}: {name} has shape {list(x.shape)}; its last dimension must be at least 1 wide"
        )
    contiguous(op, name, x)


def like_data(op: str, name: str, tensor: Tensor | None, x: Tensor) -> None:
    """A tensor of x's shape, type and device, such as the residual or a gradient."""
    if tensor is None:
        return
    if tensor.shape != x.shape:
        raise ValueError(f"{op}: {name} has shape {list(tensor.shape)}; it must be x's, {list(x.shape)}")
    if tensor.dtype != x.dtype:
        raise ValueError(f"{op}: {name} is {tensor.dtype}; it must be {x.dtype} as x is")
    same_device(op, name, tensor, x)
    contiguous(op, name, tensor)


def scale(op: str, name: str, tensor: Tensor | None, x: Tensor) -> None:
    """Weight or bias: [width], of x's type or float32."""
    if tensor is None:
        return
    if tensor.dim() != 1 or tensor.shape[0] != x.shape[-1]:
        raise ValueError(
            f"{op}: {name} has shape {list(tensor.shape)}; it must be [{x.shape[-1]}], x's last dimension"
        )
    if tensor.dtype not in {x.dtype, torch.float32}:
        raise ValueError(f"{op}: {name} is {tensor.dtype}; it must be {x.dtype} as x is, or float32")
    same_device(op, name, tensor, x)
    contiguous(op, name, tensor)


def weight_and_bias(op: str, weight: Tensor | None, bias: Tensor | None, x: Tensor) -> None:
    """Both, which are of one type where both are there."""
    scale(op, "weight", weight, x)
    scale(op, "bias", bias, x)
    if weight is not None and bias is not None and weight.dtype != bias.dtype:
        raise ValueError(f"{op}: bias is {bias.dtype}; it must be {weight.dtype} as weight is")


def statistic(op: str, name: str, tensor: Tensor, x: Tensor) -> None:
    """Mean or 1 / deviation of each row: [rows], float32 (float64 for float64)."""
    expected = statistics_type(x)
    if tensor.dim() != 1 or tensor.shape[0] != rows_of(x):
        raise ValueError(
            f"{op}: {name} has shape {list(tensor.shape)}; it must be [{rows_of(x)}], one per row of x"
        )
    if tensor.dtype != expected:
        raise ValueError(f"{op}: {name} is {tensor.dtype}; it must be {expected}")
    same_device(op, name, tensor, x)
    contiguous(op, name, tensor)


def backward(
    op: str,
    *,
    dy: Tensor,
    dsummed: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    bias: Tensor | None = None,
    mean: Tensor | None = None,
) -> None:
    """All that a backward pass takes."""
    data(op, x)
    like_data(op, "dy", dy, x)
    like_data(op, "dsummed", dsummed, x)
    weight_and_bias(op, weight, bias, x)
    if mean is not None:
        statistic(op, "mean", mean, x)
    statistic(op, "rstd", rstd, x)
