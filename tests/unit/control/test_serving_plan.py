"""Which model a service serves, how many replicas it asks for, and what is said while they have no place."""

from __future__ import annotations

import copy

import pytest

from datahall.control import times
from datahall.control.serving.plan import Answers, model_claims
from tests.unit.control.serving_world import AGAIN, NO_QUOTA, NO_ROOM, OUTPUT, TRAINED, World, job, serving
from tests.unit.control.world import DIGEST, START


@pytest.mark.parametrize(
    ("trained", "reason", "sentence"),
    [
        (None, "TrainingJobNotFound", "TrainingJob digits does not exist in this namespace"),
        (job(), "WaitingForTrainingJob", "TrainingJob digits is Pending"),
        (job(state="Running"), "WaitingForTrainingJob", "TrainingJob digits is Running"),
        (job(state="Failed", message="no such file"), "TrainingJobFailed", "failed: no such file"),
        (job(state="Succeeded"), "NoTrainedModel", "TrainingJob digits left no output"),
    ],
    ids=["absent", "pending", "running", "failed", "no output"],
)
def test_without_a_model_nothing_is_made_and_the_status_says_why(trained, reason, sentence):
    world = World()
    world.job = trained
    world.settle()
    assert world.applied == {}
    assert world.condition("Ready") == world.condition("ModelReady") == ("False", reason)
    assert sentence in world.message("Ready")
    hopeless = reason in ("TrainingJobFailed", "NoTrainedModel")
    stalled = {c.type for c in world.status.conditions if c.status == "True"}
    assert ("Stalled" in stalled) == hopeless
    assert world.status.state == ("Stalled" if hopeless else "WaitingForModel")
    assert world.news == [reason]


def test_a_job_that_is_trained_at_last_ends_the_stall():
    world = World()
    world.job = job(state="Failed")
    world.settle()
    world.job = TRAINED
    world.settle()
    assert world.condition("Stalled") == ("False", "NotStalled")
    assert world.condition("ModelReady") == ("True", "ModelPinned")


def test_the_trained_model_is_pinned_by_digest():
    world = World()
    world.settle()
    pinned = world.status.model
    assert (pinned.uri, pinned.digest, pinned.job_uid) == (OUTPUT["uri"], DIGEST, "job-1")
    assert world.config()["model"] == OUTPUT
    assert set(world.applied) == {"Service", "Deployment", "PodDisruptionBudget"}
    assert world.applied["Deployment"]["spec"]["replicas"] == 2


def test_the_name_to_talk_to_is_told_before_anything_runs():
    world = World()
    world.job = None
    world.settle()
    assert world.status.url == "http://digits.team-a.svc"
    assert world.status.selector == "datahall.dev/inference-service=digits"


def test_a_retrained_job_is_followed():
    world = serving()
    world.job = job(state="Running", uid="job-2")
    world.settle()
    assert world.config()["model"] == OUTPUT, "a run under way changes nothing"
    assert world.condition("Ready") == ("True", "Serving")
    world.job = job(state="Succeeded", output=AGAIN, uid="job-2")
    world.look()
    assert world.config()["model"] == AGAIN
    assert (world.status.model.digest, world.status.model.job_uid) == (AGAIN["digest"], "job-2")


@pytest.mark.parametrize("trained", [None, job(state="Failed"), job(state="Succeeded"), job(state="Queued")])
def test_trouble_upstream_stops_no_service(trained):
    world = serving()
    world.job = trained
    world.settle()
    assert world.config()["model"] == OUTPUT
    assert world.condition("Ready") == ("True", "Serving")
    assert world.status.model.digest == DIGEST


def test_another_source_is_not_served_with_the_old_model():
    world = serving()
    world.edit(model={"fromTrainingJob": {"name": "letters"}})
    world.job = None
    world.settle()
    assert world.status.model is None
    assert world.condition("Ready") == ("False", "TrainingJobNotFound")
    assert world.config()["model"] == OUTPUT, "what runs goes on until there is something better"


@pytest.mark.parametrize("digest", [None, DIGEST])
def test_a_uri_is_served_as_it_is(digest):
    model = {"uri": "pvc://models/mine"} | ({"digest": digest} if digest else {})
    world = World(model=model)
    world.job = None
    world.settle()
    assert world.config()["model"] == {"uri": "pvc://models/mine", "digest": digest}
    assert world.condition("ModelReady") == ("True", "ModelPinned")


def test_a_missing_claim_is_named():
    world = World()
    world.seen["missing_claims"] = ("models",)
    world.settle()
    assert world.condition("Ready") == ("False", "ClaimNotFound")
    assert world.message("Ready") == 'PersistentVolumeClaim "models" does not exist in namespace team-a'
    assert world.applied == {}
    world.seen.clear()
    world.settle()
    assert "Deployment" in world.applied


def test_the_claims_that_are_asked_for_are_those_of_the_model():
    fresh = World().service
    assert model_claims(fresh, None) == ()
    assert model_claims(fresh, job(state="Running")) == ()
    assert model_claims(fresh, TRAINED) == ("models",)
    assert model_claims(serving().service, None) == ("models",), "the pinned one's, when the job is gone"
    assert model_claims(World(model={"uri": "pvc://mine/x"}).service, None) == ("mine",)


