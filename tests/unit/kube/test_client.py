"""Requests and streams against an API server in this process: what is sent, and what becomes of each answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from datahall import kube
from datahall.kube import KubeClient, KubeError, Resource
from datahall.kube import client as client_
from datahall.kube.client import CallRecord
from datahall.kube.login import Login
from datahall.kube.resources import DEPLOYMENTS, NODES, PODS, TRAINING_JOBS
from tests.unit.kube.conftest import Api, bearer


def status(code: int, reason: str = "", message: str = "a sentence") -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": message}


def line(type_: str, **metadata: Any) -> bytes:
    return json.dumps({"type": type_, "object": {"metadata": metadata}}).encode() + b"\n"


# ---- errors


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", kube.InvalidError),
        (401, "Unauthorized", kube.UnauthorizedError),
        (403, "Forbidden", kube.ForbiddenError),
        (404, "NotFound", kube.NotFoundError),
        (405, "MethodNotAllowed", kube.KubeError),
        (409, "Conflict", kube.ConflictError),
        (409, "AlreadyExists", kube.AlreadyExistsError),
        (410, "Expired", kube.ResourceExpiredError),
        (413, "RequestEntityTooLarge", kube.InvalidError),
        (415, "UnsupportedMediaType", kube.InvalidError),
        (422, "Invalid", kube.InvalidError),
        (429, "TooManyRequests", kube.TooManyRequestsError),
        (500, "InternalError", kube.UnavailableError),
        (503, "ServiceUnavailable", kube.UnavailableError),
        (504, "Timeout", kube.UnavailableError),
    ],
)
async def test_each_refusal_has_its_class(api: Api, client: KubeClient, code, reason, kind):
    api.says(code, status(code, reason))
    with pytest.raises(KubeError) as raised:
        await client.get(PODS, "p", namespace="team-a")
    error = raised.value
    assert type(error) is kind
    assert (error.status, error.reason) == (code, reason)
    assert error.body["message"] == "a sentence"
    assert str(error) == f"get /api/v1/namespaces/team-a/pods/p: a sentence ({code} {reason})"


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (None, 1.0), ("Sun, 22 Nov 2026 16:00:00 GMT", 1.0)]
)
async def test_a_busy_server_says_when_to_come_back(api, client, header, seconds):
    api.says(429, status(429), **({"Retry-After": header} if header else {}))
    with pytest.raises(kube.TooManyRequestsError) as raised:
        await client.list(PODS)
    assert raised.value.retry_after_seconds == seconds


async def test_a_refusal_that_is_no_json_is_told_too(api, client):
    async def proxy(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>bad gateway</html>")

    api.answer = proxy
    with pytest.raises(kube.UnavailableError, match="bad gateway"):
        await client.list(PODS)


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


async def test_writes_say_what_they_are(api, client):
    body = {"metadata": {"name": "x"}}
    await client.create(PODS, body, namespace="n")
    await client.apply(DEPLOYMENTS, body, name="x", namespace="n", field_manager="datahall", force=True)
    await client.merge_patch(
        TRAINING_JOBS, body, name="x", namespace="n", field_manager="s", subresource="status"
    )
    await client.replace(PODS, body, name="x", namespace="n")
    seen = [(r.method, r.path, r.content_type, dict(r.query)) for r in api.requests]
    jobs = "/apis/datahall.dev/v1alpha1/namespaces/n/trainingjobs/x/status"
    assert seen == [
        ("POST", "/api/v1/namespaces/n/pods", "application/json", {}),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/n/deployments/x",
            "application/apply-patch+yaml",
            {"fieldManager": "datahall", "force": "true"},
        ),
        ("PATCH", jobs, "application/merge-patch+json", {"fieldManager": "s"}),
        ("PUT", "/api/v1/namespaces/n/pods/x", "application/json", {}),
    ]
    assert set(api.bodies) == {b'{"metadata":{"name":"x"}}'}


async def test_an_apply_without_a_field_manager_is_not_sent(api, client):
    with pytest.raises(kube.InvalidError, match="field manager"):
        await client.apply(DEPLOYMENTS, {}, name="x", namespace="n", field_manager="")
    assert api.requests == []


async def test_a_deletion_carries_its_conditions(api, client):
    await client.delete(PODS, "p", namespace="n", uid="u", grace_seconds=0)
    await client.delete(PODS, "p", namespace="n")
    first, second = (json.loads(body) for body in api.bodies)
    assert (first["preconditions"], first["gracePeriodSeconds"]) == ({"uid": "u"}, 0)
    assert first["propagationPolicy"] == second["propagationPolicy"] == "Background"
    assert "preconditions" not in second
    assert "gracePeriodSeconds" not in second


# ---- lists


async def test_pages_are_joined_in_order(api, client):
    pages = {
        "": ({"resourceVersion": "7", "continue": "two"}, ["a", "b"]),
        "two": ({"resourceVersion": "7", "continue": "three"}, ["c"]),
        "three": ({"resourceVersion": "7"}, ["d"]),
    }

    async def answer(request: web.Request) -> web.Response:
        metadata, items = pages[request.query.get("continue", "")]
        return web.json_response({"metadata": metadata, "items": items})

    api.answer = answer
    listed = await client.list(PODS, limit=2, label_selector="a=b", field_selector="x=y")
    assert listed == {"metadata": {"resourceVersion": "7"}, "items": ["a", "b", "c", "d"]}
    assert [r.query.get("limit") for r in api.requests] == ["2"] * 3
    assert {(r.query["labelSelector"], r.query["fieldSelector"]) for r in api.requests} == {("a=b", "x=y")}


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


async def test_a_watch_yields_its_lines(api, client):
    api.streams(line("ADDED", name="a"), line("MODIFIED", name="a") + line("DELETED", name="a"))
    assert await watched(client, label_selector="x", name="a") == [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
    ]
    query = api.requests[0].query
    assert (query["watch"], query["resourceVersion"], query["allowWatchBookmarks"]) == ("true", "5", "true")
    assert (query["labelSelector"], query["fieldSelector"]) == ("x", "metadata.name=a")


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


async def test_another_error_in_a_watch_has_its_class(api, client):
    api.streams(
        line("ADDED", name="a"), json.dumps({"type": "ERROR", "object": status(429, "Slow")}).encode()
    )
    with pytest.raises(kube.TooManyRequestsError):
        await watched(client)
    api.streams(json.dumps({"type": "ERROR", "object": {}}).encode())
    with pytest.raises(kube.UnavailableError):
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


async def test_log_lines_come_without_their_ends(api, client):
    api.streams(b"first\nsec", b"ond\n\nth", b"ird \xff", b"\nno end")
    lines = [
        text
        async for text in client.pod_logs(
            "p",
            namespace="n",
            container="trainer",
            follow=True,
            tail_lines=5,
            since_time="2026-11-22T16:00:00Z",
        )
    ]
    assert lines == ["first", "second", "", "third \ufffd", "no end"]
    request = api.requests[0]
    assert request.path == "/api/v1/namespaces/n/pods/p/log"
    assert dict(request.query) == {
        "follow": "true",
        "previous": "false",
        "container": "trainer",
        "tailLines": "5",
        "sinceTime": "2026-11-22T16:00:00Z",
    }


async def test_logs_of_a_pod_that_is_not_there_are_refused(api, client):
    api.says(404, status(404, "NotFound"))
    with pytest.raises(kube.NotFoundError):
        async for _ in client.pod_logs("p", namespace="n"):
            pass
