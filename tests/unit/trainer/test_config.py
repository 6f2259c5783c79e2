"""The job's configuration: what is accepted, and the sentence for what is not."""

import json

import pytest

from datahall_trainer.config import parse
from datahall_trainer.errors import BadInput
from datahall_trainer.place import Place
from datahall_trainer.uris import child, resolve


def test_every_field_of_the_contract_is_read(job):
    config = parse(json.dumps(job()))
    assert config.training.learning_rate_value == 5e-3
    assert config.architecture == "cnn"
    assert config.data.augment.translate_pixels == 1


def test_the_architecture_may_be_left_to_the_task(job):
    config = job(task="TextClassification", model={"architecture": None, "base": "pvc://a/b"})
    assert parse(json.dumps(config)).architecture == "bert"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": {"batchSize": 0}}, "training: batchSize must be at least 1"),
        ({"training": {"batchSize": "8"}}, "training.batchSize: Expected `int`, got `str`"),
        ({"training": {"learningRate": "fast"}}, "learningRate must be a decimal number"),
        ({"training": {"learningRate": "0"}}, "learningRate must be above 0"),
        ({"training": {"learningRate": "nan"}}, "learningRate must be a decimal number"),
        ({"training": {"weightDecay": "-1"}}, "weightDecay must not be negative"),
        ({"training": {"maxSteps": 0}}, "maxSteps must be at least 1"),
        ({"training": {"warmupFraction": 1.5}}, "warmupFraction must be 0 to 1"),
        ({"training": {"precision": "fp8"}}, "training.precision: Invalid enum value 'fp8'"),
        ({"training": {"seed": -1}}, "seed must be"),
        ({"training": {"batchsize": 8}}, "unknown field `batchsize`"),
        ({"checkpoint": {"everySteps": 0}}, "everySteps must be at least 1"),
        ({"checkpoint": {"keep": 0}}, "keep must be at least 1"),
        ({"data": {"validation": "pvc://a/b"}}, "exactly one of validation and validationFraction"),
        ({"data": {"validationFraction": 1.0}}, "validationFraction must lie between 0 and 1"),
        ({"data": {"augment": {"rotateDegrees": 200}}}, "rotateDegrees must be 0 to 180"),
        ({"data": {"augment": {"translatePixels": -1}}}, "translatePixels must be 0 to 1024"),
        ({"strategy": "LocalSGD"}, "Invalid enum value 'LocalSGD'"),
        ({"task": "CausalLM"}, "Invalid enum value 'CausalLM'"),
        ({"output": {"formats": ["onnx"]}}, "Invalid enum value 'onnx'"),
        ({"job": {"uid": "../../etc"}}, "uid must be a name"),
        ({"model": {"architecture": "bert"}}, "'bert' is unknown for ImageClassification; known: cnn"),
    ],
)
def test_a_bad_value_is_refused_with_its_rule(job, changes, sentence):
    with pytest.raises(BadInput) as refused:
        parse(json.dumps(job(**changes)))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("text", "sentence"), [(None, "not set"), ("", "not set"), ("{", "not valid JSON")])
def test_no_configuration_is_said(text, sentence):
    with pytest.raises(BadInput, match=sentence):
        parse(text)


def test_uris_are_paths_under_the_mount_root(monkeypatch):
    monkeypatch.delenv("DATAHALL_PVC_ROOT", raising=False)
    assert str(resolve("pvc://data/digits/train")) == "/mnt/pvc/data/digits/train"
    assert str(resolve("pvc://data")) == "/mnt/pvc/data"
    assert str(resolve("pvc://data//etc")) == "/mnt/pvc/data/etc"
    assert child("pvc://models/digits/", "versions", "ab") == "pvc://models/digits/versions/ab"


@pytest.mark.parametrize("uri", ["/data", "s3://data/x", "pvc://", "pvc:///x", "pvc://a/../b", "pvc://../b"])
def test_uris_that_lead_elsewhere_are_refused(uri):
    with pytest.raises(BadInput):
        resolve(uri)


def test_a_place_in_the_gang_comes_from_torchruns_variables():
    place = Place.from_environment(
        {
            "PET_NNODES": "3",
            "PET_NODE_RANK": "2",
            "PET_NPROC_PER_NODE": "4",
            "DATAHALL_LOCAL_RANK": "1",
            "PET_MASTER_ADDR": "digits-g5-0.digits-workers",
            "PET_MASTER_PORT": "29500",
            "DATAHALL_GENERATION": "5",
        }
    )
    assert (place.rank, place.world_size, place.generation) == (9, 12, 5)
    alone = Place.from_environment({})
    assert (alone.rank, alone.world_size, alone.master_address) == (0, 1, "127.0.0.1")


@pytest.mark.parametrize("environment", [{"PET_NNODES": "two"}, {"PET_NODE_RANK": "1"}, {"PET_NNODES": "0"}])
def test_an_impossible_place_is_refused(environment):
    with pytest.raises(BadInput):
        Place.from_environment(environment)
