"""A finished model: written whole or not, known by its digest, refused when it is not what was asked for."""

import hashlib
import io
import json

import pytest
import torch
from PIL import Image

from datahall_trainer import models
from datahall_trainer.artifact import (
    ArtifactError,
    Manifest,
    Preprocessor,
    load_manifest,
    load_model,
    verify,
    write_artifact,
)
from datahall_trainer.errors import BadInput, Fenced
from datahall_trainer.preprocess import ImagePreprocess, normalise, open_image, to_pixels

SPEC = ImagePreprocess(channels=1, height=8, width=8, mean=[0.5], std=[0.25])


def write(parent, *, seed=0, **options):
    torch.manual_seed(seed)
    shape = {"channels": 1, "classes": 3, "widths": [8, 16]}
    model = models.build("cnn", shape, parent)

    def manifest(files):
        return Manifest(
            task="ImageClassification",
            architecture="cnn",
            classes=["a", "b", "c"],
            preprocess=SPEC,
            model=shape,
            metrics={"accuracy": 0.5},
            files=files,
        )

    return write_artifact(
        parent, manifest=manifest, weights=model.state_dict(), extra_files={"note.txt": b"hello"}, **options
    )


@pytest.fixture
def model(tmp_path):
    return write(tmp_path / "versions")


def test_what_was_written_is_loaded(model):
    directory, digest = model
    raw = (directory / "manifest.json").read_bytes()
    assert digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert directory.name == digest.removeprefix("sha256:")[:16]
    assert verify(directory, None) == verify(directory, digest) == digest
    manifest, network = load_model(directory, digest, "cpu")
    assert manifest == load_manifest(directory)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    picture = Image.new("L", (8, 8), 77)
    inputs = Preprocessor.from_manifest(manifest, directory).image(picture)
    assert network(inputs[None]).shape == (1, 3)
    assert list(directory.parent.iterdir()) == [directory]


def test_equal_weights_have_an_equal_digest_and_others_not(model, tmp_path):
    assert write(tmp_path / "elsewhere")[1] == model[1]
    assert write(tmp_path / "elsewhere", seed=1)[1] != model[1]


def test_another_digest_is_refused_with_both(model):
    directory, digest = model
    with pytest.raises(ArtifactError) as refused:
        verify(directory, "sha256:" + "0" * 64)
    assert "manifest.json" in str(refused.value)
    assert digest in str(refused.value)
    assert "0" * 64 in str(refused.value)


@pytest.mark.parametrize("name", ["model.safetensors", "note.txt"])
def test_a_changed_file_is_named_with_both_digests(model, name):
    directory, digest = model
    expected = load_manifest(directory).files[name].sha256
    raw = bytearray((directory / name).read_bytes())
    raw[-1] ^= 1
    (directory / name).write_bytes(raw)
    with pytest.raises(ArtifactError) as refused:
        load_model(directory, digest, "cpu")
    for part in (name, expected, hashlib.sha256(raw).hexdigest()):
        assert part in str(refused.value)


def test_a_missing_file_is_named(model):
    directory, _ = model
    (directory / "note.txt").unlink()
    with pytest.raises(ArtifactError, match=r"note\.txt: No such file"):
        verify(directory, None)
    with pytest.raises(ArtifactError, match=r"manifest\.json: No such file"):
        verify(directory / "nowhere", None)


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}},
        {"files": {"../model.safetensors": {"sha256": "", "bytes": 1}}},
        {"classes": ["one"]},
        {"schema": "v9"},
        {"task": "Chess"},
        {"preprocess": {"type": "image", "channels": 2, "height": 8, "width": 8, "mean": [0], "std": [1]}},
        {"preprocess": {"type": "image", "channels": 1, "height": 8, "width": 8, "mean": [0], "std": [0]}},
    ],
)
def test_a_manifest_that_no_trainer_wrote_is_refused(model, change):
    directory, _ = model
    content = json.loads((directory / "manifest.json").read_text()) | change
    (directory / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError):
        load_model(directory, None, "cpu")


@pytest.mark.parametrize("change", [{"architecture": "vgg"}, {"model": {"channels": 3, "classes": 3}}])
def test_weights_that_do_not_fit_their_description_are_refused(model, change):
    directory, _ = model
    content = json.loads((directory / "manifest.json").read_text()) | change
    (directory / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError):
        load_model(directory, None, "cpu")


def test_what_is_there_and_whole_stays_and_what_is_damaged_is_replaced(model):
    directory, digest = model
    stamp = (directory / "model.safetensors").stat().st_mtime_ns
    assert write(directory.parent) == (directory, digest)
    assert (directory / "model.safetensors").stat().st_mtime_ns == stamp
    (directory / "note.txt").write_bytes(b"damage")
    assert write(directory.parent) == (directory, digest)
    assert verify(directory, digest) == digest


def test_a_fence_before_publishing_leaves_nothing(tmp_path):
    def fenced():
        raise Fenced("generation 2 has taken over")

    with pytest.raises(Fenced):
        write(tmp_path / "versions", before_publish=fenced)
    assert list((tmp_path / "versions").iterdir()) == []


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "F", "I"])
def test_pictures_of_any_mode_and_size_become_the_models(mode):
    image = Image.new("L", (13, 9), 128)
    image = (
        Image.fromarray(__import__("numpy").full((9, 13), 128 * 257, "uint16"))
        if mode == "I;16"
        else image.convert(mode)
    )
    if mode == "I":
        image = image.point(lambda value: value * 257)
    for channels in (1, 3):
        pixels = to_pixels(image, channels=channels, height=8, width=8)
        assert pixels.shape == (channels, 8, 8)
        assert pixels.dtype == torch.uint8
        assert (pixels.float().mean() - 128).abs() < (128 if mode == "1" else 3)


def test_the_image_path_of_serving_is_that_of_training():
    image = Image.effect_noise((8, 8), 60)
    pixels = to_pixels(image, channels=1, height=8, width=8)
    served = Preprocessor(SPEC, None).image(png(image))
    assert torch.equal(served, normalise(pixels[None], SPEC)[0])
    assert served.dtype == torch.float32


@pytest.mark.parametrize("data", [b"", b"text", png(Image.effect_noise((64, 64), 60))[:900]])
def test_bytes_that_are_no_picture_are_refused(data):
    with pytest.raises(BadInput, match="image"):
        open_image(data)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded():
    with pytest.raises(BadInput, match="is over 50000000 pixels"):
        open_image(png(Image.new("1", (8000, 7000))))


def test_texts_are_refused_by_an_image_model():
    with pytest.raises(BadInput, match="takes images"):
        Preprocessor(SPEC, None).texts(["hello"])
