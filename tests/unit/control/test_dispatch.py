"""From a change to the keys that must be looked at: all of them, and not the whole world."""

from __future__ import annotations

from typing import Any

import pytest

from datahall.control.dispatch import (
    QUEUE_STATUS_AFTER_SECONDS,
    QUEUE_STATUS_EVERY_SECONDS,
    QUEUE_STATUS_LONGEST_SECONDS,
)
from tests.unit.control.hall import Hall

pytestmark = pytest.mark.looptime

Json = dict[str, Any]


def service(hall: Hall, name: str = "digits", *, follows: str = "digits", **spec: Any) -> Json:
    body = {
        "metadata": hall.meta(name),
        "spec": {"queue": "team-a", "model": {"fromTrainingJob": {"name": follows}}, **spec},
    }
    hall.tables.services.put(body)
    return body


def fresh(*, jobs: int = 0) -> Hall:
    hall = Hall()
    for number in range(jobs):
        hall.job(f"job-{number}")
    hall.queue_keys()
    return hall


async def test_a_job_and_later_its_queue():
    hall = fresh()
    hall.job()
    assert hall.queue._due
    assert hall.delayed_keys() == {("Queue", "team-a"): QUEUE_STATUS_AFTER_SECONDS}
    assert hall.queue_keys() == {("TrainingJob", "digits")}


@pytest.mark.parametrize(
    ("queues", "longest"),
    [
        pytest.param(1, QUEUE_STATUS_EVERY_SECONDS, id="one queue, soon again"),
        pytest.param(3, 3 * QUEUE_STATUS_EVERY_SECONDS, id="the more queues, the less often"),
        pytest.param(50, QUEUE_STATUS_LONGEST_SECONDS, id="but not for ever"),
    ],
)
async def test_where_numbers_never_rest_the_status_of_a_queue_follows_less_often(queues, longest):
    hall = Hall()
    for number in range(1, queues):
        hall.quota(name=f"other-{number}")
    hall.queue_keys()
    hall.dispatch.queue_told("team-a")
    hall.job()
    assert longest - 1 < hall.delayed_keys()["Queue", "team-a"] <= longest


async def test_the_services_that_follow_a_job_hear_of_it():
    hall = fresh()
    service(hall, "one")
    service(hall, "two")
    service(hall, "other", follows="letters")
    bare = {"metadata": hall.meta("bare"), "spec": {"queue": "team-a", "model": {"uri": "pvc://a/b"}}}
    hall.tables.services.put(bare)
    hall.queue_keys()
    job = hall.job()
    followers = {("InferenceService", "one"), ("InferenceService", "two")}
    assert hall.queue_keys() == {("TrainingJob", "digits")} | followers
    hall.delete_job(job)
    assert hall.queue_keys() == {("TrainingJob", "digits")} | followers


async def test_a_service_that_turns_to_another_job_follows_that_one():
    hall = fresh()
    body = service(hall)
    body["spec"]["model"] = {"fromTrainingJob": {"name": "letters"}}
    body["metadata"]["resourceVersion"] = "1000"
    hall.tables.services.put(body)
    hall.queue_keys()
    hall.job("digits")
    assert hall.queue_keys() == {("TrainingJob", "digits")}
    hall.job("letters")
    assert ("InferenceService", "digits") in hall.queue_keys()
    hall.tables.services.remove("team-a", "digits", body["metadata"]["uid"])
    hall.queue_keys()
    hall.delete_job(hall.job("letters"))
    assert ("InferenceService", "digits") not in hall.queue_keys()


async def test_a_worker_leads_to_its_job_and_to_nothing_else():
    hall = fresh(jobs=3)
    job = hall.job()
    hall.queue_keys()
    wakes = hall.wakes
    hall.worker(job)
    assert hall.queue_keys() == {("TrainingJob", "digits")}
    assert hall.wakes == wakes, "the gang accounts for it: the planner has nothing to do"


async def test_a_replica_leads_to_its_service_and_later_its_queue():
    hall = fresh()
    hall.pod("r", labels={"datahall.dev/inference-service": "digits", "datahall.dev/queue": "team-a"})
    assert ("Queue", "team-a") in hall.delayed_keys()
    assert hall.queue_keys() == {("InferenceService", "digits")}


async def test_a_foreign_pod_leads_to_no_object_of_ours():
    hall = fresh(jobs=3)
    hall.delete_pod(hall.pod("foreign", gpus=1))
    assert hall.queue_keys() == set()
    assert hall.wakes > 0


async def test_a_node_that_falters_leads_to_the_jobs_on_it():
    hall = fresh()
    here, there = hall.job("here"), hall.job("there")
    hall.node("node-1")
    hall.worker(here)
    hall.worker(there, node="node-1")
    hall.pod("foreign")
    hall.queue_keys()
    hall.node("node-0", status={"conditions": [{"type": "Ready", "status": "Unknown"}]})
    assert hall.queue_keys() == {("TrainingJob", "here")}
    hall.node("node-0", spec={"unschedulable": True})
    assert hall.queue_keys() == {("TrainingJob", "here")}
    hall.tables.nodes.remove("", "node-0", "node-node-0")
    assert hall.queue_keys() == {("TrainingJob", "here")}


