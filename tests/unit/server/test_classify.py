"""`POST /v1/classify`, probes, limits and errors, over ASGI with the real model."""

import asyncio

import pytest

from datahall_server.config import Limits
from datahall_server.errors import EngineDiedError
from tests.unit.server.artifacts import IMAGE_CLASSES, TEXT_CLASSES
from tests.unit.server.conftest import serving
from tests.unit.server.pictures import b64, bomb, png


def error_of(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"type", "message", "param"}
    return error


async def test_images_in_json(images):
    response = await images.classify({"inputs": [b64(png(1)), b64(png(2))]})
    assert response.status_code == 200
    body = response.json()
    assert (body["model"], body["digest"]) == ("shapes", images.model.digest)
    for result in body["results"]:
        scores = [best["score"] for best in result["classes"]]
        assert len(scores) == 2
        assert scores == sorted(scores, reverse=True)
        assert {best["label"] for best in result["classes"]} <= set(IMAGE_CLASSES)


async def test_an_image_as_the_body(images):
    raw = await images.classify(png(1), **{"content-type": "image/png"})
    in_json = await images.classify({"inputs": [b64(png(1))]})
    assert raw.json() == in_json.json()


async def test_texts(texts):
    response = await texts.classify({"inputs": ["a good film", ""]})
    assert {best["label"] for best in response.json()["results"][0]["classes"]} == set(TEXT_CLASSES)
    assert len(response.json()["results"]) == 2


async def test_classes_below_the_threshold_are_left_out(image_model):
    async with serving(image_model, postprocess={"topK": 4, "threshold": 0.5}) as server:
        (result,) = (await server.classify({"inputs": [b64(png(1))]})).json()["results"]
        assert len(result["classes"]) <= 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"", 400, None),
        (b"{", 400, None),
        (b"\xff\xfe", 400, None),
        (b"[" * 100_000, 422, None),
        (b'{"inputs": ["\\ud800"]}', 400, None),
        ({}, 422, None),
        ({"inputs": []}, 422, "inputs"),
        ({"inputs": "x"}, 422, "inputs"),
        ({"inputs": ["AAAA", 3]}, 422, "inputs[1]"),
        ({"inputs": ["not base64!"]}, 422, "inputs[0]"),
        ({"inputs": [""]}, 422, "inputs[0]"),
        ({"inputs": [b64(png(1)), b64(b"hello")]}, 422, "inputs[1]"),
        ({"inputs": [b64(png(1, side=64)[:-200])]}, 422, "inputs[0]"),
        ({"inputs": [b64(bomb(20_000, 20_000))]}, 413, "inputs[0]"),
        ({"inputs": [b64(png(1))] * 17}, 413, "inputs"),
        ({"inputs": [b64(png(1))], "topK": 3}, 422, None),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, int) else None,
)
async def test_a_bad_body_is_named(images, body, status, param):
    assert error_of(await images.classify(body), status)["param"] == param


async def test_a_bad_image_harms_no_other_request(images):
    good, bad = await asyncio.gather(
        images.classify({"inputs": [b64(png(1))]}), images.classify({"inputs": [b64(b"x")]})
    )
    assert (good.status_code, bad.status_code) == (200, 422)
    assert images.engine.batches == [2]


async def test_content_types(images, texts):
    assert (
        "image/png" in error_of(await texts.classify(b"x", **{"content-type": "image/png"}), 415)["message"]
    )
    error_of(
        await images.classify({"inputs": []}, **{"content-type": "application/x-www-form-urlencoded"}), 415
    )
    error_of(await images.classify({"inputs": []}, **{"content-encoding": "gzip"}), 415)
    with_charset = await texts.classify(
        {"inputs": ["a"]}, **{"content-type": "Application/JSON; charset=utf-8"}
    )
    assert with_charset.status_code == 200


async def test_unknown_paths_and_methods(images):
    error_of(await images.client.get("/nope"), 404)
    error_of(await images.client.post("/v1/classify/"), 404)
    answer = await images.client.get("/v1/classify")
    error_of(answer, 405)
    assert "POST" in answer.headers["allow"]


