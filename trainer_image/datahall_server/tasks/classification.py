"""Classification, of images and of texts alike: logits to scores, scores to named classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NamedScore:
    """A class and how likely the model holds it to be, from 0 to 1."""

    label: str
    score: float


def softmax(logits: Floats) -> Floats:
    """Scores [N, classes] that sum to 1 by row. A row with a non-finite logit gives a row of NaN, never a guess."""
    with np.errstate(invalid="ignore", over="ignore"):
        # In float64: a row's result must not depend on how its batch was reduced.
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        scores = exponentials / exponentials.sum(axis=1, keepdims=True)
    scores[~np.isfinite(logits).all(axis=1)] = np.nan
    result: Floats = scores.astype(np.float32)
    return result


def top_classes(scores: Floats, labels: Sequence[str], *, top_k: int, threshold: float) -> list[NamedScore]:
    """The best classes of one row, best first; equal scores keep the order of the labels.

    Args:
        scores: One row, [classes].
        labels: The classes by index.
        top_k: At most so many.
        threshold: None below this score; so the list may be empty.
    """
    best = np.argsort(-scores, kind="stable")[:top_k]
    return [NamedScore(labels[i], float(scores[i])) for i in best if scores[i] >= threshold]
