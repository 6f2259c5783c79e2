"""Fine-tuning a BERT, whole or frozen, and what is said of a base model that cannot be used."""

import pytest
import torch

from datahall_trainer.artifact import Preprocessor, load_model


@pytest.fixture
def reviews(pvc, write_reviews):
    write_reviews(pvc / "data/train.csv")
    write_reviews(pvc / "data/validation.csv", count=12)


@pytest.fixture
def text_job(job, tiny_bert, reviews):
    def build(**changes):
        model = {"base": tiny_bert, "architecture": None, "freezeBase": False} | changes.pop("model", {})
        data = {
            "train": "pvc://data/train.csv",
            "validation": "pvc://data/validation.csv",
            "validationFraction": None,
            "augment": None,
        } | changes.pop("data", {})
        return job(task="TextClassification", model=model, data=data, **changes)

    return build


def load(gang, pvc):
    directory = pvc / gang.message(0)["output"]["uri"].removeprefix("pvc://")
    manifest, model = load_model(directory, gang.message(0)["output"]["digest"], "cpu")
    return manifest, model, Preprocessor.from_manifest(manifest, directory)


def test_it_learns_and_its_output_answers(gang, pvc, text_job):
    gang.start(text_job(training={"epochs": 8, "learningRate": "1e-2"}))
    assert gang.wait() == [0, 0], gang.logs()
    manifest, model, preprocessor = load(gang, pvc)
    assert manifest.metrics["accuracy"] == 1.0
    assert manifest.classes == ["negative", "positive"]
    assert {"config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"} <= set(manifest.files)
    batch = preprocessor.texts(["a very good film", "bad"])
    assert batch["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert [manifest.classes[i] for i in model(**batch).argmax(1)] == ["positive", "negative"]
    alone = model(**preprocessor.texts(["bad"]))
    torch.testing.assert_close(model(**batch)[1], alone[0], msg="padding must not show")


def test_killed_and_restarted_ends_with_the_same_bits(gang, text_job):
    config = text_job(training={"epochs": 6})
    gang.start(config)
    assert gang.wait() == [0, 0], gang.logs()
    digest = gang.message(0)["output"]["digest"]
    config["output"] = {"uri": "pvc://models/other", "formats": ["safetensors"]}
    gang.start(config)
    gang.await_file("models/other/.checkpoints/uid-1/step-00000010/manifest.json")
    gang.kill(0)
    assert gang.wait(60) == [-9, 75]
    gang.start(config)
    assert gang.wait() == [0, 0], gang.logs()
    assert "resuming" in gang.text(0)
    assert gang.message(0)["output"]["digest"] == digest


def test_a_frozen_base_stays_as_it_was(gang, pvc, text_job, tiny_bert):
    from safetensors.torch import load_file

    gang.start(text_job(model={"freezeBase": True}, training={"learningRate": "1e-2"}))
    assert gang.wait() == [0, 0], gang.logs()
    _, model, _ = load(gang, pvc)
    base = load_file(pvc / "data/tiny-bert/model.safetensors")
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, base[name]), name
    assert model.head.bias.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": {"base": None}}, "model.base: architecture bert starts from a model"),
        ({"model": {"base": "pvc://data/nothing"}}, "model.base: pvc://data/nothing: no such directory"),
        (
            {"training": {"maxSequenceLength": 64}},
            "training.maxSequenceLength: 64 is more than the 32 positions",
        ),
        (
            {"data": {"augment": {"rotateDegrees": 5.0}}},
            "data.augment: rotateDegrees and translatePixels are for images",
        ),
        (
            {"data": {"validation": "pvc://data/none.csv"}},
            "data.validation: pvc://data/none.csv: no such file",
        ),
    ],
)
def test_what_can_never_work_is_said(gang, text_job, changes, sentence):
    gang.start(text_job(**changes))
    assert gang.wait() == [65, 65], gang.logs()
    assert [sentence in gang.message(rank)["message"] for rank in (0, 1)] == [True, True]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_missing_file_of_the_base_is_named(gang, pvc, text_job, tiny_bert, name):
    (pvc / "data/tiny-bert" / name).unlink()
    gang.start(text_job(), ranks=1)
    assert gang.wait() == [65], gang.logs()
    assert f"model.base: {tiny_bert}: " in gang.message()["message"]
    assert f"{name} is missing" in gang.message()["message"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_of_the_base_is_named(gang, pvc, text_job, tiny_bert, name):
    (pvc / "data/tiny-bert" / name).write_bytes(b"{ damage")
    gang.start(text_job(), ranks=1)
    assert gang.wait() == [65], gang.logs()
    assert f"{tiny_bert}" in gang.message()["message"]
