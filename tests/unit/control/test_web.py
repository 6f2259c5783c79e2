"""The two ports: what trainers get to hear, and what the kubelet and Prometheus do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web as aiohttp_web

from datahall.control.reports import LARGEST_REPORT_BYTES, ReportRefusedError
from datahall.control.web import Health, serve
from datahall.kube import UnavailableError

PATH = "/v1/namespaces/team-a/trainingjobs/digits/reports"


class FakeReports:
    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.error: Exception | None = None

    async def take(self, **report: Any) -> None:
        if self.error is not None:
            raise self.error
        self.taken.append(report)


class Room:
    def __init__(self) -> None:
        self.reports = FakeReports()
        self.complaint: str | None = None
        self.unready: str | None = None
        self.leads = True
        self.leader = ""
        self.measured = 0

        def measure() -> None:
            self.measured += 1

        self.health = Health(
            alive=lambda: self.complaint,
            ready=lambda: self.unready,
            leading=lambda: self.leads,
            leader_address=lambda: self.leader,
            measure=measure,
        )
        self.ports = [_free_port(), _free_port()]
        self.session: aiohttp.ClientSession

    async def post(self, body: bytes = b"{}", path: str = PATH, **headers: str) -> tuple[int, str, Any]:
        url = f"http://127.0.0.1:{self.ports[0]}{path}"
        async with self.session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(f"http://127.0.0.1:{self.ports[1]}{path}") as answer:
            return answer.status, await answer.text()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    reports: Any = made.reports
    serving = asyncio.create_task(
        serve(reports=reports, health=made.health, report_port=made.ports[0], probe_port=made.ports[1])
    )
    async with aiohttp.ClientSession() as made.session:
        for _ in range(200):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                await made.get("/livez")
                break
            await asyncio.sleep(0.01)
        yield made
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


# ---- reports


async def test_a_report_is_handed_on_whole(room):
    status, text, _ = await room.post(b'{"uid": "u"}', Authorization="Bearer t")
    assert (status, text) == (204, "")
    assert room.reports.taken == [
        {"namespace": "team-a", "name": "digits", "authorization": "Bearer t", "body": b'{"uid": "u"}'}
    ]


async def test_a_report_without_a_token_is_not_a_crash(room):
    assert (await room.post())[0] == 204
    assert room.reports.taken[0]["authorization"] == ""


@pytest.mark.parametrize("status", [400, 401, 403, 409])
async def test_a_refusal_is_a_sentence(room, status):
    room.reports.error = ReportRefusedError(status, "this generation is over")
    assert (await room.post())[:2] == (status, "this generation is over\n")


async def test_an_api_server_that_is_away_is_not_the_trainers_fault(room):
    room.reports.error = UnavailableError("no answer")
    status, text, _ = await room.post()
    assert status == 503
    assert "no answer" in text


async def test_a_huge_report_is_refused(room):
    status, _, _ = await room.post(b"x" * (LARGEST_REPORT_BYTES + 1))
    assert status == 413
    assert room.reports.taken == []


async def test_a_standby_sends_on_to_the_leader(room):
    room.leads, room.leader = False, "10.0.0.7:8080"
    status, _, headers = await room.post(b'{"uid": "u"}', Authorization="Bearer t")
    assert (status, headers["Location"]) == (307, f"http://10.0.0.7:8080{PATH}")
    assert room.reports.taken == []


async def test_what_follows_the_redirect_arrives_with_method_and_body(room):
    arrived = asyncio.Queue[tuple[str, str, bytes]]()

    async def leader(request: aiohttp_web.Request) -> aiohttp_web.Response:
        arrived.put_nowait((request.method, request.path, await request.read()))
        return aiohttp_web.Response(status=204)

    application = aiohttp_web.Application()
    application.router.add_route("*", "/{path:.*}", leader)
    runner = aiohttp_web.AppRunner(application)
    await runner.setup()
    port = _free_port()
    await aiohttp_web.TCPSite(runner, "127.0.0.1", port).start()
    room.leads, room.leader = False, f"127.0.0.1:{port}"
    async with room.session.post(f"http://127.0.0.1:{room.ports[0]}{PATH}", data=b"report") as answer:
        assert answer.status == 204
    assert arrived.get_nowait() == ("POST", PATH, b"report")
    await runner.cleanup()


async def test_without_a_leader_the_trainer_is_told_to_come_back(room):
    room.leads = False
    status, text, _ = await room.post()
    assert (status, text) == (503, "no leader yet; try again\n")


@pytest.mark.parametrize("path", ["/", "/v1/namespaces/team-a/trainingjobs/digits", "/livez", "/metrics"])
async def test_the_report_port_serves_reports_alone(room, path):
    assert (await room.post(path=path))[0] in (404, 405)


# ---- probes


@pytest.mark.parametrize(("path", "attribute"), [("/livez", "complaint"), ("/readyz", "unready")])
async def test_a_probe_says_ok_or_why_not(room, path, attribute):
    assert await room.get(path) == (200, "ok\n")
    setattr(room, attribute, "no end of the work on digits")
    assert await room.get(path) == (503, "no end of the work on digits\n")


async def test_a_standby_is_alive_and_ready(room):
    room.leads = False
    assert (await room.get("/livez"))[0] == (await room.get("/readyz"))[0] == 200


async def test_metrics_are_measured_when_they_are_read(room):
    room.reports.error = ReportRefusedError(403, "no")
    await room.post()
    status, text = await room.get("/metrics")
    assert status == 200
    assert room.measured == 1
    assert 'datahall_reports_total{outcome="refused"}' in text
    for name in ("datahall_leader", "datahall_queue_depth", "datahall_planner_cycle_seconds_bucket"):
        assert f"\n{name}" in text


async def test_the_ports_are_free_again_when_the_operator_leaves():
    room = Room()
    reports: Any = room.reports
    for _ in range(2):
        serving = asyncio.create_task(
            serve(reports=reports, health=room.health, report_port=room.ports[0], probe_port=room.ports[1])
        )
        await asyncio.sleep(0.05)
        assert not serving.done(), serving
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
