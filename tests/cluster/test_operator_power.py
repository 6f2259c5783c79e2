"""Budgets of a power tree before a real API server: a job waits for watts, says how many, and starts when they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from datahall.kube.resources import NODES, POWER_DOMAINS, QUEUES
from local_cluster.api import ApiServer
from tests.cluster.cluster import API, SUCCEEDED, Cluster
from tests.cluster.operator_process import Operator
from tests.cluster.statuses import condition_of
from tests.cluster.waiting import until
from tests.conftest import make_namespace

pytestmark = pytest.mark.apiserver

Json = dict[str, Any]

JOB_WATTS = 2 * 700
"""A job of two H100, which no label caps."""


@pytest.fixture
async def cluster(plane: ApiServer, operator: Operator) -> AsyncIterator[Cluster]:
    """A node of eight GPUs and a queue for all of them."""
    async with Cluster.open(plane, make_namespace(plane), nodes=1, quota=8) as opened:
        await operator.leads()
        yield opened


async def feed(cluster: Cluster, suffix: str = "", **spec: Any) -> str:
    """A PowerDomain whose name begins with that of the namespace; its name."""
    name = f"{cluster.namespace}{suffix}"
    body = {"apiVersion": API, "kind": "PowerDomain", "metadata": {"name": name}, "spec": spec}
    await cluster.client.create(POWER_DOMAINS, body)
    return name


def the_node(cluster: Cluster) -> Json:
    return {"kubernetes.io/hostname": f"{cluster.namespace}-0"}


async def change(cluster: Cluster, name: str, **spec: Any) -> None:
    await cluster.client.merge_patch(POWER_DOMAINS, {"spec": spec}, name=name, field_manager="test")


async def says(cluster: Cluster, name: str, **wanted: Any) -> Json:
    """Wait until the status of a PowerDomain has these fields; the status."""
    status: Json = {}

    async def there() -> bool:
        nonlocal status
        status = (await cluster.client.get(POWER_DOMAINS, name)).get("status", {})
        return wanted.items() <= status.items()

    try:
        await until(there, what=f"{name} says {wanted}", seconds=40)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {status}") from None
    return status


async def runs(cluster: Cluster, job: str) -> None:
    await cluster.gang(f"{job}-g1-0", job=job)
    await cluster.run(f"{job}-g1-0")
    await cluster.state("Running", job)


async def test_a_job_waits_for_the_watts_of_its_power_domain_and_starts_when_the_budget_is_raised(
    cluster: Cluster,
) -> None:
    site = await feed(cluster, "-site", watts=JOB_WATTS + 500)
    rack = await feed(cluster, "-rack", watts=100_000, parent=site, nodeSelector=the_node(cluster))
    await says(cluster, site, state="Ready", nodes=1, reservedWatts=0, availableWatts=JOB_WATTS + 500)
    await cluster.job("first", workers=1, resources={"gpus": 2})
    await runs(cluster, "first")
    await cluster.job("second", workers=1, resources={"gpus": 2})
    waits = await cluster.condition("Queued", "True", "second", reason="PowerBudgetExceeded")
    assert waits["message"] == (
        f"needs 1400 W under power domain {site}, which has 500 W left, 900 W too few (1400 of 1900 W reserved)"
    )
    assert await cluster.pods("second") == {}
    await says(cluster, rack, reservedWatts=JOB_WATTS, availableWatts=500)
    await change(cluster, site, watts=2 * JOB_WATTS)
    await runs(cluster, "second")
    await says(cluster, site, state="Ready", reservedWatts=2 * JOB_WATTS, availableWatts=0)
    await change(cluster, site, watts=JOB_WATTS)
    status = await says(cluster, site, state="Overcommitted")
    assert condition_of(status, "Ready")["reason"] == "PowerDomainOvercommitted"
    assert (await cluster.status("first"))["state"] == "Running", "nothing ends for a lowered budget"


async def test_a_higher_priority_takes_the_watts_of_a_lower_one_that_goes_on_when_they_are_back(
    cluster: Cluster,
) -> None:
    await cluster.client.merge_patch(
        QUEUES, {"spec": {"minimumRunSeconds": 0}}, name=cluster.namespace, field_manager="test"
    )
    rack = await feed(cluster, watts=JOB_WATTS + 500, nodeSelector=the_node(cluster))
    await says(cluster, rack, nodes=1)
    await cluster.job("low", workers=1, resources={"gpus": 2})
    await runs(cluster, "low")
    await cluster.job("high", workers=1, resources={"gpus": 2}, priority=1000)
    queued = await cluster.condition("Queued", "True", "low", reason="Preempted")
    assert f"makes room for {cluster.namespace}/high" in queued["message"]
    await cluster.condition("Queued", "True", "high", reason="MakingRoom")
    await cluster.interrupt("low")
    await runs(cluster, "high")
    waits = await cluster.condition("Queued", "True", "low", reason="PowerBudgetExceeded")
    assert "(1400 of 1900 W reserved)" in waits["message"]
    await says(cluster, rack, reservedWatts=JOB_WATTS, availableWatts=500)
    await cluster.end("high-g1-0", 0, SUCCEEDED)
    await cluster.gang("low-g2-0", job="low")


async def test_a_job_starts_when_the_power_domain_goes(cluster: Cluster) -> None:
    rack = await feed(cluster, watts=JOB_WATTS - 1, nodeSelector=the_node(cluster))
    await says(cluster, rack, nodes=1)
    await cluster.job(workers=1, resources={"gpus": 2})
    await cluster.condition("Queued", "True", reason="PowerBudgetExceeded")
    await cluster.client.delete(POWER_DOMAINS, rack)
    await runs(cluster, "digits")


async def test_a_node_follows_its_label_into_another_power_domain(cluster: Cluster) -> None:
    node = f"{cluster.namespace}-0"
    dark = await feed(cluster, "-dark", watts=0, nodeSelector={"rack": f"{cluster.namespace}-dark"})
    lit = await feed(cluster, "-lit", watts=10_000, nodeSelector={"rack": f"{cluster.namespace}-lit"})

    async def label(rack: str) -> None:
        await cluster.client.merge_patch(
            NODES, {"metadata": {"labels": {"rack": rack}}}, name=node, field_manager="test"
        )

    await label(dark)
    await says(cluster, dark, nodes=1)
    await cluster.job(workers=1, resources={"gpus": 2})
    await cluster.condition("Queued", "True", reason="PowerBudgetExceeded")
    await label(lit)
    await runs(cluster, "digits")
    await says(cluster, lit, nodes=1, reservedWatts=JOB_WATTS)


async def test_parents_in_a_circle_start_nothing_and_say_how_to_mend_it(cluster: Cluster) -> None:
    first = await feed(cluster, "-a", watts=10_000, nodeSelector=the_node(cluster))
    second = await feed(cluster, "-b", watts=10_000, parent=first)
    await change(cluster, first, parent=second)
    for name in (first, second):
        status = await says(cluster, name, state="Stalled")
        stalled = condition_of(status, "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "PowerDomainsInCircle")
        assert "until spec.parent of one is changed" in stalled["message"]
    await cluster.job(workers=1, resources={"gpus": 2})
    waits = await cluster.condition("Queued", "True", reason="PowerBudgetExceeded")
    assert f"in a circle ({first} -> {second} -> {first})" in waits["message"]
    await change(cluster, first, parent=None)
    await runs(cluster, "digits")
    status = await says(cluster, second, state="Ready")
    assert condition_of(status, "Stalled")["status"] == "False"


async def test_a_node_of_two_power_domains_starts_nothing_until_one_feeds_the_other(cluster: Cluster) -> None:
    here = await feed(cluster, "-a", watts=10_000, nodeSelector=the_node(cluster))
    there = await feed(cluster, "-b", watts=10_000, nodeSelector=the_node(cluster))
    status = await says(cluster, here, state="Stalled")
    assert condition_of(status, "Ready")["reason"] == "PowerDomainNodesShared"
    assert there in condition_of(status, "Ready")["message"]
    await cluster.job(workers=1, resources={"gpus": 2})
    waits = await cluster.condition("Queued", "True", reason="PowerBudgetExceeded")
    assert f"power domains {here} and {there} select the same nodes" in waits["message"]
    await change(cluster, here, parent=there)
    await runs(cluster, "digits")
    await says(cluster, there, state="Ready", nodes=1)
