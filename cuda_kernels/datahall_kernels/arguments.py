"""What the arguments of every op must be. csrc/bindings/arguments.h says the same, in the same words.

Trap: shapes may be symbolic (torch.compile), so only what a message needs is read, and only where it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def floating(op: str, name: str, tensor: Tensor) -> None:
    """A tensor of a type that the ops compute in.

    Raises:
        ValueError: names the argument, what it is and what it must be; so do all functions here.
    """
    if tensor.dtype not in FLOATS:
        raise ValueError(
            f"{op}: {name} is {tensor.dtype}; it must be float32, bfloat16 or float16 (float64 on the CPU)"
        )


def typed(op: str, name: str, tensor: Tensor, dtype: torch.dtype, why: str = "") -> None:
    """Of one type; `why` goes on after it, such as " as x is"."""
    if tensor.dtype != dtype:
        raise ValueError(f"{op}: {name} is {tensor.dtype}; it must be {dtype}{why}")


def shaped(op: str, name: str, tensor: Tensor, shape: Sequence[int], why: str) -> None:
    """Of one shape; `why` goes on after it, such as ", one per row of x"."""
    if tensor.dim() != len(shape) or any(
        found != wanted for found, wanted in zip(tensor.shape, shape, strict=True)
    ):
        raise ValueError(
            f"{op}: {name} has shape {list(tensor.shape)}; it must be [{', '.join(map(str, shape))}]{why}"
        )


def same_device(op: str, name: str, tensor: Tensor, x: Tensor, x_name: str = "x") -> None:
    """On the device of the op's main argument."""
    if tensor.device != x.device:
        raise ValueError(f"{op}: {name} is on {tensor.device}; it must be on {x.device} as {x_name} is")


def contiguous(op: str, name: str, tensor: Tensor) -> None:
    """Without gaps, rows one after the other: the kernels read memory as it lies."""
    if not tensor.is_contiguous():
        raise ValueError(f"{op}: {name} has strides {list(tensor.stride())}; it must be contiguous")
