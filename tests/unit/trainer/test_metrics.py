"""Every score equals scikit-learn's on random predictions."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score

from datahall_trainer.metrics import classification, roc_auc


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("samples", "classes", "sharpness"), [(400, 10, 2.0), (60, 3, 0.5), (500, 2, 1.0), (90, 4, 9.0)]
)
def test_scores_equal_scikit_learns(seed, samples, classes, sharpness):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (samples,), generator=generator)
    logits = torch.randn(samples, classes, generator=generator)
    logits[torch.arange(samples), labels] += sharpness
    logits = (logits * 4).round() / 4  # ties, which the area must count half
    scores = classification(logits, labels)
    probabilities = logits.double().softmax(1).numpy()
    predicted = logits.argmax(1)
    expected = {
        "loss": log_loss(labels, probabilities, labels=range(classes)),
        "accuracy": accuracy_score(labels, predicted),
        "precision": precision_score(labels, predicted, average="macro", zero_division=0),
        "recall": recall_score(labels, predicted, average="macro", zero_division=0),
        "f1": f1_score(labels, predicted, average="macro", zero_division=0),
        "roc_auc": roc_auc_score(labels, probabilities[:, 1])
        if classes == 2
        else roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
    }
    assert scores == pytest.approx(expected, abs=1e-12)


def test_a_class_that_nothing_says_is_left_out_as_scikit_learn_does():
    labels = torch.tensor([0, 0, 1, 1, 1])
    logits = torch.tensor([[2.0, 1, 0], [1, 2, 0], [0, 2, 1], [0, 2, 1], [2, 0, 1]])
    scores = classification(logits, labels)
    predicted = logits.argmax(1)
    assert scores["f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert scores["roc_auc"] == pytest.approx(
        np.mean([roc_auc_score(labels == c, logits.double().softmax(1)[:, c]) for c in (0, 1)])
    )


def test_one_class_has_no_area():
    assert roc_auc(torch.rand(5, 2), torch.zeros(5, dtype=torch.int64)) is None
    assert "roc_auc" not in classification(torch.rand(5, 2), torch.zeros(5, dtype=torch.int64))


def test_logits_that_are_no_numbers_show_in_the_loss():
    assert math.isnan(classification(torch.full((4, 2), math.nan), torch.tensor([0, 1, 0, 1]))["loss"])
