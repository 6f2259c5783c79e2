"""The model in memory and its post-processing: batching never changes a result, and one bad input harms no other."""

import numpy as np
import pytest
import torch

from datahall_server.config import Limits
from datahall_server.engine.classifier import Classifier
from datahall_server.engine.protocol import Instance
from datahall_server.errors import StartError
from datahall_server.tasks.classification import softmax, top_classes
from tests.unit.server import artifacts
from tests.unit.server.conftest import classifier_of, config
from tests.unit.server.pictures import bomb, pixels, png


def test_images_alone_and_together_score_the_same(image_model):
    classifier = classifier_of(image_model)
    files = [Instance("image", png(seed)) for seed in range(7)]
    together, problems = classifier.compute(files)
    assert problems == [None] * 7
    for file, row in zip(files, together, strict=True):
        np.testing.assert_allclose(classifier.compute([file])[0][0], row, atol=1e-5)
    assert np.ptp(together, axis=0).max() > 0.01, "else the comparison proves nothing"
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)


def test_texts_padded_with_longer_ones_score_the_same(text_model):
    classifier = classifier_of(text_model)
    texts = ["good", "a very very very bad film is the film", "", "the film " * 200]
    instances = [Instance("text", text.encode()) for text in texts]
    together, _ = classifier.compute(instances)
    for instance, row in zip(instances, together, strict=True):
        np.testing.assert_allclose(classifier.compute([instance])[0][0], row, atol=1e-5)


def test_an_image_file_and_its_pixels_score_the_same(image_model):
    classifier = classifier_of(image_model)
    raw = pixels(3)
    normalized = ((raw / 255.0 - 0.5) / 0.25).astype("<f4")
    shape = (1, artifacts.SIDE, artifacts.SIDE)
    scores, _ = classifier.compute(
        [
            Instance("image", png(3)),
            Instance("tensor", raw.tobytes(), "UINT8", shape),
            Instance("tensor", normalized.tobytes(), "FP32", shape),
        ]
    )
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-5)
    np.testing.assert_allclose(scores[2], scores[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_common_formats_of_any_size_are_read(image_model, kind):
    _, problems = classifier_of(image_model).compute([Instance("image", png(1, side=50, kind=kind))])
    assert problems == [None]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"hello", "invalid_input", "not an image"),
        (png(1, side=64)[:-200], "invalid_input", ""),
        (png(1, kind="PPM"), "invalid_input", "formats PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "invalid_input", "formats PNG"),
        (bomb(20_000, 20_000), "too_large", "pixels"),
        (bomb(9_000, 9_000), "too_large", "9000 x 9000"),
    ],
    ids=["text", "truncated", "other format", "postscript", "bomb", "large"],
)
def test_one_bad_image_is_named_and_its_neighbours_are_computed(image_model, data, kind, words):
    classifier = classifier_of(image_model)
    files = [Instance("image", content) for content in (png(1), data, png(2))]
    scores, problems = classifier.compute(files)
    assert problems[0] is None
    assert problems[2] is None
    assert problems[1].kind == kind
    assert words in problems[1].message
    np.testing.assert_allclose(scores[2], classifier.compute([Instance("image", png(2))])[0][0], atol=1e-5)


def test_scores_that_are_not_finite_are_the_model_s_fault(nan_model):
    _, problems = classifier_of(nan_model).compute([Instance("image", png(1))])
    assert problems[0].kind == "model_failed"
    assert "finite" in problems[0].message


def test_one_input_that_makes_the_model_raise_is_found_out(image_model, monkeypatch):
    classifier = classifier_of(image_model)
    forward = classifier._module.forward

    def picky(images: torch.Tensor) -> torch.Tensor:
        if (images == 7).all(dim=(1, 2, 3)).any():
            raise RuntimeError("no sevens")
        return forward(images)

    monkeypatch.setattr(classifier._module, "forward", picky)
    shape = (1, artifacts.SIDE, artifacts.SIDE)
    sevens = Instance("tensor", np.full(shape, 7, "<f4").tobytes(), "FP32", shape)
    _, problems = classifier.compute([Instance("image", png(1)), sevens, Instance("image", png(2))])
    assert [problem and problem.kind for problem in problems] == [None, "model_failed", None]


def test_a_model_that_cannot_work_is_refused_before_it_is_ready(nan_model):
    with pytest.raises(StartError, match="not finite"):
        classifier_of(nan_model).warm_up(8)


def test_the_digest_of_a_bare_uri_is_found(image_model):
    bare = config(image_model, model={"uri": image_model.uri, "digest": None})
    assert Classifier.load(bare, Limits()).info.digest == image_model.digest


@pytest.mark.parametrize(
    "uri", ["pvc://models/nowhere", "pvc://models/../x", "s3://bucket/x", "pvc://", "models/shapes"]
)
def test_a_model_that_is_not_there_is_named_by_its_uri(claims, image_model, uri):
    for digest in (image_model.digest, None):
        with pytest.raises(StartError) as refused:
            Classifier.load(config(image_model, model={"uri": uri, "digest": digest}), Limits())
        assert uri in str(refused.value)
        assert str(claims) not in str(refused.value)


def test_softmax():
    logits = np.array([[1e4, 0, -1e4], [1, 1, 1], [np.nan, 0, 0], [np.inf, 0, 0]], np.float32)
    scores = softmax(logits)
    np.testing.assert_allclose(scores[0], [1, 0, 0])
    np.testing.assert_allclose(scores[1], [1 / 3] * 3, atol=1e-7)
    assert np.isnan(scores[2:]).all()


def test_top_classes_are_ordered_cut_and_thresholded():
    row = np.array([0.1, 0.4, 0.4, 0.1], np.float32)
    labels = ["a", "b", "c", "d"]
    assert [best.label for best in top_classes(row, labels, top_k=3, threshold=0.0)] == ["b", "c", "a"]
    assert [best.label for best in top_classes(row, labels, top_k=9, threshold=0.2)] == ["b", "c"]
    assert top_classes(row, labels, top_k=3, threshold=0.5) == []