async def test_a_body_over_the_limit_is_refused_with_and_without_a_length(image_model):
    async with serving(image_model, limits=Limits(max_body_bytes=1000)) as server:
        error_of(await server.classify(b"x" * 1001), 413)

        async def pieces():
            for _ in range(20):
                yield b"x" * 100

        answer = await server.client.post("/v1/classify", content=pieces())
        assert "at most 1000" in error_of(answer, 413)["message"]


async def test_memory_for_bodies_is_bounded_and_given_back(image_model):
    async with serving(image_model, limits=Limits(max_held_bytes=100)) as server:
        answer = await server.classify(b"x" * 101)
        error_of(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        for _ in range(3):
            error_of(await server.classify(b"x" * 90), 400)


async def test_a_long_text_is_refused(text_model):
    async with serving(text_model, limits=Limits(max_text_characters=10)) as server:
        assert error_of(await server.classify({"inputs": ["short", "x" * 11]}), 413)["param"] == "inputs[1]"


async def test_overload_gets_503_with_retry_after(images):
    images.engine.hold()
    held = []
    for _ in range(3):  # the first goes to the engine, two wait
        held.append(asyncio.create_task(images.classify({"inputs": [b64(png(1))] * 8})))
        await asyncio.sleep(0.1)
    answer = await images.classify({"inputs": [b64(png(1))]})
    assert error_of(answer, 503)["type"] == "overloaded"
    assert int(answer.headers["retry-after"]) >= 1
    images.engine.release()
    assert [r.status_code for r in await asyncio.gather(*held)] == [200] * 3


async def test_a_late_answer_is_a_504(image_model):
    async with serving(image_model, timeoutSeconds=0.1) as server:
        server.engine.hold()
        assert error_of(await server.classify({"inputs": [b64(png(1))]}), 504)["type"] == "deadline_exceeded"
        server.engine.release()


async def test_a_body_that_dawdles_is_a_408(image_model):
    async with serving(image_model, timeoutSeconds=0.1) as server:

        async def slow():
            yield b"{"
            await asyncio.sleep(1)

        error_of(await server.client.post("/v1/classify", content=slow()), 408)


async def test_scores_that_are_not_finite_are_a_500(nan_model):
    async with serving(nan_model) as server:
        error = error_of(await server.classify({"inputs": [b64(png(1))]}), 500)
        assert error["type"] == "model_failed"
        assert "finite" in error["message"]


async def test_a_dead_engine_is_a_503_everywhere(images):
    images.lifecycle.fail("the engine process was killed by SIGKILL", exit_code=1)
    images.dispatcher.fail(EngineDiedError("the engine process was killed by SIGKILL"))
    answer = await images.classify({"inputs": [b64(png(1))]})
    assert error_of(answer, 503)["type"] == "engine_died"
    assert answer.headers["connection"] == "close"
    assert (await images.client.get("/health")).status_code == 503
    assert (await images.client.get("/ready")).json()["reason"].endswith("SIGKILL")


async def test_a_draining_server_answers_but_sends_its_clients_away(images):
    assert (await images.client.get("/ready")).status_code == 200
    images.lifecycle.drain()
    ready = await images.client.get("/ready")
    assert ready.status_code == 503
    assert "draining" in ready.json()["reason"]
    assert (await images.client.get("/health")).status_code == 200
    answer = await images.classify({"inputs": [b64(png(1))]})
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


async def test_metrics(images):
    await images.classify({"inputs": [b64(png(1))] * 3})
    await images.classify(b"{")
    await images.client.get("/secret-path-of-a-client")
    text = (await images.client.get("/metrics")).text
    assert 'datahall_server_requests_total{code="200",route="/v1/classify"} 1.0' in text
    assert 'datahall_server_requests_total{code="400",route="/v1/classify"} 1.0' in text
    assert "datahall_server_batch_size_sum 3.0" in text
    assert "datahall_server_engine_seconds_count 1.0" in text
    assert "datahall_server_ready 1.0" in text
    assert "secret-path" not in text


async def test_every_metric_is_documented(images):
    from pathlib import Path

    import datahall_server

    readme = (Path(datahall_server.__file__).parent / "README.md").read_text()
    for family in images.metrics.registry.collect():
        assert family.name in readme
