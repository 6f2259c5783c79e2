"""Quality of predictions on held-out data; the tests hold every figure to scikit-learn's.

Own rather than torchmetrics, whose import alone takes 5 s of CPU per rank, a tenth of a small run, and brings
SciPy into the image; what is needed of it is one count and one rank statistic.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def classification(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss and scores of a classifier.

    Args:
        logits: float [N, classes].
        labels: int64 [N].

    Returns:
        `loss` (mean cross-entropy, nats) and, as fractions of 1, `accuracy`, `precision`, `recall`, `f1`
        (each the unweighted mean over classes that occur in labels or predictions) and `roc_auc` (one class
        against the rest, unweighted mean over the classes for which it is defined; absent if there is none).
    """
    logits = logits.to(torch.float64)
    classes = logits.shape[1]
    predicted = logits.argmax(dim=1)
    confusion = torch.bincount(labels * classes + predicted, minlength=classes * classes)
    confusion = confusion.reshape(classes, classes).to(torch.float64)  # [true, predicted]
    correct, actual, claimed = confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)
    seen = (actual + claimed) > 0
    precision = correct / claimed.clamp(min=1)
    recall = correct / actual.clamp(min=1)
    f1 = 2 * correct / (actual + claimed).clamp(min=1)
    scores = {
        "loss": functional.cross_entropy(logits, labels).item(),
        "accuracy": correct.sum().item() / len(labels),
        "precision": precision[seen].mean().item(),
        "recall": recall[seen].mean().item(),
        "f1": f1[seen].mean().item(),
    }
    area = roc_auc(logits.softmax(dim=1), labels)
    if area is not None:
        scores["roc_auc"] = area
    return scores


def roc_auc(probabilities: Tensor, labels: Tensor) -> float | None:
    """Exact one-against-rest area under the ROC curve, mean over the classes that have both sides.

    The area is the chance that a positive scores above a negative, ties counting half (Hanley and McNeil 1982):
    Mann-Whitney's U from the positives' ranks.

    Args:
        probabilities: float [N, classes].
        labels: int64 [N].
    """
    areas = []
    for index in range(probabilities.shape[1]):
        positive = labels == index
        positives, negatives = int(positive.sum()), int((~positive).sum())
        if positives == 0 or negatives == 0:
            continue  # there is no curve
        column = probabilities[:, index]
        _, group, counts = torch.unique(column, return_inverse=True, return_counts=True)
        last_rank = counts.cumsum(0).to(torch.float64)
        middle_rank = last_rank - (counts - 1) / 2
        above = middle_rank[group[positive]].sum().item() - positives * (positives + 1) / 2
        areas.append(above / (positives * negatives))
    return sum(areas) / len(areas) if areas else None
