"""What the arguments of products with weights of few bits must be."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.arguments import contiguous, floating, same_device, shaped, typed

BITS = (8, 4)
LOAD_BYTES = 16
"""Rows of codes are padded to a multiple of this: what a thread of the kernel reads at a time."""
WHOLE_GROUP = 32
"""Groups are a multiple of this, or one for all inputs."""


def row_bytes(inputs: int, bits: int) -> int:
    """Bytes of a row of codes, padded."""
    return (inputs * bits + 8 * LOAD_BYTES - 1) // (8 * LOAD_BYTES) * LOAD_BYTES


def groups(inputs: int, group: int) -> int:
    """How many scales an output has."""
    return (inputs + group - 1) // group


def whole_groups(inputs: int) -> int:
    """The smallest group that has all inputs."""
    return (inputs + WHOLE_GROUP - 1) // WHOLE_GROUP * WHOLE_GROUP


def two_dimensions(op: str, name: str, weight: Tensor) -> None:
    """A weight: [outputs, inputs], at least one input."""
    if weight.dim() != 2 or weight.shape[1] == 0:
        raise ValueError(f"{op}: {name} has shape {list(weight.shape)}; it must be [outputs, inputs]")


def layout(op: str, *, inputs: int, group: int, bits: int) -> None:
    """How a weight is kept: `bits` a code, and `group` inputs with one scale.

    Raises:
        ValueError: names the argument, what it is and what it must be.
    """
    if bits not in BITS:
        raise ValueError(f"{op}: bits is {bits}; it must be 8 or 4")
    if group <= 0 or (group % WHOLE_GROUP != 0 and group < inputs):
        raise ValueError(
            f"{op}: group is {group}; it must be a multiple of {WHOLE_GROUP}, or at least the {inputs} inputs"
        )


def product(
    op: str, x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None, *, group: int, bits: int
) -> None:
    """All that a product takes.

    Raises:
        ValueError: names the argument, what it is and what it must be.
    """
    floating(op, "x", x)
    if x.dim() < 1 or x.shape[-1] == 0:
        raise ValueError(f"{op}: x has shape {list(x.shape)}; its last dimension must be at least 1 wide")
    contiguous(op, "x", x)
    inputs = x.shape[-1]
    layout(op, inputs=inputs, group=group, bits=bits)
    typed(op, "codes", codes, torch.uint8)
    outputs = codes.shape[0] if codes.dim() == 2 else -1
    wanted = (outputs if outputs >= 0 else "outputs", row_bytes(inputs, bits))
    if codes.dim() != 2 or codes.shape[1] != wanted[1]:
        raise ValueError(
            f"{op}: codes has shape {list(codes.shape)}; it must be [{wanted[0]}, {wanted[1]}], rows of {inputs} inputs"
        )
    _like_x(op, "codes", codes, x)
    typed(op, "scales", scales, torch.float32)
    shaped(op, "scales", scales, (outputs, groups(inputs, group)), ", one per output and group of inputs")
    _like_x(op, "scales", scales, x)
    if bias is not None:
        typed(op, "bias", bias, x.dtype, " as x is")
        shaped(op, "bias", bias, (outputs,), ", one per output")
        _like_x(op, "bias", bias, x)


def _like_x(op: str, name: str, tensor: Tensor, x: Tensor) -> None:
    same_device(op, name, tensor, x)
    contiguous(op, name, tensor)
