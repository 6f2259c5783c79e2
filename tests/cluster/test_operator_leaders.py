"""Two operators: one leads, the other watches and writes nothing, until the first is gone."""

from __future__ import annotations

import asyncio
import datetime
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datahall.kube.resources import LEASES, QUEUES
from local_cluster.api import ApiServer
from tests.cluster.cluster import SUCCEEDED, Cluster
from tests.cluster.operator_process import Operator
from tests.cluster.pod_diary import PodDiary
from tests.cluster.proxy import Fault, Proxy
from tests.cluster.waiting import until
from tests.cluster.warm_start import WarmStart
from tests.conftest import make_namespace

pytestmark = pytest.mark.apiserver

FIRST = ("digits-g1-0", "digits-g1-1")


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmStart]:
    with WarmStart() as parent:
        yield parent


@dataclass
class Pair:
    cluster: Cluster
    leader: Operator
    standby: Operator
    of_leader: Proxy
    of_standby: Proxy

    async def holder(self) -> str:
        lease = await self.cluster.client.get(LEASES, "datahall-operator", namespace=self.cluster.namespace)
        return str(lease["spec"]["holderIdentity"]).partition("/")[0]


@pytest.fixture
async def pair(plane: ApiServer, warm: WarmStart, tmp_path: Path) -> AsyncIterator[Pair]:
    async with (
        Cluster.open(plane, make_namespace(plane), nodes=2) as cluster,
        Proxy(plane, tmp_path) as of_leader,
        Proxy(plane, tmp_path) as of_standby,
    ):
        options = {"namespace": cluster.namespace, "folder": tmp_path, "warm": warm}
        leader = Operator(of_leader.login, name="one", **options)
        standby = Operator(of_standby.login, name="two", **options)
        try:
            leader.start()
            await leader.leads()
            standby.start()

            async def ready() -> bool:
                return (await standby.probe("readyz"))[0] == 200

            await until(ready, what="the standby is ready")
            yield Pair(cluster, leader, standby, of_leader, of_standby)
        finally:
            leader.kill()
            standby.kill()


async def test_one_leads_and_the_standby_writes_nothing(pair: Pair) -> None:
    cluster = pair.cluster
    await cluster.job()
    await cluster.gang(*FIRST)
    await cluster.run(*FIRST)
    await cluster.state("Running")
    await cluster.end("digits-g1-1", 0)
    await cluster.end("digits-g1-0", 0, SUCCEEDED)
    await cluster.state("Succeeded")
    assert await pair.holder() == "one"
    assert (await pair.standby.metrics())["datahall_leader"] == 0
    assert (await pair.standby.probe("livez"))[0] == 200
    # It knows what the leader knows: the watches run.
    assert (await pair.standby.metrics())['datahall_watch_events_total{resource="pods"}'] > 0
    assert pair.of_standby.calls == [], "a standby makes no write at all"
    assert len(pair.of_leader.writes(cluster.namespace)) > 0


async def test_kill_9_of_the_leader_hands_over_in_the_middle_of_a_job(pair: Pair) -> None:
    cluster = pair.cluster
    async with PodDiary(cluster) as diary:
        await cluster.job()
        await cluster.gang(*FIRST)
        await cluster.run(*FIRST)
        await cluster.state("Running")
        pair.leader.kill()
        killed = time.monotonic()
        await cluster.end("digits-g1-1", 0)
        await cluster.end("digits-g1-0", 0, SUCCEEDED)
        status = await cluster.state("Succeeded", seconds=20)
        assert time.monotonic() - killed < 20
        assert await pair.holder() == "two"
        assert status["generation"] == 1
        assert len(diary.added()) == 2
    # The one that was killed comes back as the standby.
    calls = len(pair.of_leader.calls)
    pair.leader.start()

    async def ready() -> bool:
        return (await pair.leader.probe("readyz"))[0] == 200

    await until(ready, what="it stands by")
    await asyncio.sleep(1)
    assert pair.of_leader.calls[calls:] == []


async def test_what_a_queue_used_outlives_its_leader(pair: Pair) -> None:
    cluster = pair.cluster
    pair.leader.kill()
    at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kept = {"asOf": at, "decayedGpuSeconds": 3_600_000, "decayedJoules": 2_520_000_000}
    await cluster.client.merge_patch(
        QUEUES,
        {"status": {"history": {**kept, "joulesByHour": [7_000_000]}}},
        name=cluster.namespace,
        namespace=None,
        field_manager="test",
        subresource="status",
    )
    await pair.standby.leads(seconds=20)
    await cluster.job()
    await cluster.gang(*FIRST)

    async def counted() -> dict[str, Any]:
        queue = await cluster.client.get(QUEUES, cluster.namespace)
        return queue["status"] if queue["status"].get("admitted") == 1 else {}

    status = await until(counted, what="the status of the Queue follows")
    assert status["history"]["decayedGpuSeconds"] == pytest.approx(kept["decayedGpuSeconds"], rel=1e-3)
    assert status["history"]["decayedJoules"] == pytest.approx(kept["decayedJoules"], rel=1e-3)
    assert status["joules"]["lastDay"] == sum(status["history"]["joulesByHour"]) == 7_000_000


async def test_a_leader_that_is_cut_off_writes_no_more_and_ends(pair: Pair) -> None:
    cluster = pair.cluster
    pair.of_leader.judge = lambda call: Fault(status=500) if "leases" in call.path else None
    cut = time.monotonic()
    await pair.standby.leads(seconds=20)
    assert time.monotonic() - cut < 20
    leases = [call.at for call in pair.of_standby.calls if "leases" in call.path]
    before = len(pair.of_leader.writes())
    await cluster.job()
    await cluster.gang(*FIRST)
    assert len(pair.of_leader.writes()) == before, "who lost the lease writes nothing"
    assert leases

    async def ended() -> bool:
        return (await pair.leader.probe("livez"))[0] == 0

    await until(ended, what="the process that lost the lease has ended")


async def test_a_standby_sends_trainers_on_to_the_leader(pair: Pair) -> None:
    path = f"/v1/namespaces/{pair.cluster.namespace}/trainingjobs/digits/reports"

    async def redirected() -> str:
        """The standby knows the leader from its own look at the lease."""

        def post() -> str:
            class NoRedirect(urllib.request.HTTPRedirectHandler):
                def redirect_request(self, *_: object) -> None:
                    return None

            opener = urllib.request.build_opener(NoRedirect)
            request = urllib.request.Request(
                f"http://127.0.0.1:{pair.standby.report_port}{path}", data=b"{}", method="POST"
            )
            try:
                opener.open(request, timeout=5).close()
            except urllib.error.HTTPError as error:
                with error:
                    return error.headers.get("Location", "") if error.code == 307 else ""
            return ""

        return await asyncio.to_thread(post)

    location = await until(redirected, what="the standby redirects")
    assert location == f"http://127.0.0.1:{pair.leader.report_port}{path}"
