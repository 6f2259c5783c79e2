"""What explain and the queue calls tell of a real operator's decisions, in a hall whose pods run at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from datahall.kube.resources import TRAINING_JOBS
from datahall.sdk import AsyncClient, QueueStanding, Story, Turn
from local_cluster.api import ApiServer
from tests.cluster.cluster import Cluster
from tests.cluster.operator_process import Operator
from tests.cluster.test_operator_hall import CUSTOM
from tests.cluster.waiting import until

pytestmark = pytest.mark.apiserver


@pytest.fixture
async def cluster(hall: ApiServer, hall_namespace: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    process = Operator(hall.kubeconfig, namespace=hall_namespace, folder=tmp_path)
    process.start()
    try:
        async with Cluster.open(hall, hall_namespace, quota=64) as opened:
            await process.leads(30)
            yield opened
    finally:
        process.kill()


async def test_explain_and_queue_tell_what_a_real_operator_decided(cluster: Cluster, hall: ApiServer) -> None:
    names = {"full": 10, "first": 5, "second": 0}
    await cluster.job("full", **CUSTOM, workers=8, resources={"gpus": 8}, priority=names["full"])
    await cluster.state("Running", "full", seconds=30)
    for name in ("second", "first"):
        await cluster.job(name, **CUSTOM, workers=1, resources={"gpus": 8}, priority=names[name])
    async with AsyncClient(kubeconfig=str(hall.kubeconfig), namespace=cluster.namespace) as client:

        async def placed() -> Story | None:
            story = await client.explain("second")
            return story if story.waiting is not None and story.waiting.position == 2 else None

        second = await until(placed, what="a place in line", seconds=30)
        assert [each.name for each in second.waiting.ahead] == ["first"]
        assert (second.unread, second.stale) == ((), False)
        first = await client.explain("first")
        assert first.waiting is not None
        assert (first.waiting.position, first.waiting.ahead) == (1, ())
        assert first.waiting.blockers[0].reason == "QuotaExceeded"
        assert "64 of 64 in use" in first.waiting.blockers[0].message
        assert first.helps[0].reason == "QuotaExceeded"

        full = await client.explain("full")
        assert full.running is not None
        assert (full.running.workers, full.running.spread) == (8, "on 2 racks of 1 block")
        assert full.running.undisturbed_until is not None
        assert full.running.outranked_by == ()
        await cluster.edit(TRAINING_JOBS, "first", priority=20)

        async def outranked() -> list[str]:
            running = (await client.explain("full")).running
            return [each.name for each in running.outranked_by] if running else []

        assert await until(outranked, what="a higher priority in line", seconds=30) == ["first"]

        async def counted() -> QueueStanding | None:
            (mine,) = [each for each in await client.queue_tree() if each.name == cluster.namespace]
            return mine if (mine.running, mine.waiting) == (1, 2) else None

        queue = await until(counted, what="a Queue's status that has counted them", seconds=30)
        # The API server is shared: another test's queue with waiting jobs may stand where this one does.
        assert queue.turn in (Turn.NEXT, Turn.TIED)
        assert queue.reason == ""
        assert (queue.gpus[0].used, queue.gpus[0].borrowed, queue.gpus[0].available) == (64, 0, 0)
        line = await client.queue_line(cluster.namespace)
        assert [each.name for each in line.line] == ["first", "second"]
