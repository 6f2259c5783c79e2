"""The operator in a hall with scheduler, controllers and fake nodes whose pods run at once: nothing is played."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from datahall.kube.resources import PODS
from local_cluster.api import ApiServer
from tests.cluster.cluster import Cluster
from tests.cluster.operator_process import Operator
from tests.cluster.waiting import until

pytestmark = pytest.mark.apiserver


# Without claims: nothing in this hall provisions volumes, and the scheduler waits for them.
CUSTOM = {
    "task": "Custom",
    "container": {"image": "team-a/trainer:1"},
    **dict.fromkeys(("model", "data", "training", "output")),
}


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


async def test_a_deleted_pod_restarts_the_gang_uncounted_and_a_full_hall_is_never_overcommitted(
    cluster: Cluster,
) -> None:
    await cluster.job("full", **CUSTOM, workers=8, resources={"gpus": 8}, priority=10)
    await cluster.state("Running", "full", seconds=30)
    await cluster.job("next", **CUSTOM, workers=1)
    await cluster.condition("Queued", "True", "next", reason="QuotaExceeded")
    await cluster.delete(PODS, "full-g1-3")

    async def again() -> bool:
        return (await cluster.status("full")).get("generation") == 2

    await until(again, what="the second generation", seconds=30)
    status = await cluster.state("Running", "full", seconds=30)
    assert status["restarts"] == {"counted": 0, "uncounted": 1}
    assert await cluster.pods("next") == {}


async def test_a_gang_runs_where_it_was_placed(cluster: Cluster) -> None:
    await cluster.job(**CUSTOM, workers=3, resources={"gpus": 8})
    status = await cluster.state("Running", seconds=30)
    placed = {place["rank"]: place["node"] for place in status["placement"]}
    pods = await cluster.pods()
    bound = {int(p["metadata"]["labels"]["datahall.dev/rank"]): p["spec"]["nodeName"] for p in pods.values()}
    assert bound == placed
    assert len(set(bound.values())) == 3
    assert {place["gpuModel"] for place in status["placement"]} == {"NVIDIA-H100-80GB-HBM3"}
