"""Reports of trainers: whose token it is, whose generation, and where a standby sends them."""

from __future__ import annotations

import json

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from datahall.control.reports import ReportRefusedError, Reports
from datahall.control.store import Table
from datahall.control.views import job_view, pod_view
from datahall.control.web import Health, _probes, _reports
from datahall.kube import UnavailableError
from tests.unit.control.world import PROGRESS, UID, running


class Client:
    """A TokenReview that knows one token."""

    def __init__(self, **over):
        self.asked = 0
        self.status = {
            "authenticated": True,
            "audiences": ["datahall.dev"],
            "user": {
                "username": "system:serviceaccount:team-a:default",
                "extra": {
                    "authentication.kubernetes.io/pod-name": ["digits-g1-0"],
                    "authentication.kubernetes.io/pod-uid": ["pod-1"],
                },
            },
        } | over

    async def create(self, resource, body):
        self.asked += 1
        assert body["spec"]["audiences"] == ["datahall.dev"]
        if isinstance(self.status, Exception):
            raise self.status
        return {"status": self.status}


def reports(client=None):
    world = running()
    jobs, pods, news = Table(job_view), Table(pod_view), []
    jobs.put(world.raw)
    for raw in world.pods.values():
        pods.put(raw)
    made = Reports(client or Client(), jobs=jobs, pods=pods, news=lambda *key: news.append(key))
    return made, news


def body(**over):
    return json.dumps({"uid": UID, "generation": 1, "progress": PROGRESS, "checkpoint": None} | over).encode()


async def take(made, *, namespace="team-a", name="digits", token="Bearer t", raw=None):
    await made.take(namespace=namespace, name=name, authorization=token, body=raw or body())


async def test_a_report_of_worker_0_is_taken_and_told():
    made, news = reports()
    checkpoint = {"step": 100, "uri": "pvc://models/c", "bytes": 7, "time": "2026-11-22T15:00:00Z"}
    await take(made, raw=body(checkpoint=checkpoint))
    report = made.of(UID)
    assert (report.generation, report.progress.step, report.progress.percent) == (1, 120, 19)
    assert report.checkpoint.step == 100
    assert news == [("team-a", "digits")]
    made.forget(UID)
    assert made.of(UID) is None


async def test_a_token_is_reviewed_once_a_minute():
    client = Client()
    made, _ = reports(client)
    for _ in range(5):
        await take(made)
    assert client.asked == 1
    await take(made, token="Bearer other")
    assert client.asked == 2


EXTRA = "authentication.kubernetes.io/pod-"


def user(name="digits-g1-0", uid="pod-1", account="system:serviceaccount:team-a:default"):
    return {"user": {"username": account, "extra": {f"{EXTRA}name": [name], f"{EXTRA}uid": [uid]}}}


@pytest.mark.parametrize(
    ("review", "options", "status", "text"),
    [
        ({}, {"raw": b"no json"}, 400, "not a report"),
        ({}, {"raw": b"[]"}, 400, "not a report"),
        ({}, {"raw": body(progress={"step": -1})}, 400, "not a report"),
        ({}, {"raw": body(progress={"metrics": {"loss": None, "x": "y"}})}, 400, "not a report"),
        ({}, {"token": ""}, 401, "bearer token"),
        ({}, {"token": "Basic x"}, 401, "bearer token"),
        ({}, {"token": "Bearer \udcff"}, 401, "bearer token"),
        ({"authenticated": False}, {}, 401, "not valid"),
        ({"audiences": ["other"]}, {}, 401, "not valid"),
        (user(account="system:serviceaccount:team-b:default"), {}, 403, "not of a pod in namespace team-a"),
        (user(account="admin"), {}, 403, "not of a pod"),
        ({"user": {"username": "system:serviceaccount:team-a:default"}}, {}, 403, "not bound to a pod"),
        (user(name="digits-g1-1", uid="pod-2"), {}, 403, "not worker 0"),
        (user(uid="an earlier pod of the name"), {}, 403, "not worker 0"),
        (user(name="other"), {}, 403, "not worker 0"),
        ({}, {"raw": body(generation=2)}, 409, "generation 2 is over; the job is at 1"),
        ({}, {"raw": body(uid="another job")}, 409, "does not exist"),
        ({}, {"name": "letters"}, 409, "does not exist"),
    ],
)
async def test_what_is_not_worker_0_of_this_generation_is_refused(review, options, status, text):
    made, news = reports(Client(**review))
    with pytest.raises(ReportRefusedError, match=text) as caught:
        await take(made, **options)
    assert caught.value.status == status
    assert made.of(UID) is None
    assert news == []


def health(**over):
    values = {
        "alive": lambda: None,
        "ready": lambda: None,
        "leading": lambda: True,
        "leader_address": lambda: "10.0.0.9:8080",
        "measure": lambda: None,
    }
    return Health(**(values | over))


PATH = "/v1/namespaces/team-a/trainingjobs/digits/reports"


async def post(made, *, raw=None, **over):
    async with TestServer(_reports(made, health(**over))) as server, ClientSession() as session:
        headers = {"Authorization": "Bearer t"}
        async with session.post(
            server.make_url(PATH), data=raw or body(), headers=headers, allow_redirects=False
        ) as answer:
            return answer.status, answer.headers, await answer.text()


async def test_over_http():
    made, _ = reports()
    assert (await post(made))[0] == 204
    status, _, text = await post(made, raw=body(generation=3))
    assert (status, text) == (409, "generation 3 is over; the job is at 1\n")
    assert (await post(made, raw=b"x" * 70_000))[0] == 413


async def test_a_standby_redirects_with_method_and_body():
    made, _ = reports()
    status, headers, _ = await post(made, leading=lambda: False)
    assert status == 307
    assert headers["Location"] == f"http://10.0.0.9:8080{PATH}"


async def test_without_a_leader_or_an_api_server_come_back_later():
    made, _ = reports()
    assert (await post(made, leading=lambda: False, leader_address=lambda: ""))[0] == 503
    client = Client()
    client.status = UnavailableError("away")
    made, _ = reports(client)
    status, _, text = await post(made)
    assert status == 503
    assert "away" in text


@pytest.mark.parametrize(
    ("path", "over", "status", "text"),
    [
        ("livez", {}, 200, "ok"),
        ("livez", {"alive": lambda: "no end of the work on x"}, 503, "no end of the work on x"),
        ("readyz", {}, 200, "ok"),
        ("readyz", {"ready": lambda: "the store is not filled yet"}, 503, "not filled"),
        ("metrics", {}, 200, "datahall_leader"),
    ],
)
async def test_probes(path, over, status, text):
    async with (
        TestServer(_probes(health(**over))) as server,
        ClientSession() as session,
        session.get(server.make_url(f"/{path}")) as answer,
    ):
        assert answer.status == status
        assert text in await answer.text()
