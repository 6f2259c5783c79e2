"""Jobs that end for others before a real API server, queues that lend and take back, and where gangs are placed.

A real operator process, and a kubelet that the tests play.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from datahall.kube.resources import NODES, PODS, QUEUES
from local_cluster.api import ApiServer
from tests.cluster.cluster import SUCCEEDED, Cluster
from tests.cluster.operator_process import Operator
from tests.cluster.pod_diary import PodDiary
from tests.cluster.statuses import condition_of
from tests.cluster.waiting import until
from tests.conftest import make_namespace

pytestmark = pytest.mark.apiserver

Json = dict[str, Any]


@pytest.fixture
async def one_node(plane: ApiServer, operator: Operator) -> AsyncIterator[Cluster]:
    """Eight GPUs, and a queue for all of them whose jobs may be ended from their first second on."""
    async with Cluster.open(plane, make_namespace(plane), nodes=1, quota=8) as opened:
        await change_queue(opened, opened.namespace, minimumRunSeconds=0)
        await operator.leads()
        yield opened


async def change_queue(cluster: Cluster, name: str, **spec: Any) -> None:
    await cluster.client.merge_patch(QUEUES, {"spec": spec}, name=name, field_manager="test")


async def runs(cluster: Cluster, job: str, *, generation: int = 1, workers: int = 1) -> Json:
    """A gang is made and runs, and its job says so; the status."""
    names = [f"{job}-g{generation}-{rank}" for rank in range(workers)]
    await cluster.gang(*names, job=job)
    await cluster.run(*names)
    return await cluster.state("Running", job)


async def succeeds(cluster: Cluster, pod: str, job: str) -> None:
    await cluster.end(pod, 0, SUCCEEDED)
    await cluster.state("Succeeded", job)


async def test_a_higher_priority_takes_the_room_and_the_other_goes_on_afterwards(one_node: Cluster) -> None:
    cluster = one_node
    async with PodDiary(cluster) as diary:
        await cluster.job("low", workers=2, resources={"gpus": 4})
        await runs(cluster, "low", workers=2)
        await cluster.job("high", workers=1, resources={"gpus": 8}, priority=1000)
        queued = await cluster.condition("Queued", "True", "low", reason="Preempted")
        assert f"makes room for {cluster.namespace}/high" in queued["message"]
        waits = await cluster.condition("Queued", "True", "high", reason="MakingRoom")
        assert f"{cluster.namespace}/low" in waits["message"]
        status = await cluster.status("low")
        assert status["state"] == "Queued"
        assert (status["preemptions"], status["restarts"]["uncounted"]) == (1, 1)
        assert (status["preemptedBy"]["job"], status["preemptedBy"]["priority"]) == (
            f"{cluster.namespace}/high",
            1000,
        )
        assert not status.get("placement")
        assert {"workers", "spread"}.isdisjoint(status)
        assert await cluster.pods("high") == {}, "nothing starts before the room is free"
        await cluster.interrupt("low", workers=2)
        await runs(cluster, "high")
        waits = await cluster.condition("Queued", "True", "low", reason="QuotaExceeded")
        waiting = (await cluster.status("low"))["waiting"]
        assert (waiting["reason"], waiting["position"]) == ("QuotaExceeded", 1)
        assert waiting["blockers"][0]["message"] == waits["message"]
        assert waiting["sinceTime"] == status["queuedTime"]
        await succeeds(cluster, "high-g1-0", "high")
        status = await runs(cluster, "low", generation=2, workers=2)
        assert status["preemptions"] == 1
        assert condition_of(status, "Restarting")["reason"] == "Restarted"
        assert "waiting" not in status
        assert "failure" not in status, "who makes room has not failed"

        async def told() -> bool:
            low, high = await cluster.events("low"), await cluster.events("high")
            return {"Preempted", "Restarted"} <= set(low) and "Preempting" in high

        await until(told, what="Events on both jobs")
        diary.check_fence()


async def test_what_a_queue_borrowed_goes_back_when_it_is_needed(one_node: Cluster) -> None:
    cluster = one_node
    department = await cluster.queue(0, name=f"{cluster.namespace}-all")
    lender = await cluster.queue(4, name=f"{cluster.namespace}-b", parent=department, minimumRunSeconds=0)
    await change_queue(cluster, cluster.namespace, parent=department, gpus=[{"model": "Any", "nominal": 4}])
    four = {"gpus": 4, "cpu": "1", "memory": "1Gi"}
    for name in ("own", "borrows"):
        await cluster.job(name, workers=1, resources=four, priority=10)
        await runs(cluster, name)

    async def says(name: str, **wanted: int) -> None:
        found: Json = {}

        async def said() -> bool:
            nonlocal found
            body = await cluster.client.get(QUEUES, name)
            found = next(iter(body.get("status", {}).get("used", [])), {})
            return {key: found.get(key) for key in wanted} == wanted

        try:
            await until(said, what=f"{name} says {wanted}", seconds=40)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {found}") from None

    await says(cluster.namespace, used=8, nominal=4, borrowed=4, available=0)
    ready = condition_of((await cluster.client.get(QUEUES, cluster.namespace))["status"], "Ready")
    assert ready["reason"] == "QueueReady", "to borrow is no trouble"
    await cluster.job("claims", workers=1, resources=four, queue=lender, priority=-10)
    preempted: str = await until(lambda: _preempted(cluster), what="one of the two makes room")
    status = await cluster.status(preempted)
    assert status["preemptedBy"]["job"] == f"{cluster.namespace}/claims"
    assert "priority" not in status["preemptedBy"], "priority did not decide"
    await cluster.interrupt(preempted)
    await runs(cluster, "claims")
    await says(cluster.namespace, used=4, borrowed=0)
    await cluster.condition("Queued", "True", preempted, reason="QuotaExceeded")
    await succeeds(cluster, "claims-g1-0", "claims")
    await runs(cluster, preempted, generation=2)
    await says(lender, used=0, nominal=4, borrowed=0)


async def _preempted(cluster: Cluster) -> str:
    for name in ("own", "borrows"):
        if condition_of(await cluster.status(name), "Queued")["reason"] == "Preempted":
            return name
    return ""


async def test_an_elastic_gang_starts_with_fewer_workers(one_node: Cluster) -> None:
    cluster = one_node
    await change_queue(cluster, cluster.namespace, gpus=[{"model": "Any", "nominal": 5}])
    await cluster.job(workers={"count": 8, "min": 3})
    names = [f"digits-g1-{rank}" for rank in range(5)]
    pods = await cluster.gang(*names)
    status = await cluster.state("Starting")
    assert status["workers"] == len(status["placement"]) == 5
    assert status["effective"]["workers"] == {"count": 8, "min": 3}
    for rank, name in enumerate(names):
        (container,) = pods[name]["spec"]["containers"]
        variables = {v["name"]: v["value"] for v in container["env"]}
        assert (variables["PET_NNODES"], variables["PET_NODE_RANK"]) == ("5", str(rank))
    await cluster.run(*names)
    status = await cluster.state("Running")
    assert condition_of(status, "Running")["message"] == "5 of 5 workers run"


async def test_a_gang_that_must_be_in_one_rack_is(plane: ApiServer, operator: Operator) -> None:
    async with Cluster.open(plane, make_namespace(plane), nodes=4) as cluster:
        for number in range(4):
            rack = {"metadata": {"labels": {"datahall.dev/rack": f"{cluster.namespace}-r{number // 2}"}}}
            await cluster.client.merge_patch(
                NODES, rack, name=f"{cluster.namespace}-{number}", field_manager="test"
            )
        request = {"limits": {"nvidia.com/gpu": "8"}}
        body = {
            "metadata": {"name": "foreign"},
            "spec": {
                "nodeName": f"{cluster.namespace}-0",
                "containers": [{"name": "c", "image": "i", "resources": request}],
            },
        }
        await cluster.client.create(PODS, body, namespace=cluster.namespace)
        await operator.leads()
        required = {"level": "rack", "mode": "Required"}
        await cluster.job("wide", workers=3, resources={"gpus": 8}, topology=required)
        never = await cluster.condition("Queued", "True", "wide", reason="NoSuchNodes")
        assert "on one rack" in never["message"]
        await cluster.job(workers=2, resources={"gpus": 8}, topology=required)
        await cluster.gang("digits-g1-0", "digits-g1-1")
        status = await cluster.status()
        assert {p["node"] for p in status["placement"]} == {f"{cluster.namespace}-{n}" for n in (2, 3)}
        assert status["spread"] == "on one rack"
        await cluster.job("late", workers=2, resources={"gpus": 8}, topology=required)
        await cluster.condition("Queued", "True", "late", reason="NoRoom")


async def test_who_would_move_is_told_before_anybody_ends(plane: ApiServer, operator: Operator) -> None:
    """Two nodes with one small job on each: one would go to the other, so that a job finds a whole node."""
    async with Cluster.open(plane, make_namespace(plane), nodes=2, quota=16) as cluster:
        await change_queue(cluster, cluster.namespace, minimumRunSeconds=0)
        await operator.leads()
        for name, gpus in (("here", 1), ("filler", 7), ("there", 1)):
            await cluster.job(name, workers=1, resources={"gpus": gpus})
            await runs(cluster, name)
        await succeeds(cluster, "filler-g1-0", "filler")
        await cluster.job("whole", workers=1, resources={"gpus": 8})

        async def planned() -> Json:
            return (await cluster.status("whole")).get("waiting", {}).get("moves", {})

        moves = await until(planned, what="it is told who would move")
        (move,) = moves["jobs"]
        assert move["gpuSeconds"] == moves["gpuSeconds"] >= 60, "the restart alone takes a minute"
        assert {*move["fromNodes"], *move["toNodes"]} == {f"{cluster.namespace}-{i}" for i in range(2)}
        mover = move["job"].removeprefix(f"{cluster.namespace}/")
        assert (await cluster.status(mover))["state"] == "Running", "nobody ends before it is due"
