"""Quality of predictions on held-out data; equal to scikit-learn's figures, which the tests hold them to."""

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
    from torchmetrics.functional.classification import multiclass_stat_scores

    logits = logits.to(torch.float64)
    classes = logits.shape[1]
    predicted = logits.argmax(dim=1)
    counts = multiclass_stat_scores(predicted, labels, num_classes=classes, average=None).to(torch.float64)
    true_positive, false_positive, _, false_negative, _ = counts.unbind(dim=1)
    seen = (true_positive + false_positive + false_negative) > 0
    precision = true_positive / (true_positive + false_positive).clamp(min=1)
    recall = true_positive / (true_positive + false_negative).clamp(min=1)
    f1 = 2 * true_positive / (2 * true_positive + false_positive + false_negative).clamp(min=1)
    scores = {
        "loss": functional.cross_entropy(logits, labels).item(),
        "accuracy": (predicted == labels).to(torch.float64).mean().item(),
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

    Args:
        probabilities: float [N, classes].
        labels: int64 [N].
    """
    from torchmetrics.functional.classification import binary_auroc

    areas = []
    for index in range(probabilities.shape[1]):
        positive = labels == index
        # Without positives, or without negatives, there is no curve.
        if positive.any() and not positive.all():
            areas.append(binary_auroc(probabilities[:, index], positive.long(), thresholds=None).item())
    return sum(areas) / len(areas) if areas else None
