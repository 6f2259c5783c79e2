"""Predictions through the API server's proxy and by URL, and what is said when there is none."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from datahall.sdk import AsyncClient, Class, MisuseError, NotFoundError, PredictError
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import FakeApi, Json

ANSWER = {
    "model": "digits",
    "digest": samples.DIGEST,
    "results": [
        {"classes": [{"label": "7", "score": 0.998}, {"label": "1", "score": 0.001}]},
        {"classes": []},
    ],
}


async def test_images_go_through_the_proxy(api: FakeApi, client: AsyncClient, tmp_path: Path) -> None:
    asked: list[tuple[str, Json]] = []

    def serve(path: str, body: Json) -> tuple[int, Json]:
        asked.append((path, body))
        return 200, ANSWER

    api.proxy = serve
    image = tmp_path / "seven.png"
    image.write_bytes(b"\x89PNG!")
    answer = await client.predict("digits", [image, b"\x89PNG?"])
    encoded = [base64.b64encode(raw).decode() for raw in (b"\x89PNG!", b"\x89PNG?")]
    assert asked == [("/v1/classify", {"inputs": encoded})]
    assert api.requests[-1][1] == "/api/v1/namespaces/team-a/services/digits:80/proxy/v1/classify"
    assert answer.digest == samples.DIGEST
    first, second = answer.results
    assert (first.label, first.score) == ("7", 0.998)
    assert first.classes[1] == Class("1", 0.001)
    assert (second.label, second.score) == (None, None)


async def test_texts_go_to_a_url(api: FakeApi, client: AsyncClient) -> None:
    api.proxy = lambda path, body: (
        200,
        {"results": [{"classes": [{"label": body["inputs"][0], "score": 1}]}]},
    )
    url = f"{api.url}/api/v1/namespaces/x/services/digits:80/proxy/"
    answer = await client.predict("digits", ["fine"], url=url)
    assert answer.results[0].label == "fine"


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            400,
            {"error": {"message": "no image", "type": "invalid_input", "param": "inputs[0]"}},
            "invalid_input",
            r"400: inputs\[0\]: no image",
        ),
        (400, {"error": "no image"}, "", "digits answered 400: no image"),
        (
            503,
            {"error": {"message": "queue is full", "type": "overloaded"}},
            "overloaded",
            "503: queue is full",
        ),
        (504, {"error": {"message": "late", "type": "deadline_exceeded"}}, "deadline_exceeded", "504: late"),
        (
            503,
            {
                "kind": "Status",
                "message": 'no endpoints available for service "digits"',
                "reason": "ServiceUnavailable",
            },
            "not_ready",
            "digits has no replica that is ready",
        ),
        (200, {"results": "what"}, "", "no classification"),
    ],
)
async def test_refusals(
    api: FakeApi, client: AsyncClient, status: int, body: Json, kind: str, message: str
) -> None:
    api.proxy = lambda path, _: (status, body)
    with pytest.raises(PredictError, match=message) as caught:
        await client.predict("digits", ["x"])
    assert caught.value.kind == kind
    assert caught.value.status == (status if status >= 400 else 0)
    with pytest.raises(PredictError, match=message):
        await client.predict("digits", ["x"], url=f"{api.url}/api/v1/namespaces/x/services/digits:80/proxy")


async def test_a_service_that_does_not_exist(api: FakeApi, client: AsyncClient) -> None:
    body = {"kind": "Status", "reason": "NotFound", "message": 'services "digits" not found'}
    api.proxy = lambda path, _: (404, body)
    with pytest.raises(NotFoundError, match='services "digits" not found'):
        await client.predict("digits", ["x"])


async def test_nothing_listens_at_the_url(client: AsyncClient) -> None:
    with pytest.raises(PredictError, match="cannot be reached"):
        await client.predict("digits", ["x"], url="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [([], "nothing to predict"), ("text", "must be a list"), ([Path("none.png")], "none.png: No such file")],
)
async def test_misuse(client: AsyncClient, inputs: list[str], message: str) -> None:
    with pytest.raises(MisuseError, match=message):
        await client.predict("digits", inputs)
