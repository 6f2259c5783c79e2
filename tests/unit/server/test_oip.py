"""Open Inference Protocol v2, with and without the binary tensor data extension."""

import json
import struct

import numpy as np
import pytest

from tests.unit.server.artifacts import IMAGE_CLASSES, SIDE
from tests.unit.server.conftest import serving
from tests.unit.server.pictures import b64, pixels, png

INFER = "/v2/models/shapes/infer"


def tensor(**changes):
    return {
        "inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": [b64(png(1))]} | changes]
    }


def version(server):
    return server.model.digest.removeprefix("sha256:")[:16]


async def test_metadata_and_health(images):
    get = images.client.get
    assert "binary_tensor_data" in (await get("/v2")).json()["extensions"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/shapes/ready"):
        assert (await get(path)).status_code == 200
    for path in ("/v2/models/shapes", f"/v2/models/shapes/versions/{version(images)}"):
        body = (await get(path)).json()
        assert body["name"] == "shapes"
        assert body["versions"] == [version(images)]
        assert body["digest"] == images.model.digest
        assert body["inputs"] == [{"name": "images", "datatype": "BYTES", "shape": [-1]}]
        assert body["outputs"][0] == {"name": "scores", "datatype": "FP32", "shape": [-1, 4]}
    images.lifecycle.drain()
    for path in ("/v2/health/ready", "/v2/models/shapes/ready"):
        assert (await get(path)).status_code == 503


async def test_images_as_bytes(images):
    answer = (await images.infer(tensor(shape=[2], data=[b64(png(1)), b64(png(2))]) | {"id": "42"})).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("shapes", version(images), "42")
    scores, labels = answer["outputs"]
    assert (scores["name"], scores["datatype"], scores["shape"]) == ("scores", "FP32", [2, 4])
    assert (labels["name"], labels["datatype"], labels["shape"]) == ("labels", "BYTES", [2, 2])
    best = np.argmax(np.reshape(scores["data"], (2, 4)), axis=1)
    assert labels["data"][0::2] == [IMAGE_CLASSES[i] for i in best]
    assert sum(scores["data"][:4]) == pytest.approx(1, abs=1e-5)


async def test_every_way_to_send_an_image_scores_the_same(images):
    raw = pixels(1)
    normalized = (raw / 255.0 - 0.5) / 0.25
    ways = [
        tensor(),
        tensor(shape=[1, 1], data=[[b64(png(1))]]),
        tensor(shape=[1, SIDE, SIDE], datatype="UINT8", data=raw.ravel().tolist()),
        tensor(shape=[1, 1, SIDE, SIDE], datatype="UINT8", data=raw.reshape(1, 1, SIDE, SIDE).tolist()),
        tensor(shape=[1, 1, SIDE, SIDE], datatype="FP32", data=normalized.ravel().tolist()),
        tensor(shape=[1, SIDE, SIDE], datatype="FP32", data=normalized.reshape(1, SIDE, SIDE).tolist()),
    ]
    answers = [await images.infer(way) for way in ways]
    assert [answer.status_code for answer in answers] == [200] * len(ways), [a.text for a in answers]
    scores = [answer.json()["outputs"][0]["data"] for answer in answers]
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-5)


async def test_texts(texts):
    body = {"inputs": [{"name": "texts", "shape": [2], "datatype": "BYTES", "data": ["a good film", "bad"]}]}
    answer = await texts.infer(body, path=f"/v2/models/shapes/versions/{version(texts)}/infer")
    assert answer.json()["outputs"][0]["shape"] == [2, 2]


async def test_labels_below_the_threshold_are_empty(image_model):
    async with serving(image_model, postprocess={"topK": 4, "threshold": 0.5}) as server:
        labels = (await server.infer(tensor())).json()["outputs"][1]
        assert labels["shape"] == [1, 4]
        assert labels["data"][1:] == ["", "", ""]


async def test_only_the_outputs_asked_for(images):
    answer = await images.infer(tensor() | {"outputs": [{"name": "labels"}]})
    assert [output["name"] for output in answer.json()["outputs"]] == ["labels"]


def binary_request(data: bytes, **changes):
    head = json.dumps(tensor(parameters={"binary_data_size": len(data)}, **changes) | BINARY_OUT).encode()
    head = json.dumps(drop_data(json.loads(head))).encode()
    return head + data, {
        "Inference-Header-Content-Length": str(len(head)),
        "content-type": "application/octet-stream",
    }


BINARY_OUT = {"parameters": {"binary_data_output": True}}


def drop_data(body):
    del body["inputs"][0]["data"]
    return body


