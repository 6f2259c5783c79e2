"""Streams and broken answers, against an API server in this process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from datahall import kube
from datahall.kube import KubeClient, Resource
from datahall.kube import client as client_
from datahall.kube.client import CallRecord
from datahall.kube.login import Login
from datahall.kube.resources import DEPLOYMENTS, NODES, PODS, TRAINING_JOBS
from tests.unit.kube.conftest import bearer


def status(code: int, reason: str = "", message: str = "a sentence") -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": message}


def line(type_: str, **metadata: Any) -> bytes:
    return json.dumps({"type": type_, "object": {"metadata": metadata}}).encode() + b"\n"


# ---- errors


@pytest.mark.parametrize("text", ["<html>please log in</html>", "[1]", '{"kind": "Pod'])
async def test_an_answer_that_is_no_object_is_as_good_as_none(api, client, text):
    async def proxy(_: web.Request) -> web.Response:
        return web.Response(text=text)

    api.answer = proxy
    with pytest.raises(kube.UnavailableError, match="get /api/v1"):
        await client.get(PODS, "p", namespace="n")


async def test_no_server_is_unavailable():
    async with KubeClient(Login("http://127.0.0.1:9", None, bearer, "n")) as client:
        with pytest.raises(kube.UnavailableError):
            await client.list(PODS)
        with pytest.raises(kube.UnavailableError):
            async for _ in client.watch(PODS, resource_version="1"):
                pass


async def test_a_server_that_does_not_answer_in_time_is_unavailable(api, client):
    async def sleep(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    api.answer = sleep
    with pytest.raises(kube.UnavailableError, match="TimeoutError"):
        await client.request("GET", "/x", verb="get", resource="x", timeout_seconds=0.05)


async def test_a_connection_cut_in_the_middle_of_an_answer_is_unavailable(api, client):
    api.streams(b'{"kind": "Pod', cut=True)
    with pytest.raises(kube.UnavailableError):
        await client.get(PODS, "p", namespace="n")


async def test_every_call_is_counted_with_its_outcome(api):
    calls: list[CallRecord] = []
    async with KubeClient(Login(api.url, None, bearer, "n"), on_call=calls.append) as client:
        await client.get(PODS, "p", namespace="n")
        api.says(404, status(404))
        with pytest.raises(kube.NotFoundError):
            await client.merge_patch(
                TRAINING_JOBS, {}, name="j", namespace="n", field_manager="m", subresource="status"
            )
    async with KubeClient(Login("http://127.0.0.1:9", None, bearer, "n"), on_call=calls.append) as client:
        with pytest.raises(kube.UnavailableError):
            await client.delete(PODS, "p", namespace="n")
    assert [(c.verb, c.resource, c.status) for c in calls] == [
        ("get", "pods", 200),
        ("patch", "trainingjobs/status", 404),
        ("delete", "pods", 0),
    ]


# ---- what is sent


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "path"),
    [
        (PODS, "n", "p", "/api/v1/namespaces/n/pods/p"),
        (PODS, None, None, "/api/v1/pods"),
        (NODES, None, "a", "/api/v1/nodes/a"),
        (NODES, "ignored", "a", "/api/v1/nodes/a"),
        (DEPLOYMENTS, "n", None, "/apis/apps/v1/namespaces/n/deployments"),
        (TRAINING_JOBS, "n", "j", "/apis/datahall.dev/v1alpha1/namespaces/n/trainingjobs/j"),
    ],
)
def test_paths_are_the_api_servers(resource: Resource, namespace, name, path):
    assert resource.path(namespace=namespace, name=name) == path


async def test_who_asks_is_said_each_time_anew(api):
    tokens = iter(["Bearer one", "Bearer two", None])

    async def rotating() -> str | None:
        return next(tokens)

    async with KubeClient(Login(api.url, None, rotating, "n"), user_agent="datahall-operator") as client:
        for _ in range(3):
            await client.get(PODS, "p", namespace="n")
    assert [r.headers.get("Authorization") for r in api.requests] == ["Bearer one", "Bearer two", None]
    assert {r.headers["User-Agent"] for r in api.requests} == {"datahall-operator"}


async def test_a_deletion_carries_its_conditions(api, client):
    await client.delete(PODS, "p", namespace="n", uid="u", grace_seconds=0)
    await client.delete(PODS, "p", namespace="n")
    first, second = (json.loads(body) for body in api.bodies)
    assert (first["preconditions"], first["gracePeriodSeconds"]) == ({"uid": "u"}, 0)
    assert first["propagationPolicy"] == second["propagationPolicy"] == "Background"
    assert "preconditions" not in second
    assert "gracePeriodSeconds" not in second


# ---- lists


async def test_a_list_that_expired_between_two_pages_says_so(api, client):
    async def answer(request: web.Request) -> web.Response:
        if "continue" in request.query:
            return web.json_response(status(410, "Expired"), status=410)
        return web.json_response({"metadata": {"continue": "x"}, "items": [1]})

    api.answer = answer
    with pytest.raises(kube.ResourceExpiredError):
        await client.list(PODS, limit=1)


async def test_a_list_may_come_from_the_servers_cache(api, client):
    api.says(200, {"metadata": {}, "items": []})
    await client.list(PODS, from_cache=True)
    await client.list(PODS)
    assert [r.query.get("resourceVersion") for r in api.requests] == ["0", None]


# ---- watches


async def watched(client: KubeClient, **options: Any) -> list[tuple[str, str]]:
    return [
        (event.type, event.object["metadata"].get("name", ""))
        async for event in client.watch(PODS, resource_version="5", **options)
    ]


@pytest.mark.parametrize("size", [1, 7, 4096, 1_000_000])
async def test_lines_may_be_long_and_arrive_in_any_pieces(api, client, size):
    text = line("ADDED", name="a", annotations={"x": "é" * 70_000}) + line("ADDED", name="b")
    if size < 4096:
        text = line("ADDED", name="é") * 3
    api.streams(*(text[start : start + size] for start in range(0, len(text), size)))
    assert [name for _, name in await watched(client)] == (["é"] * 3 if size < 4096 else ["a", "b"])


async def test_a_last_line_without_an_end_counts(api, client):
    api.streams(line("ADDED", name="a").rstrip())
    assert await watched(client) == [("ADDED", "a")]


async def test_a_watch_from_too_old_a_version_says_so(api, client):
    api.streams(json.dumps({"type": "ERROR", "object": status(410, "Expired")}).encode())
    with pytest.raises(kube.ResourceExpiredError):
        await watched(client)
    api.says(410, status(410, "Expired"))
    with pytest.raises(kube.ResourceExpiredError):
        await watched(client)


async def test_a_watch_that_breaks_gives_what_it_has_and_says_so(api, client):
    api.streams(line("ADDED", name="a"), b'{"type": "ADD', cut=True)
    stream = client.watch(PODS, resource_version="5")
    assert (await anext(stream)).object["metadata"]["name"] == "a"
    with pytest.raises(kube.UnavailableError):
        await anext(stream)


async def test_a_watch_that_ends_in_the_middle_of_a_line_broke(api, client):
    api.streams(line("ADDED", name="a"), b'{"type": "ADD')
    with pytest.raises(kube.UnavailableError):
        await watched(client)


async def test_a_watch_that_stays_silent_is_dead(api, client, monkeypatch):
    monkeypatch.setattr(client_, "SILENCE_SECONDS", 0.1)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line("ADDED", name="a"))
        await asyncio.sleep(5)
        return response

    api.answer = answer
    with pytest.raises(kube.UnavailableError):
        await asyncio.wait_for(watched(client, timeout_seconds=0), 3)


async def test_who_leaves_a_watch_early_closes_the_connection(api, client):
    gone = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line("ADDED", name="a"))
        try:
            while True:
                await response.write(line("BOOKMARK"))
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    api.answer = answer
    stream = client.watch(PODS, resource_version="5")
    assert (await anext(stream)).type == "ADDED"
    await stream.aclose()
    await asyncio.wait_for(gone.wait(), 3)


async def test_many_watches_do_not_starve_short_calls(api):
    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line("ADDED", name="a"))
        await asyncio.sleep(5)
        return response

    api.answer = answer
    async with KubeClient(Login(api.url, None, bearer, "n"), connections=1) as client:
        streams = [client.watch(PODS, resource_version="1") for _ in range(4)]
        for stream in streams:
            await anext(stream)
        await asyncio.wait_for(client.get(PODS, "p", namespace="n"), 3)
        for stream in streams:
            await stream.aclose()


# ---- logs


async def test_logs_of_a_pod_that_is_not_there_are_refused(api, client):
    api.says(404, status(404, "NotFound"))
    with pytest.raises(kube.NotFoundError):
        async for _ in client.pod_logs("p", namespace="n"):
            pass