@pytest.mark.parametrize(
    ("seen", "reason", "sentence"),
    [
        ({"queue_exists": False}, "QueueNotFound", "Queue team-a does not exist"),
        ({"queue_allows": False}, "QueueForbidden", "Queue team-a does not serve namespace team-a"),
    ],
)
def test_without_a_queue_nothing_is_made(seen, reason, sentence):
    world = World()
    world.seen = seen
    world.settle()
    assert world.applied == {}
    assert world.condition("Ready") == world.condition("GPUAvailable") == ("False", reason)
    assert world.message("Ready") == sentence
    assert world.status.state == "Queued"


def test_a_queue_that_goes_takes_no_replica_with_it():
    world = serving()
    before = copy.deepcopy(world.applied)
    world.seen["queue_exists"] = False
    world.edit(replicas={"min": 5})
    world.settle()
    assert world.applied == before
    assert world.condition("Ready") == ("False", "QueueNotFound")


@pytest.mark.parametrize(("gpus", "asked"), [(0, 3), (2, 3), (2, 0)])
def test_as_many_replicas_are_asked_for_as_the_spec_says_and_every_one_waits_for_its_place(gpus, asked):
    world = World(resources={"gpus": gpus}, replicas={"min": asked})
    world.look()
    deployment = world.applied["Deployment"]["spec"]
    assert deployment["replicas"] == asked
    assert deployment["template"]["spec"]["schedulingGates"] == [{"name": "datahall.dev/placement"}]


def test_replicas_that_wait_say_what_the_planner_says():
    world = World(resources={"gpus": 2}, replicas={"min": 3})
    world.settle()
    assert world.condition("GPUAvailable") == ("Unknown", "ReplicasStarting"), (
        "there is no pod to ask for yet"
    )
    world.pod("r-1", ready=True, gpus=2)
    world.gated("r-2", gpus=2, why=NO_QUOTA)
    world.gated("r-3", gpus=2, why=NO_ROOM)
    world.controller(updated=3, ready=1)
    world.settle()
    text = f"2 replicas wait: {NO_QUOTA.message}"
    assert world.condition("GPUAvailable") == world.condition("Ready") == ("False", "QuotaExceeded")
    assert world.message("GPUAvailable") == world.message("Ready") == text
    assert world.status.state == "Queued"
    assert world.news == ["ReplicasStarting", "QuotaExceeded"]


def test_replicas_without_gpus_wait_for_room_and_say_so():
    world = World(replicas={"min": 2})
    world.settle()
    world.pod("r-1", ready=True)
    world.gated("r-2", why=NO_ROOM)
    world.controller(updated=2, ready=1)
    world.settle()
    assert world.condition("GPUAvailable") == ("True", "NoGPUsRequested")
    assert world.condition("Ready") == world.condition("ReplicasReady") == ("False", "NoRoom")
    assert world.message("Ready") == f"1 replica waits: {NO_ROOM.message}"
    assert world.status.state == "Progressing"


def test_a_replica_that_has_its_place_is_pinned_and_let_go_in_one_write():
    world = World(resources={"gpus": 1, "gpuModels": ["H100", "A100"]}, replicas={"min": 1})
    world.settle()
    template = world.applied["Deployment"]["spec"]["template"]["spec"]
    world.gated("r-1", gpus=1, node="node-7")
    world.pods["r-1"]["spec"]["affinity"] = template["affinity"]
    (patch,) = world.look().actions
    assert patch.body["metadata"]["resourceVersion"] == "1"
    (view,) = world.views()
    assert (view.node, view.gates, view.placed_at) == ("node-7", (), times.to_text(START))
    terms = world.pods["r-1"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = terms["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    models = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["H100", "A100"]}
    pin = {"key": "metadata.name", "operator": "In", "values": ["node-7"]}
    assert term == {"matchExpressions": [models], "matchFields": [pin]}
    world.settle()
    assert world.condition("GPUAvailable") == ("True", "GPUsReserved")


def test_a_replica_that_its_node_does_not_take_is_made_anew():
    world = serving(gpus=1)
    world.pod("r-3", gpus=1, phase="Pending")
    world.seen["answers"] = Answers(refused={"r-3": "node node-0: 0/8 nodes"}, look_again_seconds=31.0)
    made = world.look()
    assert [(action.name, action.uid) for action in made.actions] == [("r-3", "r-3")]
    assert (made.announcements[0].reason, made.announcements[0].message) == (
        "PlaceRefused",
        "r-3: node node-0: 0/8 nodes; another is made",
    )
    assert made.look_again_seconds == 31.0
    assert world.plan().actions == ()


def test_a_replica_without_a_node_says_what_the_scheduler_says():
    world = World(resources={"gpus": 1}, replicas={"min": 1})
    world.settle()
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/8 nodes"}
    world.pod("r-1", gpus=1, phase="Pending", conditions=[scheduled])
    del world.pods["r-1"]["spec"]["nodeName"]
    world.settle()
    assert world.condition("Ready") == ("False", "NoRoom")
    assert world.message("Ready") == "r-1: 0/8 nodes"
