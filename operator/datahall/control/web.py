"""Two small HTTP servers: one for trainers (reports), one for the kubelet and Prometheus (probes, metrics).

Liveness is what only a restart can mend: an event loop that hangs, a key that is never finished. Readiness is whether
this process can do its work: a standby with a full store is ready, too, and sends trainers on to the leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from datahall.control import metrics
from datahall.control.reports import LARGEST_REPORT_BYTES, ReportRefusedError, Reports
from datahall.kube import KubeError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the probes ask.

    Attributes:
        alive: None, or why only a restart can help.
        ready: None, or why this process cannot work.
        leading: whether this process leads.
        leader_address: host and port of the leader, "" where none is known.
        measure: brings gauges up to date before they are read.
    """

    alive: Callable[[], str | None]
    ready: Callable[[], str | None]
    leading: Callable[[], bool]
    leader_address: Callable[[], str]
    measure: Callable[[], None]


async def serve(*, reports: Reports, health: Health, report_port: int, probe_port: int) -> None:
    """Serve both ports for ever."""
    runners = []
    for application, port in ((_reports(reports, health), report_port), (_probes(health), probe_port)):
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        runners.append(runner)
    try:
        await asyncio.Event().wait()
    finally:
        for runner in runners:
            await runner.cleanup()


def _reports(reports: Reports, health: Health) -> web.Application:
    async def take(request: web.Request) -> web.Response:
        if not health.leading():
            leader = health.leader_address()
            if not leader:
                return _sentence(503, "no leader yet; try again")
            # Only the leader keeps reports. 307 keeps method and body.
            raise web.HTTPTemporaryRedirect(f"http://{leader}{request.path}")
        try:
            await reports.take(
                namespace=request.match_info["namespace"],
                name=request.match_info["name"],
                authorization=request.headers.get("Authorization", ""),
                body=await request.read(),
            )
        except ReportRefusedError as refused:
            metrics.REPORTS.labels("refused").inc()
            return _sentence(refused.status, str(refused))
        except KubeError as error:
            metrics.REPORTS.labels("failed").inc()
            return _sentence(503, f"the API server could not be asked: {error}")
        metrics.REPORTS.labels("taken").inc()
        return web.Response(status=204)

    application = web.Application(client_max_size=LARGEST_REPORT_BYTES)
    application.router.add_post("/v1/namespaces/{namespace}/trainingjobs/{name}/reports", take)
    return application


def _probes(health: Health) -> web.Application:
    async def livez(_: web.Request) -> web.Response:
        return _verdict(health.alive())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(health.ready())

    async def show(_: web.Request) -> web.Response:
        health.measure()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", show)
    return application


def _verdict(complaint: str | None) -> web.Response:
    return _sentence(200, "ok") if complaint is None else _sentence(503, complaint)


def _sentence(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")
