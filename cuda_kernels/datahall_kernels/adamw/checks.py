"""What the arguments of AdamW's ops must be, for the reference and the shapes' inference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datahall_kernels.arguments import contiguous, floating, same_device, shaped, typed

STATE_BLOCK = 256
"""Elements of 8-bit states that share a scale."""


def state_type(parameter: Tensor) -> torch.dtype:
    """In what m and v are kept where they are not of 8 bits."""
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def gradients_of_one_type(op: str, gradients: Sequence[Tensor], name: str = "gradients") -> None:
    """At least one, all of one floating type and on one device, contiguous.

    Raises:
        ValueError: names the argument, what it is and what it must be; so do all functions here.
    """
    if not gradients:
        raise ValueError(f"{op}: {name} is empty; it must have at least 1 tensor")
    first = gradients[0]
    for number, tensor in enumerate(gradients):
        each = f"{name}[{number}]"
        floating(op, each, tensor)
        typed(op, each, tensor, first.dtype, f" as {name}[0] is")
        same_device(op, each, tensor, first, f"{name}[0]")
        contiguous(op, each, tensor)


def adamw(
    op: str,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    first_scales: Sequence[Tensor],
    second_scales: Sequence[Tensor],
    steps: Sequence[Tensor],
    learning_rate: Tensor,
    squared_norm: Tensor | None,
) -> None:
    """All that a step takes."""
    gradients_of_one_type(op, parameters, "parameters")
    number = len(parameters)
    is_eight_bit = bool(first) and first[0].dtype == torch.uint8
    blocks = number if is_eight_bit else 0
    lists = {"gradients": gradients, "first": first, "second": second, "steps": steps}
    for name, tensors in lists.items():
        _numbered(op, name, tensors, number, "one per parameter")
    for name, tensors in {"first_scales": first_scales, "second_scales": second_scales}.items():
        _numbered(op, name, tensors, blocks, "one per parameter with 8-bit states")
    for i, parameter in enumerate(parameters):
        of, like = f"[{i}]", f", parameters[{i}]'s shape"
        state = torch.uint8 if is_eight_bit else state_type(parameter)
        for name, tensor, dtype in (
            ("gradients", gradients[i], parameter.dtype),
            ("first", first[i], state),
            ("second", second[i], state),
        ):
            shaped(op, f"{name}{of}", tensor, parameter.shape, like)
            _placed(op, f"{name}{of}", tensor, parameter, dtype)
        shaped(op, f"steps{of}", steps[i], (), ", one number")
        _placed(op, f"steps{of}", steps[i], parameter, torch.float32)
        if is_eight_bit:
            size = (-(-parameter.numel() // STATE_BLOCK),)
            for name, tensor in {"first_scales": first_scales[i], "second_scales": second_scales[i]}.items():
                shaped(op, f"{name}{of}", tensor, size, f", one per {STATE_BLOCK} elements")
                _placed(op, f"{name}{of}", tensor, parameter, torch.float32)
    for name, scalar in {"learning_rate": learning_rate, "squared_norm": squared_norm}.items():
        if scalar is not None:
            shaped(op, name, scalar, (), ", one number")
            _placed(op, name, scalar, parameters[0], torch.float32)


def _numbered(op: str, name: str, tensors: Sequence[Tensor], number: int, why: str) -> None:
    if len(tensors) != number:
        raise ValueError(f"{op}: {name} has {len(tensors)} tensors; it must have {number}, {why}")


def _placed(op: str, name: str, tensor: Tensor, parameter: Tensor, dtype: torch.dtype) -> None:
    typed(op, name, tensor, dtype)
    same_device(op, name, tensor, parameter, "parameters[0]")
    contiguous(op, name, tensor)