async def test_a_nodes_heartbeat_is_no_news():
    hall = fresh()
    hall.worker(hall.job())
    hall.queue_keys()
    hall.node("node-0", status={"images": []})
    assert hall.queue_keys() == set()


async def test_a_claim_that_appears_leads_to_those_who_may_wait_for_it():
    hall = fresh()
    hall.job("waits")
    hall.job("runs", places=True)
    service(hall, "serves")
    elsewhere = hall.job("elsewhere")
    hall.delete_job(elsewhere)
    elsewhere["metadata"] |= {"namespace": "team-b", "uid": "other"}
    hall.tables.jobs.put(elsewhere)
    hall.queue_keys()
    claim = hall.claim("new")
    wanted = {("TrainingJob", "waits"), ("InferenceService", "serves")}
    assert hall.queue_keys() == wanted
    claim["metadata"]["resourceVersion"] = "1000"
    hall.tables.claims.put(claim)
    assert hall.queue_keys() == set(), "nothing of it has changed that matters"
    hall.tables.claims.remove("team-a", "new", claim["metadata"]["uid"])
    assert hall.queue_keys() == wanted


async def test_a_claim_that_is_bound_leads_to_those_who_wait_for_it():
    hall = fresh()
    claim = hall.claim("new", phase="Pending")
    hall.job("waits")
    hall.queue_keys()
    claim["metadata"]["resourceVersion"] = "1000"
    hall.tables.claims.put(claim | {"status": {"phase": "Bound"}})
    assert ("TrainingJob", "waits") in hall.queue_keys()


async def test_a_storage_class_leads_to_those_who_wait_for_a_claim_of_it():
    hall = fresh()
    hall.claim("new", phase="Pending", storage_class="fast")
    hall.job("waits")
    hall.queue_keys()
    hall.storage_class("slow")
    assert hall.queue_keys() == set()
    hall.storage_class("fast", "WaitForFirstConsumer")
    assert hall.queue_keys() == {("TrainingJob", "waits")}


@pytest.mark.parametrize(
    ("phase", "storage_class", "starts"),
    [("Bound", "at-once", True), ("Pending", "at-once", False), ("Pending", "with-pod", True)],
)
async def test_a_job_gets_a_place_once_its_claims_can_be_used(phase, storage_class, starts):
    hall = fresh()
    hall.storage_class("at-once", "Immediate")
    hall.storage_class("with-pod", "WaitForFirstConsumer")
    hall.claim("data", phase=phase, storage_class=storage_class)
    job = hall.job()
    hall.reconcilers.settle_all()
    hall.cycle()
    assert hall.admitted(job) is starts


async def test_a_job_waits_for_the_service_of_an_earlier_job_of_its_name_to_go():
    hall = fresh()
    job = hall.job(workers=2, gpus=1)
    owner = {"kind": "TrainingJob", "name": "digits", "uid": "earlier", "controller": True}
    labels = {"datahall.dev/training-job": "digits", "app.kubernetes.io/managed-by": "datahall"}
    service = {"metadata": hall.meta("digits-workers", labels=labels, ownerReferences=[owner])}
    hall.tables.endpoints.put(service)
    hall.reconcilers.settle_all()
    hall.cycle()
    assert hall.admitted(job) is False
    hall.queue_keys()
    hall.tables.endpoints.remove("team-a", "digits-workers", service["metadata"]["uid"])
    assert hall.queue_keys() == {("TrainingJob", "digits")}
    hall.reconcilers.settle_all()
    hall.cycle()
    assert hall.admitted(job) is True


async def test_a_changed_quota_leads_to_its_services_and_a_changed_status_does_not():
    hall = fresh()
    service(hall)
    service(hall, "other", queue="team-b")
    hall.queue_keys()
    hall.quota(nominal=4)
    assert hall.queue_keys() == {("Queue", "team-a"), ("InferenceService", "digits")}
    view = hall.tables.queues.get("", "team-a")
    body = {"metadata": hall.meta("team-a", "", "queue-team-a"), "spec": {"gpus": []}, "status": {}}
    body["metadata"]["generation"] = view.generation
    hall.tables.queues.put(body)
    assert hall.queue_keys() == set()


@pytest.mark.parametrize("kind", ["deployments", "endpoints", "budgets"])
async def test_a_child_leads_to_its_service(kind):
    hall = fresh()
    table = getattr(hall.tables, kind)
    table.put({"metadata": hall.meta("x", labels={"datahall.dev/inference-service": "digits"})})
    table.put({"metadata": hall.meta("y")})
    assert hall.queue_keys() == {("InferenceService", "digits")}


async def test_a_new_leader_looks_at_everything():
    hall = fresh(jobs=2)
    service(hall)
    hall.queue_keys()
    hall.dispatch.everything()
    assert hall.queue_keys() == {
        ("TrainingJob", "job-0"),
        ("TrainingJob", "job-1"),
        ("InferenceService", "digits"),
        ("Queue", "team-a"),
        ("Planner", ""),
    }


async def test_a_stored_job_that_cannot_be_understood_is_looked_at_all_the_same():
    hall = fresh()
    hall.job(task="Nonsense")
    assert ("TrainingJob", "digits") in hall.queue_keys()
