"""InferenceServices before a real API server and a real Deployment controller; the kubelet is played."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from datahall.kube import NotFoundError
from datahall.kube.resources import (
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    QUEUES,
    SERVICES,
    TRAINING_JOBS,
)
from local_cluster.api import ApiServer
from tests.cluster.cluster import DIGEST, SUCCEEDED, Cluster
from tests.cluster.operator_process import Operator
from tests.cluster.statuses import condition_of
from tests.cluster.waiting import until
from tests.conftest import make_namespace

pytestmark = pytest.mark.apiserver

OTHER = "sha256:" + "f" * 64
BARE = {"model": {"uri": "pvc://models/digits"}}


@pytest.fixture
async def cluster(plane: ApiServer, operator: Operator) -> AsyncIterator[Cluster]:
    async with Cluster.open(plane, make_namespace(plane), nodes=2, quota=4) as opened:
        await operator.leads()
        yield opened


async def trained(cluster: Cluster, digest: str) -> None:
    """The job `digits` runs and succeeds with a model of this digest."""
    await cluster.job(workers=1)
    await cluster.gang("digits-g1-0", reap=True)
    await cluster.run("digits-g1-0")
    uri = f"pvc://models/digits/versions/{digest[-16:]}"
    await cluster.end("digits-g1-0", 0, SUCCEEDED | {"output": {"uri": uri, "digest": digest}})
    await cluster.state("Succeeded")


async def replicas(cluster: Cluster) -> list[dict[str, Any]]:
    selector = "datahall.dev/inference-service=digits"
    listed = await cluster.client.list(PODS, namespace=cluster.namespace, label_selector=selector)
    return [pod for pod in listed["items"] if "deletionTimestamp" not in pod["metadata"]]


def gated(pod: dict[str, Any]) -> bool:
    return "schedulingGates" in pod["spec"]


def pinned_to(pod: dict[str, Any]) -> str:
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    (field,) = term["matchFields"]
    return str(field["values"][0])


async def placed(cluster: Cluster, count: int) -> list[dict[str, Any]]:
    """Wait until so many replicas have a node and no gate; these."""
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = [pod for pod in await replicas(cluster) if not gated(pod)]
        return len(found) == count

    await until(there, what=f"{count} replicas have their place")
    return found


async def run_replicas(cluster: Cluster) -> None:
    """Play scheduler and kubelet once: who has a node and no gate is bound, runs and answers."""
    for pod in await replicas(cluster):
        conditions = pod["status"].get("conditions", [])
        if gated(pod) or any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            continue
        # The Deployment controller needs the time of readiness, for minReadySeconds.
        since = "2026-11-22T15:00:00Z"
        ready = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
        with contextlib.suppress(NotFoundError):
            await cluster.run(pod["metadata"]["name"])
            await cluster.client.merge_patch(
                PODS,
                {"status": {"phase": "Running", "conditions": ready}},
                name=pod["metadata"]["name"],
                namespace=cluster.namespace,
                field_manager="kubelet",
                subresource="status",
            )


async def all_ready(cluster: Cluster, *, digest: str = "", stays_ready: bool = False) -> None:
    """Play the kubelet until the service is Ready: each replica runs and answers, each that is to go goes.

    With `stays_ready`, it is Ready all the time: replicas are only replaced.
    """

    async def ready() -> bool:
        await cluster.reap()
        await run_replicas(cluster)
        status = await cluster.status("digits", INFERENCE_SERVICES)
        serves = condition_of(status, "Ready")["status"] == "True"
        assert serves or not stays_ready, condition_of(status, "Ready")
        settled = condition_of(status, "Reconciling")["status"] == "False"
        return serves and settled and digest in json.dumps(status.get("model", {}))

    await until(ready, what="the service is Ready", seconds=30)


async def test_it_waits_for_its_job_serves_rolls_and_scales(cluster: Cluster) -> None:
    await cluster.service()
    why = await cluster.condition("Ready", "False", reason="TrainingJobNotFound", resource=INFERENCE_SERVICES)
    assert "TrainingJob digits does not exist" in why["message"]
    assert await cluster.listed(DEPLOYMENTS) == []
    await trained(cluster, DIGEST)
    await all_ready(cluster, digest=DIGEST)
    (deployment,) = await cluster.listed(DEPLOYMENTS)
    (owner,) = deployment["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("InferenceService", "digits")
    assert [s["metadata"]["name"] for s in await cluster.listed(POD_DISRUPTION_BUDGETS)] == ["digits"]

    await cluster.client.request(
        "PATCH",
        INFERENCE_SERVICES.path(namespace=cluster.namespace, name="digits", subresource="scale"),
        verb="patch",
        resource="inferenceservices/scale",
        body={"spec": {"replicas": 3}},
        content_type="application/merge-patch+json",
    )

    async def three() -> bool:
        return len(await replicas(cluster)) == 3

    await until(three, what="three replicas")
    await all_ready(cluster)
    scale = await cluster.client.request(
        "GET",
        INFERENCE_SERVICES.path(namespace=cluster.namespace, name="digits", subresource="scale"),
        verb="get",
        resource="inferenceservices/scale",
    )
    assert scale["status"] == {"replicas": 3, "selector": "datahall.dev/inference-service=digits"}

    await cluster.delete(TRAINING_JOBS, "digits")
    with contextlib.suppress(NotFoundError):  # the garbage collector may be faster
        await cluster.delete(PODS, "digits-g1-0", grace_seconds=0)
    assert condition_of(await cluster.status("digits", INFERENCE_SERVICES), "Ready")["status"] == "True"
    await trained(cluster, OTHER)
    await all_ready(cluster, digest=OTHER, stays_ready=True)
    assert all(OTHER in json.dumps(pod["spec"]) for pod in await replicas(cluster))


async def test_never_ready_while_a_replica_ends_again_and_again(cluster: Cluster) -> None:
    await cluster.service(**BARE, replicas={"min": 1})
    await all_ready(cluster)
    (pod,) = await replicas(cluster)
    said = json.dumps(
        {"result": "Failed", "cause": "BadInput", "message": "pvc://models/digits: no manifest.json"}
    )
    ended = {"exitCode": 65, "message": said, "reason": "Error"}
    for state in ({"waiting": {"reason": "CrashLoopBackOff"}}, {"running": {}}, {"terminated": ended}):
        await cluster.pod_status(
            pod["metadata"]["name"], "Running", state, restartCount=3, lastState={"terminated": ended}
        )
        why = await cluster.condition("Ready", "False", reason="ReplicaFailing", resource=INFERENCE_SERVICES)
        assert "no manifest.json" in why["message"]
    status = await cluster.status("digits", INFERENCE_SERVICES)
    assert status["failure"]["exitCode"] == 65


async def test_what_is_missing_is_named_and_makes_nothing(cluster: Cluster) -> None:
    await cluster.service("no-claim", model={"uri": "pvc://lost/x"})
    await cluster.service("no-queue", queue=f"{cluster.namespace}-x", **BARE)
    for name, reason in (("no-claim", "ClaimNotFound"), ("no-queue", "QueueNotFound")):
        await cluster.condition("Ready", "False", name, reason=reason, resource=INFERENCE_SERVICES)
    assert await cluster.listed(DEPLOYMENTS) == []


async def test_somebody_elses_service_of_the_name_is_not_taken_over(cluster: Cluster) -> None:
    spec = {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}
    await cluster.client.create(
        SERVICES, {"metadata": {"name": "digits"}, "spec": spec}, namespace=cluster.namespace
    )
    await cluster.service(**BARE)
    why = await cluster.condition("Ready", "False", reason="RequestRefused", resource=INFERENCE_SERVICES)
    assert "Service digits exists and is not ours" in why["message"]
    theirs = await cluster.get(SERVICES, "digits")
    assert theirs["spec"]["selector"] == {"app": "theirs"}
    assert await cluster.listed(DEPLOYMENTS) == []


async def test_replicas_over_quota_wait_and_start_by_themselves(cluster: Cluster) -> None:
    await cluster.job(workers=1, resources={"gpus": 4})
    await cluster.gang("digits-g1-0")
    await cluster.run("digits-g1-0")
    await cluster.state("Running")
    await cluster.service(**BARE, resources={"gpus": 2}, replicas={"min": 2})
    why = await cluster.condition(
        "GPUAvailable", "False", reason="QuotaExceeded", resource=INFERENCE_SERVICES
    )
    assert f"queue {cluster.namespace} has 0 GPUs of quota left" in why["message"]

    async def both_wait() -> bool:
        pods = await replicas(cluster)
        return len(pods) == 2 and all(gated(pod) for pod in pods)

    await until(both_wait, what="both replicas wait behind their gates")
    await cluster.end("digits-g1-0", 0, SUCCEEDED)
    pods = await placed(cluster, 2)
    assert {pinned_to(pod) for pod in pods} <= {f"{cluster.namespace}-0", f"{cluster.namespace}-1"}
    await all_ready(cluster)
    await cluster.condition("GPUAvailable", "True", reason="GPUsReserved", resource=INFERENCE_SERVICES)


async def test_an_operator_that_is_killed_finds_who_waits_and_who_has_a_place(
    cluster: Cluster, operator: Operator
) -> None:
    await cluster.service(**BARE, resources={"gpus": 2, "gpuModels": ["H100"]}, replicas={"min": 3})
    before = await placed(cluster, 2)
    await cluster.condition("GPUAvailable", "False", reason="QuotaExceeded", resource=INFERENCE_SERVICES)
    operator.kill()
    (leaves, stays) = before
    await cluster.run(stays["metadata"]["name"])
    await cluster.delete(
        PODS, leaves["metadata"]["name"], grace_seconds=0
    )  # its like is made anew, and waits
    operator.start()
    await operator.leads()
    after = {pod["metadata"]["name"]: pinned_to(pod) for pod in await placed(cluster, 2)}
    assert after[stays["metadata"]["name"]] == pinned_to(stays)
    why = await cluster.condition("Ready", "False", reason="QuotaExceeded", resource=INFERENCE_SERVICES)
    assert "1 replica waits" in why["message"]
    assert len(await replicas(cluster)) == 3


def answers(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


@pytest.mark.parametrize("wanted", [2, 3], ids=["all run", "one waits for quota already"])
async def test_a_roll_out_with_all_quota_in_use_goes_on_and_no_replica_is_missed(
    cluster: Cluster, wanted: int
) -> None:
    await cluster.service(**BARE, resources={"gpus": 2}, replicas={"min": wanted})
    await placed(cluster, 2)
    await run_replicas(cluster)
    if wanted == 2:
        await all_ready(cluster)
    else:
        await cluster.condition("Ready", "False", reason="QuotaExceeded", resource=INFERENCE_SERVICES)
    old = {pod["metadata"]["name"] for pod in await replicas(cluster)}
    await cluster.edit(INFERENCE_SERVICES, "digits", timeoutSeconds=20)

    async def replaced() -> bool:
        await cluster.reap()
        await run_replicas(cluster)
        pods = await replicas(cluster)
        assert sum(map(answers, pods)) >= 2, "as many answer as before"
        assert sum(not gated(pod) for pod in pods) <= 3, "and never more than one too many"
        new = not old & {pod["metadata"]["name"] for pod in pods}
        return new and sum(map(answers, pods)) == 2 and len(pods) == wanted

    await until(replaced, what="all replicas are new", seconds=30)

    async def told() -> bool:
        status = (await cluster.client.get(QUEUES, cluster.namespace)).get("status", {})
        return status.get("summary") == "Any 4/4"

    await until(told, what="the Queue pays for both")
    if wanted == 2:
        await all_ready(cluster)
    else:
        await cluster.condition("GPUAvailable", "False", reason="QuotaExceeded", resource=INFERENCE_SERVICES)


async def test_a_replica_that_its_node_does_not_take_is_made_anew_on_another(cluster: Cluster) -> None:
    await cluster.service(**BARE, resources={"gpus": 1}, replicas={"min": 1})
    (pod,) = await placed(cluster, 1)
    name, node = pod["metadata"]["name"], pinned_to(pod)
    long_ago = {"metadata": {"annotations": {"datahall.dev/placed-at": "2026-11-22T15:00:00Z"}}}
    await cluster.client.merge_patch(
        PODS, long_ago, name=name, namespace=cluster.namespace, field_manager="test"
    )
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    await cluster.client.merge_patch(
        PODS,
        {"status": {"conditions": [said]}},
        name=name,
        namespace=cluster.namespace,
        field_manager="scheduler",
        subresource="status",
    )

    async def another() -> bool:
        pods = await replicas(cluster)
        return any(p["metadata"]["name"] != name and not gated(p) and pinned_to(p) != node for p in pods)

    await until(another, what="another replica, on another node")

    async def announced() -> bool:
        return f"{name}: node {node}: 0/2 nodes" in (await cluster.events()).get("PlaceRefused", "")

    await until(announced, what="an Event says why")


async def test_deleted_objects_leave_nothing(cluster: Cluster) -> None:
    await cluster.service(**BARE)
    await all_ready(cluster)
    names = ("running-g1-0", "running-g1-1")
    await cluster.job("running")
    await cluster.gang(*names, job="running")
    await cluster.run(*names)
    await cluster.state("Running", "running")
    await cluster.delete(INFERENCE_SERVICES, "digits")
    await cluster.delete(TRAINING_JOBS, "running")

    async def nothing() -> bool:
        await cluster.reap()
        kinds = (DEPLOYMENTS, SERVICES, POD_DISRUPTION_BUDGETS, PODS)
        return not any([await cluster.listed(kind) for kind in kinds])

    # The garbage collector learns of kinds that were defined after its start only every 30 seconds.
    await until(nothing, what="the garbage collector has taken everything", seconds=75)


async def test_a_queue_tells_what_is_held(cluster: Cluster) -> None:
    await cluster.job(workers=1, resources={"gpus": 3}, priority=1)
    await cluster.job("second", workers=1, resources={"gpus": 2})

    found: list[Any] = []

    async def told() -> bool:
        status = (await cluster.client.get(QUEUES, cluster.namespace)).get("status", {})
        found[:] = [status.get(key) for key in ("summary", "admitted", "waiting")]
        return found == ["Any 3/4", 1, 1]

    try:
        await until(told, what="the Queue's status has the numbers")
    except AssertionError as error:
        raise AssertionError(f"{error}; they are {found}") from None


async def test_the_stock_scheduler_binds_replicas_where_they_were_placed(
    hall: ApiServer, hall_namespace: str, tmp_path: Path
) -> None:
    """Nothing is played here: fake nodes whose pods run at once, and a quota that has nothing to spare."""
    process = Operator(hall.kubeconfig, namespace=hall_namespace, folder=tmp_path)
    process.start()
    try:
        async with Cluster.open(hall, hall_namespace, quota=24) as hall_cluster:
            await process.leads(30)
            await hall_cluster.service(**BARE, resources={"gpus": 8}, replicas={"min": 3})
            for seconds in (10, 20):
                await hall_cluster.edit(INFERENCE_SERVICES, "digits", timeoutSeconds=seconds)
                await until(partial(_serves, hall_cluster, seconds), what="all replicas serve", seconds=60)
                pods = await replicas(hall_cluster)
                assert len({pod["spec"]["nodeName"] for pod in pods}) == 3
                assert all(pod["spec"]["nodeName"] == pinned_to(pod) for pod in pods)
            assert (await process.metrics())["datahall_replicas_refused_total"] == 0
    finally:
        process.kill()


async def _serves(cluster: Cluster, seconds: int) -> bool:
    body = await cluster.get(INFERENCE_SERVICES, "digits")
    assert body is not None
    status = body.get("status") or {}
    new = [pod for pod in await replicas(cluster) if f'"timeoutSeconds":{seconds}.0' in config_of(pod)]
    settled = status.get("observedGeneration") == body["metadata"]["generation"] and len(new) == 3
    return (
        settled
        and len(await replicas(cluster)) == 3
        and condition_of(status, "Reconciling")["reason"] == "UpToDate"
    )


def config_of(pod: dict[str, Any]) -> str:
    env = pod["spec"]["containers"][0]["env"]
    return str(next(entry["value"] for entry in env if entry["name"] == "DATAHALL_SERVER_CONFIG"))
