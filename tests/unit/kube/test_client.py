"""The client against a server of the test's own: what it sends, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from datahall.kube import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeClient,
    KubeError,
    NotFoundError,
    ResourceExpiredError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
)
from datahall.kube.login import Login
from datahall.kube.resources import NODES, PODS, TRAINING_JOBS


class Server:
    """Answers every request with `answer(request)`; remembers requests and bodies."""

    def __init__(self, answer):
        self._answer = answer
        self.requests = []
        self.records = []

    async def __aenter__(self):
        async def handle(request):
            raw = await request.read()
            self.requests.append((request, json.loads(raw) if raw else None))
            return await self._answer(request)

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        self._server = TestServer(application)
        await self._server.start_server()

        async def authorization():
            return "Bearer secret"

        login = Login(str(self._server.make_url("")).rstrip("/"), None, authorization, "default")
        self.client = KubeClient(login, timeout_seconds=5, on_call=self.records.append)
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        await self._server.close()


def always(body=None, *, status=200, headers=None, text=None):
    async def answer(_):
        if text is not None:
            return web.Response(status=status, text=text, headers=headers)
        return web.json_response(body if body is not None else {}, status=status, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", InvalidError),
        (401, "Unauthorized", UnauthorizedError),
        (403, "Forbidden", ForbiddenError),
        (404, "NotFound", NotFoundError),
        (409, "Conflict", ConflictError),
        (409, "AlreadyExists", AlreadyExistsError),
        (410, "Expired", ResourceExpiredError),
        (418, "", KubeError),
        (422, "Invalid", InvalidError),
        (429, "TooManyRequests", TooManyRequestsError),
        (500, "InternalError", UnavailableError),
        (503, "ServiceUnavailable", UnavailableError),
        (504, "Timeout", UnavailableError),
    ],
)
async def test_each_refusal_has_its_class_and_the_servers_sentence(status, reason, kind):
    body = {"kind": "Status", "reason": reason, "message": "the sentence"}
    async with Server(always(body, status=status)) as server:
        with pytest.raises(kind, match="get /api/v1/namespaces/a/pods/p: the sentence") as caught:
            await server.client.get(PODS, "p", namespace="a")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.reason, caught.value.body) == (status, reason, body)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), (None, 1.0), ("soon", 1.0)])
async def test_the_server_says_when_to_come_back(header, seconds):
    headers = {"Retry-After": header} if header else None
    async with Server(always({}, status=429, headers=headers)) as server:
        with pytest.raises(TooManyRequestsError) as caught:
            await server.client.get(PODS, "p", namespace="a")
    assert caught.value.retry_after_seconds == seconds


async def test_an_answer_of_a_proxy_in_between_is_quoted():
    async with Server(always(text="<html>bad gateway</html>", status=502)) as server:
        with pytest.raises(UnavailableError, match="bad gateway"):
            await server.client.get(PODS, "p", namespace="a")


async def test_no_answer_is_unavailable_and_recorded():
    async def cut(request):
        request.transport.abort()
        return web.Response()

    async with Server(cut) as server:
        with pytest.raises(UnavailableError):
            await server.client.create(PODS, {}, namespace="a")
    assert [(r.verb, r.resource, r.status) for r in server.records] == [("create", "pods", 0)]


async def test_a_server_that_hangs_is_unavailable():
    async def hang(_):
        await asyncio.sleep(3)
        return web.Response()

    async with Server(hang) as server:
        with pytest.raises(UnavailableError, match="TimeoutError"):
            await server.client.request("GET", "/x", verb="get", resource="x", timeout_seconds=0.1)


async def test_what_is_sent():
    async with Server(always({"metadata": {}})) as server:
        client = server.client
        await client.create(PODS, {"a": 1}, namespace="n")
        await client.apply(PODS, {"a": 1}, name="p", namespace="n", field_manager="datahall", force=True)
        await client.merge_patch(
            TRAINING_JOBS, {"a": None}, name="j", namespace="n", field_manager="s", subresource="status"
        )
        await client.replace(NODES, {"a": 1}, name="node")
        await client.delete(PODS, "p", namespace="n", uid="u", grace_seconds=0)
    sent = [(r.method, r.path_qs, r.headers.get("Content-Type"), body) for r, body in server.requests]
    assert sent[:4] == [
        ("POST", "/api/v1/namespaces/n/pods", "application/json", {"a": 1}),
        (
            "PATCH",
            "/api/v1/namespaces/n/pods/p?fieldManager=datahall&force=true",
            "application/apply-patch+yaml",
            {"a": 1},
        ),
        (
            "PATCH",
            "/apis/datahall.dev/v1alpha1/namespaces/n/trainingjobs/j/status?fieldManager=s",
            "application/merge-patch+json",
            {"a": None},
        ),
        ("PUT", "/api/v1/nodes/node", "application/json", {"a": 1}),
    ]
    assert sent[4][3] == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u"},
        "gracePeriodSeconds": 0,
    }
    assert {r.headers["Authorization"] for r, _ in server.requests} == {"Bearer secret"}
    assert [r.verb for r in server.records] == ["create", "patch", "patch", "update", "delete"]


async def test_an_apply_without_a_manager_is_refused_before_it_is_sent():
    async with Server(always()) as server:
        with pytest.raises(InvalidError, match="field manager"):
            await server.client.apply(PODS, {}, name="p", namespace="n", field_manager="")
    assert server.requests == []


async def test_pages_are_joined():
    async def page(request):
        token = request.query.get("continue", "")
        after = {"": "b", "b": "c", "c": ""}[token]
        return web.json_response(
            {"metadata": {"resourceVersion": "9", "continue": after}, "items": [token or "a"]}
        )

    async with Server(page) as server:
        listed = await server.client.list(PODS, limit=1, label_selector="x=y")
    assert listed["items"] == ["a", "b", "c"]
    assert {r.query["labelSelector"] for r, _ in server.requests} == {"x=y"}


def stream(*lines, then=None):
    async def answer(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        if then is not None:
            await then(request)
        return response

    return answer


def event(kind, name, **metadata):
    return {"type": kind, "object": {"metadata": {"name": name, "resourceVersion": "5", **metadata}}}


async def watched(server):
    return [
        (e.type, e.object)
        async for e in server.client.watch(
            PODS, resource_version="1", timeout_seconds=5, label_selector="a=b"
        )
    ]


async def test_a_watch_yields_what_comes():
    async with Server(stream(event("ADDED", "p"), event("BOOKMARK", ""), event("DELETED", "p"))) as server:
        events = await watched(server)
    assert [kind for kind, _ in events] == ["ADDED", "BOOKMARK", "DELETED"]
    ((request, _),) = server.requests
    assert request.query["watch"] == "true"
    assert request.query["resourceVersion"] == "1"
    assert request.query["allowWatchBookmarks"] == "true"
    assert request.query["labelSelector"] == "a=b"


async def test_an_object_longer_than_a_buffer_is_one_event():
    large = event("ADDED", "p", annotations={"note": "x" * 300_000})
    async with Server(stream(large, event("MODIFIED", "p"))) as server:
        events = await watched(server)
    assert len(events) == 2
    assert len(events[0][1]["metadata"]["annotations"]["note"]) == 300_000


async def test_an_event_that_comes_in_pieces_is_one_event():
    text = json.dumps(event("ADDED", "p")).encode() + b"\n"

    async def pieces(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for index in range(0, len(text), 7):
            await response.write(text[index : index + 7])
            await asyncio.sleep(0)
        return response

    async with Server(pieces) as server:
        assert [kind for kind, _ in await watched(server)] == ["ADDED"]


@pytest.mark.parametrize(
    ("code", "kind"), [(410, ResourceExpiredError), (403, ForbiddenError), (500, UnavailableError)]
)
async def test_an_error_in_the_stream_has_its_class(code, kind):
    error = {"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "the sentence"}}
    async with Server(stream(event("ADDED", "p"), error)) as server:
        with pytest.raises(kind, match="the sentence"):
            await watched(server)


async def test_a_watch_that_is_refused_has_its_class():
    async with Server(always({"message": "too old", "reason": "Expired"}, status=410)) as server:
        with pytest.raises(ResourceExpiredError):
            await watched(server)


async def test_a_stream_that_breaks_is_unavailable_and_not_the_end():
    async def abort(request):
        request.transport.abort()

    async with Server(stream(event("ADDED", "p"), then=abort)) as server:
        with pytest.raises(UnavailableError, match="stream"):
            await watched(server)


async def test_log_lines_come_without_their_ends():
    async with Server(stream(b"one\ntwo\n\nlast \xff without end")) as server:
        lines = [line async for line in server.client.pod_logs("p", namespace="n", tail_lines=5)]
    assert lines == ["one", "two", "", "last \ufffd without end"]
    assert server.requests[0][0].query["tailLines"] == "5"
