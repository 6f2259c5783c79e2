"""What the arguments of a draw must be."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.arguments import contiguous, floating, same_device, shaped, typed

MOST_TOKENS = 2**19
"""Of a vocabulary, and of a list."""
OF_A_ROW = ", one per row of logits"


def sample(
    op: str,
    logits: Tensor,
    *,
    per_row: dict[str, tuple[Tensor | None, torch.dtype]],
    listed: Tensor | None,
    counts: Tensor | None,
    allowed: Tensor | None,
) -> None:
    """All that a draw takes.

    Args:
        op: whose arguments they are.
        logits: [rows, vocabulary].
        per_row: by name, what has an element per row, and its type.
        listed: [rows, capacity] of int32.
        counts: like `listed`.
        allowed: [rows, ceil(vocabulary / 32)] of int32.

    Raises:
        ValueError: names the argument, what it is and what it must be.
    """
    floating(op, "logits", logits)
    if logits.dim() != 2 or logits.shape[1] == 0 or logits.shape[1] > MOST_TOKENS:
        raise ValueError(
            f"{op}: logits has shape {list(logits.shape)}; it must be [rows, vocabulary], 1 to {MOST_TOKENS} tokens"
        )
    contiguous(op, "logits", logits)
    rows, vocabulary = logits.shape
    for name, (tensor, dtype) in per_row.items():
        if tensor is not None:
            typed(op, name, tensor, dtype)
            shaped(op, name, tensor, (rows,), OF_A_ROW)
            _like_logits(op, name, tensor, logits)
    if listed is not None:
        typed(op, "listed", listed, torch.int32)
        if listed.dim() != 2 or listed.shape[0] != rows or listed.shape[1] > MOST_TOKENS:
            raise ValueError(
                f"{op}: listed has shape {list(listed.shape)}; it must be [{rows}, tokens], up to {MOST_TOKENS}"
            )
        _like_logits(op, "listed", listed, logits)
    if counts is not None:
        if listed is None:
            raise ValueError(f"{op}: listed is None; it must be there where counts is")
        typed(op, "counts", counts, torch.int32)
        shaped(op, "counts", counts, tuple(listed.shape), " as listed is")
        _like_logits(op, "counts", counts, logits)
    if allowed is not None:
        typed(op, "allowed", allowed, torch.int32)
        shaped(op, "allowed", allowed, (rows, (vocabulary + 31) // 32), ", a bit per token")
        _like_logits(op, "allowed", allowed, logits)


def _like_logits(op: str, name: str, tensor: Tensor, logits: Tensor) -> None:
    same_device(op, name, tensor, logits, "logits")
    contiguous(op, name, tensor)
