"""Cross-entropy in plain torch: the CPU implementation of its ops, and what the tests hold the CUDA to.

In float64, rounded once at the end; a few rows at a time, so that what it needs beside the logits stays small.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from datahall_kernels.loss import checks

_LOGITS_AT_A_TIME = 1 << 20


def cross_entropy(logits: Tensor, targets: Tensor, ignore_index: int, label_smoothing: float) -> Tensor:
    """The loss of each row (Szegedy et al., 2016, for the smoothing).

    loss = logsumexp(z) - (1 - smoothing) * z[target] - smoothing * mean(z)

    Args:
        logits: [rows, classes].
        targets: [rows] class indices. One that is no class makes the loss NaN.
        ignore_index: rows with this target have loss 0, whatever their logits are.
        label_smoothing: 0 to 1.

    Returns:
        [rows], float32 (float64 for float64).
    """
    checks.cross_entropy("cross_entropy", logits, targets, label_smoothing)
    losses = logits.new_empty(len(logits), dtype=checks.loss_type(logits))
    for rows in _parts(logits):
        log_probabilities = logits[rows].double().log_softmax(dim=1)
        losses[rows] = _losses(log_probabilities, targets[rows], ignore_index, label_smoothing)
    return losses


def cross_entropy_backward(
    dlosses: Tensor, logits: Tensor, targets: Tensor, ignore_index: int, label_smoothing: float
) -> Tensor:
    """The gradient of each row's loss, times dloss.

    dz = (softmax(z) - (1 - smoothing) * onehot(target) - smoothing / classes) * dloss

    Returns:
        [rows, classes] of logits' type.
    """
    checks.cross_entropy("cross_entropy_backward", logits, targets, label_smoothing, dlosses=dlosses)
    dlogits = torch.empty_like(logits)
    for rows in _parts(logits):
        log_probabilities = logits[rows].double().log_softmax(dim=1)
        dlogits[rows] = _gradient(
            log_probabilities, targets[rows], dlosses[rows], ignore_index, label_smoothing
        ).to(logits.dtype)
    return dlogits


def cross_entropy_with_gradient_(
    logits: Tensor, targets: Tensor, dlosses: Tensor, ignore_index: int, label_smoothing: float
) -> Tensor:
    """`cross_entropy`, and its gradient in the logits' place. The rows of logits may have gaps between them."""
    checks.cross_entropy(
        "cross_entropy_with_gradient_", logits, targets, label_smoothing, dlosses=dlosses, may_have_gaps=True
    )
    losses = logits.new_empty(len(logits), dtype=checks.loss_type(logits))
    for rows in _parts(logits):
        log_probabilities = logits[rows].double().log_softmax(dim=1)
        losses[rows] = _losses(log_probabilities, targets[rows], ignore_index, label_smoothing)
        logits[rows] = _gradient(
            log_probabilities, targets[rows], dlosses[rows], ignore_index, label_smoothing
        ).to(logits.dtype)
    return losses


def _parts(logits: Tensor) -> Iterator[slice]:
    rows, classes = logits.shape
    step = max(1, _LOGITS_AT_A_TIME // classes)
    return (slice(start, start + step) for start in range(0, rows, step))


def _losses(log_probabilities: Tensor, targets: Tensor, ignore_index: int, label_smoothing: float) -> Tensor:
    index, is_class = _classes(log_probabilities, targets)
    right = log_probabilities.gather(1, index)[:, 0].masked_fill(~is_class, torch.nan)
    losses = -(1 - label_smoothing) * right
    if label_smoothing:  # else the mean does not count: classes that cannot be have logits of -inf
        losses = losses - label_smoothing * log_probabilities.mean(dim=1)
    return losses.masked_fill(targets == ignore_index, 0.0)


def _gradient(
    log_probabilities: Tensor, targets: Tensor, dlosses: Tensor, ignore_index: int, label_smoothing: float
) -> Tensor:
    """Takes the place of `log_probabilities`."""
    index, is_class = _classes(log_probabilities, targets)
    gradient = log_probabilities.exp_().sub_(label_smoothing / log_probabilities.shape[1])
    gradient.scatter_add_(1, index, -(1 - label_smoothing) * is_class.to(gradient.dtype)[:, None])
    scale = dlosses.to(gradient.dtype).masked_fill(targets == ignore_index, 0.0)[:, None]
    # What does not count has no gradient, whatever its logits are.
    return gradient.mul_(scale).masked_fill_(scale == 0, 0.0)


def _classes(log_probabilities: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, 1] indices that can be looked up, and which of the targets are classes."""
    classes = log_probabilities.shape[1]
    return targets.clamp(0, classes - 1)[:, None], (targets >= 0) & (targets < classes)
