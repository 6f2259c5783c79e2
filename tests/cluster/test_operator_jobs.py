"""TrainingJobs before a real API server: a real operator process, and a kubelet that the tests play."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from datahall.kube.resources import PODS, SERVICES, STORAGE_CLASSES, TRAINING_JOBS
from local_cluster.api import ApiServer
from tests.cluster.cluster import DIGEST, SUCCEEDED, Cluster
from tests.cluster.operator_process import Operator
from tests.cluster.pod_diary import PodDiary
from tests.cluster.statuses import condition_of, true_conditions
from tests.cluster.waiting import until
from tests.conftest import make_namespace

pytestmark = pytest.mark.apiserver

FIRST, SECOND = ("digits-g1-0", "digits-g1-1"), ("digits-g2-0", "digits-g2-1")


@pytest.fixture
async def cluster(plane: ApiServer, operator: Operator) -> AsyncIterator[Cluster]:
    async with Cluster.open(plane, make_namespace(plane), nodes=2) as opened:
        await operator.leads()
        yield opened


async def runs(cluster: Cluster, *names: str, job: str = "digits") -> None:
    """A gang is made and runs, and its job says so."""
    await cluster.gang(*names, job=job)
    await cluster.run(*names)
    await cluster.state("Running", job)


async def test_a_whole_life(cluster: Cluster) -> None:
    await cluster.job()
    pods = await cluster.gang(*FIRST)
    status = await cluster.state("Starting")
    assert [place["rank"] for place in status["placement"]] == [0, 1]
    for rank, name in enumerate(FIRST):
        metadata, spec = pods[name]["metadata"], pods[name]["spec"]
        assert metadata["labels"]["datahall.dev/rank"] == str(rank)
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("TrainingJob", "digits", True)
        assert spec["subdomain"] == "digits-workers"
    (service,) = await cluster.listed(SERVICES)
    assert service["spec"]["clusterIP"] == "None"
    await cluster.run(*FIRST)
    status = await cluster.state("Running")
    assert condition_of(status, "Running")["message"] == "2 of 2 workers run"
    await cluster.end("digits-g1-0", 0, SUCCEEDED)
    await cluster.end("digits-g1-1", 0)
    status = await cluster.state("Succeeded")
    assert true_conditions(status) == {"Succeeded"}
    assert status["output"]["digest"] == DIGEST
    assert status["output"]["metrics"] == {"validation_accuracy": 0.98}
    assert status["progress"]["percent"] == 100
    assert status["observedGeneration"] == 1

    async def told() -> bool:
        return (await cluster.events()).get("TrainingSucceeded", "").endswith(DIGEST)

    await until(told, what="an Event tells of the success")


async def test_a_worker_that_fails_restarts_the_gang_once(cluster: Cluster) -> None:
    async with PodDiary(cluster) as diary:
        await cluster.job()
        await runs(cluster, *FIRST)
        await cluster.end(
            "digits-g1-1", 1, {"result": "Failed", "cause": "UserCode", "message": "ValueError: x"}
        )

        async def leaving() -> bool:
            return "deletionTimestamp" in (await cluster.pods())["digits-g1-0"]["metadata"]

        await until(leaving, what="the gang is stopped")
        await asyncio.sleep(0.3)  # time in which a broken fence would show
        assert set(await cluster.pods()) == {"digits-g1-0"}, "nothing of generation 2 while one of 1 exists"
        await cluster.reap()
        await runs(cluster, *SECOND)
        diary.check_fence()
    status = await cluster.status()
    assert status["restarts"] == {"counted": 1, "uncounted": 0}
    assert status["generation"] == 2
    assert status["failure"]["rank"] == 1
    assert status["failure"]["message"] == "ValueError: x"
    assert condition_of(status, "Restarting")["reason"] == "Restarted"


async def test_a_killed_worker_counts_and_a_deleted_pod_does_not(cluster: Cluster) -> None:
    await cluster.job("killed", workers=1)
    await cluster.job("deleted", workers=1)
    await runs(cluster, "killed-g1-0", job="killed")
    await runs(cluster, "deleted-g1-0", job="deleted")
    await cluster.end("killed-g1-0", 137)
    await cluster.delete(PODS, "deleted-g1-0", grace_seconds=0)
    for name, counted in (("killed", 1), ("deleted", 0)):

        async def restarted(name: str = name) -> bool:
            await cluster.reap()
            return set(await cluster.pods(name)) == {f"{name}-g2-0"}

        await until(restarted, what=f"{name} has its second gang")
        status = await cluster.status(name)
        assert status["restarts"] == {"counted": counted, "uncounted": 1 - counted}
        assert status["failure"]["cause"] == ("Killed" if counted else "PodDeleted")


async def test_bad_input_fails_at_once_with_its_sentence(cluster: Cluster) -> None:
    sentence = "data.train: pvc://data/digits: no such directory"
    await cluster.job()
    await runs(cluster, *FIRST)
    await cluster.end("digits-g1-0", 65, {"result": "Failed", "cause": "BadInput", "message": sentence})
    status = await cluster.state("Failed")
    failed = condition_of(status, "Failed")
    assert (failed["reason"], failed["message"]) == ("BadInput", sentence)
    assert status["failure"]["exitCode"] == 65
    assert "restarts" not in status
    await cluster.gang("digits-g1-0", reap=True)


async def test_a_job_over_quota_waits_with_numbers_and_starts_by_itself(
    plane: ApiServer, operator: Operator
) -> None:
    async with Cluster.open(plane, make_namespace(plane), nodes=2, quota=2) as cluster:
        await operator.leads()
        await cluster.job("first")
        await runs(cluster, "first-g1-0", "first-g1-1", job="first")
        await cluster.job("second")
        queued = await cluster.condition("Queued", "True", "second", reason="QuotaExceeded")
        assert "needs 2 x 1 GPU" in queued["message"]
        assert "2 of 2 in use" in queued["message"]
        assert await cluster.pods("second") == {}
        await cluster.end("first-g1-0", 0, SUCCEEDED)
        await cluster.end("first-g1-1", 0)
        await cluster.gang("second-g1-0", "second-g1-1", job="second")


async def test_what_is_missing_is_named_and_starts_the_job_once_it_is_there(cluster: Cluster) -> None:
    await cluster.job("no-queue", queue=f"{cluster.namespace}-x")
    await cluster.job("no-claim", data={"train": "pvc://lost/digits", "validationFraction": 0.2})
    await cluster.job("too-big", resources={"gpus": 9})
    queued = await cluster.condition("Queued", "True", "no-queue", reason="QueueNotFound")
    assert f'no queue "{cluster.namespace}-x"' in queued["message"]
    queued = await cluster.condition("Queued", "True", "no-claim", reason="ClaimNotFound")
    assert queued["message"] == (
        f'PersistentVolumeClaim "lost" does not exist in namespace {cluster.namespace}'
    )
    queued = await cluster.condition("Queued", "True", "too-big", reason="NoSuchNodes")
    assert "the largest node has 8" in queued["message"]
    assert await cluster.listed(PODS) == []
    assert await cluster.listed(SERVICES) == []
    await cluster.claim("lost")
    await cluster.gang("no-claim-g1-0", "no-claim-g1-1", job="no-claim")


async def test_a_claim_without_a_volume_is_named_and_starts_the_job_once_it_is_bound(
    cluster: Cluster,
) -> None:
    await cluster.claim("slow", bound=False)
    await cluster.job(data={"train": "pvc://slow/digits", "validationFraction": 0.2})
    queued = await cluster.condition("Queued", "True", reason="ClaimNotBound")
    assert 'PersistentVolumeClaim "slow" is Pending' in queued["message"]
    assert await cluster.pods() == {}
    await cluster.volume("slow")
    await cluster.gang(*FIRST)
    assert "restarts" not in await cluster.status()


async def test_a_claim_that_waits_for_its_first_pod_gets_one(cluster: Cluster) -> None:
    name = f"{cluster.namespace}-with-pod"
    body = {
        "metadata": {"name": name},
        "provisioner": "datahall.dev/nobody",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await cluster.client.create(STORAGE_CLASSES, body)
    try:
        await cluster.claim("local", storage_class=name, bound=False)
        await cluster.job(data={"train": "pvc://local/digits", "validationFraction": 0.2})
        await cluster.gang(*FIRST)
        # What the scheduler says while no volume can be had on the node that the planner chose.
        refused = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/2 nodes are available: 1 node(s) did not find available persistent volumes to bind.",
        }
        await cluster.client.merge_patch(
            PODS,
            {"status": {"conditions": [refused]}},
            name="digits-g1-0",
            namespace=cluster.namespace,
            field_manager="kube-scheduler",
            subresource="status",
        )
        condition = await cluster.condition("Reconciling", "True", reason="ClaimNotBound", seconds=30)
        assert 'PersistentVolumeClaim "local" is Pending' in condition["message"]
        await cluster.gang("digits-g2-0", "digits-g2-1", seconds=45, reap=True)
        failure = (await cluster.status())["failure"]
        assert failure["cause"] == "Unschedulable"
        assert 'PersistentVolumeClaim "local" is Pending' in failure["message"]
        await cluster.volume("local", storage_class=name)
        await runs(cluster, "digits-g2-0", "digits-g2-1")
    finally:
        await cluster.client.delete(STORAGE_CLASSES, name)


async def test_an_unreachable_image_is_told_and_leaves_nothing_half_started(cluster: Cluster) -> None:
    custom = {"model": None, "data": None, "training": None, "output": None, "task": "Custom"}
    await cluster.job(**custom, container={"image": "nowhere.example/x:1"}, activeDeadlineSeconds=4)
    await cluster.gang(*FIRST)
    waiting = {"reason": "ErrImagePull", "message": 'failed to resolve "nowhere.example/x:1"'}
    for name in FIRST:
        await cluster.pod_status(name, "Pending", {"waiting": waiting})
    condition = await cluster.condition("Running", "False", reason="ImagePullFailed")
    assert 'failed to resolve "nowhere.example/x:1"' in condition["message"]
    status = await cluster.state("Failed")
    assert condition_of(status, "Failed")["reason"] == "DeadlineExceeded"
    await cluster.gang()


async def test_suspend_and_resume(cluster: Cluster) -> None:
    await cluster.job()
    await runs(cluster, *FIRST)
    await cluster.edit(TRAINING_JOBS, "digits", suspend=True)
    status = await cluster.state("Suspended")
    assert "placement" not in status or status["placement"] == []
    await cluster.gang(reap=True)
    await cluster.edit(TRAINING_JOBS, "digits", suspend=False)
    await runs(cluster, *SECOND)
    assert condition_of(await cluster.status(), "Suspended")["reason"] == "Resumed"


async def test_deadline_and_time_to_live(cluster: Cluster) -> None:
    await cluster.job("late", workers=1, activeDeadlineSeconds=1, ttlSecondsAfterFinished=1)
    await runs(cluster, "late-g1-0", job="late")
    status = await cluster.state("Failed", "late")
    assert condition_of(status, "Failed")["reason"] == "DeadlineExceeded"
    assert status["failure"]["cause"] == "Deadline"

    async def gone() -> bool:
        return await cluster.get(TRAINING_JOBS, "late") is None

    await until(gone, what="the job is deleted by its time to live")


async def test_terminal_is_final(cluster: Cluster, operator: Operator) -> None:
    await cluster.job(workers=1)
    await runs(cluster, "digits-g1-0")
    await cluster.end("digits-g1-0", 0, SUCCEEDED)
    before = await cluster.state("Succeeded")
    await cluster.delete(PODS, "digits-g1-0", grace_seconds=0)
    await cluster.delete(SERVICES, "digits-workers") if await cluster.listed(SERVICES) else None
    # Another job's whole start is time enough for the operator to do something about the first, if it would.
    await cluster.job("other", workers=1)
    await runs(cluster, "other-g1-0", job="other")
    assert await cluster.pods() == {}
    assert await cluster.status() == before


async def test_a_job_of_the_same_name_follows_a_deleted_one(cluster: Cluster) -> None:
    async with PodDiary(cluster) as diary:
        await cluster.job()
        await runs(cluster, *FIRST)
        first = (await cluster.get(TRAINING_JOBS, "digits"))["metadata"]["uid"]
        await cluster.delete(TRAINING_JOBS, "digits")
        await cluster.job()

        async def replaced() -> bool:
            await cluster.reap()
            pods = (await cluster.pods()).values()
            owners = {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods}
            return len(pods) == 2 and first not in owners and len(diary.added()) == 4

        # Until the collector knows the new kinds (30 seconds at most), it leaves the first job's Service in the way.
        await until(replaced, what="the second job has two pods of its own", seconds=75)


async def test_what_an_earlier_job_of_the_name_left_is_named_until_it_is_gone(cluster: Cluster) -> None:
    await cluster.job()
    await runs(cluster, *FIRST)
    first = (await cluster.get(TRAINING_JOBS, "digits"))["metadata"]["uid"]

    async def finalizers(names: list[str]) -> None:
        """With one, the Service stays, as it does until the garbage collector comes by."""
        await cluster.client.merge_patch(
            SERVICES,
            {"metadata": {"finalizers": names}},
            name="digits-workers",
            namespace=cluster.namespace,
            field_manager="test",
        )

    await finalizers(["example.com/stays"])
    try:
        await cluster.delete(TRAINING_JOBS, "digits")
        for name in FIRST:
            await cluster.delete(PODS, name, grace_seconds=0)
        await cluster.job()
        queued = await cluster.condition("Queued", "True", reason="NameInUse")
        assert (
            f'Service "digits-workers" of an earlier TrainingJob of this name (uid {first})'
            in queued["message"]
        )
        assert await cluster.pods() == {}
    finally:
        await finalizers([])
    # The garbage collector learns of kinds that were defined after its start only every 30 seconds.
    pods = await cluster.gang(*FIRST, seconds=75)
    assert first not in json.dumps(list(pods.values()))


async def test_gpus_of_a_deleted_job_are_free_only_when_its_pods_are_gone(
    plane: ApiServer, operator: Operator
) -> None:
    async with Cluster.open(plane, make_namespace(plane), nodes=1) as cluster:
        await operator.leads()
        await cluster.job("old", workers=1, resources={"gpus": 8})
        await runs(cluster, "old-g1-0", job="old")
        await cluster.job("new", workers=1, resources={"gpus": 8}, priority=5)
        await cluster.condition("Queued", "True", "new", reason="NoRoom")
        await cluster.delete(TRAINING_JOBS, "old")
        await cluster.delete(PODS, "old-g1-0")
        await asyncio.sleep(2)  # time in which an operator that counts wrongly would start it
        assert await cluster.pods("new") == {}
        await cluster.reap()
        await cluster.gang("new-g1-0", job="new")


async def test_a_foreign_object_in_the_way_is_named(cluster: Cluster) -> None:
    body = {
        "metadata": {"name": "digits-g1-0"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    await cluster.client.create(PODS, body, namespace=cluster.namespace)
    await cluster.job(workers=1)
    queued = await cluster.condition("Queued", "True", reason="RequestRefused")
    assert "digits-g1-0 exists and is not ours" in queued["message"]
    assert "deletionTimestamp" not in (await cluster.get(PODS, "digits-g1-0"))["metadata"]


async def test_what_the_namespace_refuses_is_told(cluster: Cluster) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "1"}}}
    await cluster.client.request(
        "POST",
        f"/api/v1/namespaces/{cluster.namespace}/resourcequotas",
        verb="create",
        resource="resourcequotas",
        body={**quota, "status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}},
    )
    await cluster.client.merge_patch(
        type(PODS)("", "v1", "ResourceQuota", "resourcequotas"),
        {"status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}},
        name="none",
        namespace=cluster.namespace,
        field_manager="test",
        subresource="status",
    )
    await cluster.job()
    queued = await cluster.condition("Queued", "True", reason="RequestRefused")
    assert "exceeded quota" in queued["message"]

    async def nothing() -> bool:
        return await cluster.pods() == {}

    await until(nothing, what="no half gang stays")