async def test_the_binary_extension_both_ways(images):
    file = png(1)
    raw, floats = pixels(1), ((pixels(1) / 255.0 - 0.5) / 0.25).astype("<f4")
    expected = (await images.infer(tensor())).json()["outputs"]
    for data, changes in (
        (struct.pack("<I", len(file)) + file, {}),
        (raw.tobytes(), {"shape": [1, SIDE, SIDE], "datatype": "UINT8"}),
        (floats.tobytes(), {"shape": [1, 1, SIDE, SIDE], "datatype": "FP32"}),
    ):
        body, headers = binary_request(data, **changes)
        answer = await images.infer(body, **headers)
        assert answer.status_code == 200, answer.text
        end = int(answer.headers["Inference-Header-Content-Length"])
        scores, labels = json.loads(answer.content[:end])["outputs"]
        blob = answer.content[end:]
        assert (
            len(blob) == scores["parameters"]["binary_data_size"] + labels["parameters"]["binary_data_size"]
        )
        np.testing.assert_allclose(np.frombuffer(blob[:16], "<f4"), expected[0]["data"], atol=1e-5)
        first = expected[1]["data"][0].encode()
        assert blob[16:].startswith(struct.pack("<I", len(first)) + first)


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"\x05\0\0\0abc", {}),
        (b"\x05\0", {}),
        (struct.pack("<I", 3) + b"abc", {"Inference-Header-Content-Length": "99999"}),
        (struct.pack("<I", 3) + b"abc", {"Inference-Header-Content-Length": "-1"}),
        (struct.pack("<I", 3) + b"abc", {"Inference-Header-Content-Length": "²"}),
        (struct.pack("<I", 3) + b"abc", {"Inference-Header-Content-Length": "0"}),
    ],
)
async def test_badly_framed_binary_data(images, data, headers):
    body, right = binary_request(data)
    encoded = {name: value.encode() for name, value in ({**right, **headers}).items()}
    answer = await images.client.post(INFER, content=body, headers=encoded)
    assert answer.status_code in (400, 422)
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        ({}, 422, "inputs"),
        ({"inputs": []}, 422, "1 input"),
        (tensor(name="pictures"), 422, "inputs[0].name"),
        (tensor(datatype="INT64"), 422, "inputs[0].datatype"),
        (tensor(shape=[2]), 422, "1 elements, the shape says 2"),
        (tensor(shape=[0], data=[]), 422, "inputs[0].shape"),
        (tensor(shape=[-1]), 422, "inputs[0].shape"),
        (tensor(shape=[10**30]), 422, "inputs[0]"),
        (tensor(shape=[]), 422, "inputs[0].shape"),
        (tensor(data=["!"]), 422, "inputs[0].data[0]"),
        (tensor(data=[b64(b"no image")]), 422, "inputs[0].data[0]"),
        (tensor(data=None), 422, "inputs[0].data"),
        (drop_data(tensor()), 422, "inputs[0].data: missing"),
        (tensor(datatype="FP32", shape=[1, 3, SIDE, SIDE], data=[]), 422, "[N, 1, 8, 8] or [N, 8, 8]"),
        (tensor(datatype="FP32", shape=[1, SIDE, SIDE], data=[1.0]), 422, "the shape says 64"),
        (tensor(datatype="FP32", shape=[1, SIDE, SIDE], data=["1"] * 64), 422, "inputs[0].data[0]"),
        (tensor(datatype="FP32", shape=[1, SIDE, SIDE], data=[1e39] * 64), 422, "finite"),
        (tensor(datatype="FP32", shape=[1, SIDE, SIDE], data=[[1.0], [1.0, 2.0]]), 422, "lengths"),
        (tensor(datatype="UINT8", shape=[1, SIDE, SIDE], data=[256] * 64), 422, "<= 255"),
        (tensor(parameters={"binary_data_size": 4}), 400, "Inference-Header-Content-Length"),
        (tensor() | {"outputs": [{"name": "logits"}]}, 422, "outputs[0].name"),
        (tensor() | {"outputs": [{"name": "scores", "parameters": {"binary_data": 1}}]}, 422, "binary_data"),
    ],
    ids=lambda value: str(value)[:60] if not isinstance(value, int) else None,
)
async def test_a_bad_request_is_named(images, body, status, words):
    answer = await images.infer(body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]


async def test_unknown_model_version_path_and_method(images):
    for path in (
        "/v2/models/digits",
        "/v2/models/digits/ready",
        "/v2/models/shapes/versions/1",
        "/v2/models/shapes/versions/1/ready",
        "/v2/nope",
    ):
        answer = await images.client.get(path)
        assert answer.status_code == 404
        assert isinstance(answer.json()["error"], str)
    assert (await images.infer(tensor(), path="/v2/models/shapes/versions/1/infer")).status_code == 404
    assert (await images.client.get(INFER)).status_code == 405
    assert (await images.infer(tensor(), **{"content-type": "text/plain"})).status_code == 415
