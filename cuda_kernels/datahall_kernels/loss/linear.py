"""Cross-entropy of a linear layer's outputs without ever having all of them (Liger's way, Hsu et al., 2024).

A chunk of rows at a time goes through torch's matrix product, our cross-entropy that leaves the gradient in the logits'
place, and the two products of the layer's backward pass. So the forward pass makes the gradients, and the backward pass
only scales them. What is in memory is one chunk of logits, the gradient of the hidden states and that of the weight.

It is made of other ops: the same Python serves every device that they have a kernel for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.loss import checks

CHUNK_BYTES = 128 << 20
"""Of logits at a time. Less is less memory and smaller matrix products, each of which adds to the weight's gradient."""
_ROWS_OF_A_TILE = 128
_ALIGNED_BYTES = 16


def chunk_rows(classes: int, dtype: torch.dtype, chunk_bytes: int) -> int:
    """How many rows of logits fit into `chunk_bytes`: at least 1, whole tiles of a matrix product if more than one."""
    rows = max(1, chunk_bytes // (_padded(classes, dtype) * dtype.itemsize))
    return rows if rows < _ROWS_OF_A_TILE else rows // _ROWS_OF_A_TILE * _ROWS_OF_A_TILE


def linear_cross_entropy(  # noqa: PLR0917 - as the op has them
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ignore_index: int,
    label_smoothing: float,
    mean: bool,
    chunk_bytes: int,
    hidden_gradient: bool,
    weight_gradient: bool,
    bias_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Loss and gradients of cross_entropy(hidden @ weight.T + bias, targets).

    Args:
        hidden: [rows, width]; logits have its type.
        weight: [classes, width], of hidden's type or float32; it is rounded to hidden's type, as under autocast.
        bias: [classes], as weight; None for zeros.
        targets: [rows].
        ignore_index: as in `cross_entropy`.
        label_smoothing: as in `cross_entropy`.
        mean: over all rows that are not ignored; else the sum.
        chunk_bytes: of logits at a time.
        hidden_gradient: whether it is wanted; so for the other two.
        weight_gradient: see there.
        bias_gradient: see there.

    Returns:
        The loss []; the gradients of hidden, weight and bias, each of its type, or 0 elements where it is not wanted;
        and what these are yet to be multiplied by [].
    """
    checks.linear(
        "linear_cross_entropy", hidden, weight, bias, targets=targets, label_smoothing=label_smoothing
    )
    rows, classes = len(hidden), len(weight)
    kind = checks.loss_type(hidden)
    share = torch.ones((), dtype=kind, device=hidden.device)
    if mean:
        share = share / (targets != ignore_index).sum()
    # A softmax over a large vocabulary has probabilities that float16 could not hold divided by the number of rows.
    # There the division waits for the backward pass, in which the loss scale comes in.
    is_late = hidden.dtype == torch.float16
    within, left = (torch.ones_like(share), share) if is_late else (share, torch.ones_like(share))
    weights, biases = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
    wants_any = hidden_gradient or weight_gradient or bias_gradient
    dhidden = torch.empty_like(hidden) if hidden_gradient else hidden.new_empty(0)
    # Chunks are added up in float32: each product is rounded once, their sum never.
    dweight = weight.new_zeros(weight.shape, dtype=kind) if weight_gradient else weight.new_empty(0)
    dbias = weight.new_zeros(classes, dtype=kind) if bias_gradient else weight.new_empty(0)
    losses = hidden.new_empty(rows, dtype=kind)
    step = min(chunk_rows(classes, hidden.dtype, chunk_bytes), max(rows, 1))
    # Rows of logits begin where wide loads can, however many classes there are.
    buffer = hidden.new_empty(step, _padded(classes, hidden.dtype))
    for start in range(0, rows, step):
        chunk = slice(start, min(start + step, rows))
        here, aims = hidden[chunk], targets[chunk]
        logits = buffer[: len(here), :classes]
        if biases is None:
            torch.mm(here, weights.t(), out=logits)
        else:
            torch.addmm(biases, here, weights.t(), out=logits)
        if not wants_any:
            losses[chunk] = torch.ops.datahall.cross_entropy(
                logits.contiguous(), aims, ignore_index, label_smoothing
            )
            continue
        losses[chunk] = torch.ops.datahall.cross_entropy_with_gradient_(
            logits, aims, within.expand(len(here)), ignore_index, label_smoothing
        )
        if hidden_gradient:
            torch.mm(logits, weights, out=dhidden[chunk])
        if weight_gradient:
            _add_product(dweight, logits.t(), here)
        if bias_gradient:
            dbias += logits.sum(dim=0, dtype=kind)
    dbias = dbias if bias is None else dbias.to(bias.dtype)
    return losses.sum() * share, dhidden, dweight.to(weight.dtype), dbias, left


def _add_product(total: Tensor, one: Tensor, other: Tensor) -> None:
    if total.dtype == one.dtype:
        total.addmm_(one, other)
    else:
        total += one @ other


def _padded(classes: int, dtype: torch.dtype) -> int:
    step = _ALIGNED_BYTES // dtype.itemsize
    return -(-classes // step) * step
