"""A service's plans against a world in memory: which model, how many replicas, and when it may call itself Ready."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from datahall.api.inferenceservice import InferenceService
from datahall.api.reasons import Reason
from datahall.api.trainingjob import TrainingJob
from datahall.control import times
from datahall.control.actions import Apply, Delete, Patch, Plan
from datahall.control.child_views import DeploymentView, deployment_view
from datahall.control.serving import objects
from datahall.control.serving.plan import Answers, Seen, model_claims, plan
from datahall.control.training.seen import Waiting
from datahall.control.views import PodView, pod_view
from datahall.kube.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, SERVICES
from tests.unit.control.world import DIGEST, SETTINGS, START, job_body, merged

Json = dict[str, Any]

OUTPUT = {"uri": "pvc://models/digits/versions/0123456789abcdef", "digest": DIGEST}
AGAIN = {"uri": "pvc://models/digits/versions/fedcba9876543210", "digest": "sha256:" + "fedcba9876543210" * 4}
FROM_JOB = {"fromTrainingJob": {"name": "digits"}}


def job(*, state: str = "", output: Json | None = None, message: str = "", uid: str = "job-1") -> TrainingJob:
    body = job_body()
    body["metadata"]["uid"] = uid
    conditions = [
        {
            "type": state,
            "status": "True",
            "reason": "X",
            "message": message,
            "lastTransitionTime": times.to_text(START),
        }
    ]
    body["status"] = {"state": state or None, "conditions": conditions if state else []}
    if output:
        body["status"]["output"] = output
    return TrainingJob.from_json(body)


TRAINED = job(state="Succeeded", output=OUTPUT)


class World:
    """One service; what it applies is stored, and a test plays Deployment controller, kubelet and everybody else."""

    def __init__(self, **spec: Any) -> None:
        whole = {"queue": "team-a", "model": FROM_JOB, "replicas": {"min": 2}, **spec}
        self.raw: Json = {
            "metadata": {"name": "digits", "namespace": "team-a", "uid": "svc-1", "generation": 1},
            "spec": whole,
        }
        self.raw["metadata"] |= {"resourceVersion": "1", "creationTimestamp": times.to_text(START)}
        self.job: TrainingJob | None = TRAINED
        self.applied: dict[str, Json] = {}
        self.status_of_deployment: Json = {}
        self.pods: dict[str, Json] = {}
        self.seen: Json = {}
        self.news: list[str] = []

    @property
    def service(self) -> InferenceService:
        return InferenceService.from_json(self.raw)

    @property
    def status(self) -> Any:
        return self.service.status

    def deployment(self) -> DeploymentView | None:
        body = self.applied.get("Deployment")
        return deployment_view({**body, "status": self.status_of_deployment}) if body else None

    def views(self) -> tuple[PodView, ...]:
        return tuple(pod_view(raw) for raw in self.pods.values())

    def plan(self) -> Plan:
        hashes = [self.applied.get(kind) for kind in ("Service", "PodDisruptionBudget")]
        options: Json = {
            "service": self.service,
            "job": self.job,
            "deployment": self.deployment(),
            "applied": tuple(objects.spec_hash(body) if body else "" for body in hashes),
            "pods": self.views(),
            "now": START,
        }
        return plan(Seen(**(options | self.seen)), SETTINGS)

    def look(self) -> Plan:
        made = self.plan()
        if made.status is not None:
            self.raw["status"] = made.status
        for action in made.actions:
            if isinstance(action, Patch):
                self.pods[action.name] = merged(self.pods[action.name], action.body)
                continue
            if isinstance(action, Delete):
                del self.pods[action.name]
                continue
            assert isinstance(action, Apply)
            old = self.applied.get(action.resource.kind)
            body = copy.deepcopy(action.body)
            grown = old is None or old["spec"] != body["spec"]
            generation = old["metadata"]["generation"] + grown if old else 1
            body["metadata"] |= {"uid": "d", "resourceVersion": "1", "generation": generation}
            self.applied[action.resource.kind] = body
        self.news += [str(news.reason) for news in made.announcements]
        return made

    def settle(self) -> None:
        for _ in range(6):
            made = self.look()
            if made.status is None and not made.actions:
                return
        raise AssertionError(f"no rest: {json.dumps(self.raw, indent=1)}")

    def edit(self, **spec: Any) -> None:
        self.raw["spec"] |= spec
        self.raw["metadata"]["generation"] += 1

    def pod(self, name: str, *, ready: bool = False, gpus: int = 0, **status: Any) -> None:
        requests = {"resources": {"requests": {"nvidia.com/gpu": str(gpus)}}} if gpus else {}
        state = {"running": {}} if ready else {}
        self.pods[name] = merged(
            {
                "metadata": {
                    "name": name,
                    "namespace": "team-a",
                    "uid": name,
                    "resourceVersion": "1",
                    "creationTimestamp": times.to_text(START),
                },
                "spec": {"nodeName": "node-0", "containers": [{"name": "server", **requests}]},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                    "containerStatuses": [{"name": "server", "state": state, "restartCount": 0}],
                },
            },
            {"status": status},
        )

    def gated(self, name: str, *, gpus: int = 0, why: Waiting | None = None, node: str = "") -> None:
        """A replica that is new: the planner has it wait, has found it a node, or has not answered yet."""
        self.pod(name, gpus=gpus, phase="Pending")
        del self.pods[name]["spec"]["nodeName"]
        self.pods[name]["spec"]["schedulingGates"] = [{"name": "datahall.dev/placement"}]
        answers = self.seen.get("answers", Answers())
        waits = {uid: told for uid, told in answers.waits.items() if uid != name}
        places = {uid: place for uid, place in answers.places.items() if uid != name}
        self.seen["answers"] = Answers(
            waits=waits | ({name: why} if why else {}), places=places | ({name: node} if node else {})
        )

    def controller(self, *, updated: int, ready: int, replicas: int | None = None) -> None:
        """What the Deployment's controller says of it."""
        self.status_of_deployment = {
            "observedGeneration": self.applied["Deployment"]["metadata"]["generation"],
            "replicas": updated if replicas is None else replicas,
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
        }

    def condition(self, type_: str) -> tuple[str, str]:
        found = next(c for c in self.status.conditions if c.type == type_)
        return found.status, found.reason

    def message(self, type_: str) -> str:
        return next(c.message for c in self.status.conditions if c.type == type_)

    def config(self) -> Json:
        container = self.applied["Deployment"]["spec"]["template"]["spec"]["containers"][0]
        return json.loads(next(e["value"] for e in container["env"] if e["name"] == "DATAHALL_SERVER_CONFIG"))


def serving(*, gpus: int = 0, **spec: Any) -> World:
    """A world whose service is Ready with its two replicas."""
    world = World(**({"resources": {"gpus": gpus}} if gpus else {}), **spec)
    world.settle()
    world.pod("r-1", ready=True, gpus=gpus)
    world.pod("r-2", ready=True, gpus=gpus)
    world.controller(updated=2, ready=2)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("False", "UpToDate")
    return world


# ---- which model


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


# ---- GPUs


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


NO_QUOTA = Waiting(Reason.QUOTA_EXCEEDED, "needs 2 GPUs; queue team-a has 1 of 5 GPUs of quota left")
NO_ROOM = Waiting(Reason.NO_ROOM, "needs 2 GPUs on one node; the best has 1")


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


# ---- how Ready it is


def test_replicas_are_ready_when_all_of_them_are():
    world = World()
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicasStarting")
    world.pod("r-1", ready=True)
    world.pod("r-2")
    world.controller(updated=2, ready=1)
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicasStarting")
    assert world.message("Ready") == "1 of 2 replicas are ready"
    assert world.condition("Reconciling")[0] == "True"
    world.pod("r-2", ready=True)
    world.settle()
    assert world.condition("Ready")[0] == "False", "the Deployment's controller does not say so yet"
    world.controller(updated=2, ready=2)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert (world.status.replicas, world.status.ready_replicas, world.status.updated_replicas) == (2, 2, 2)
    assert world.status.state == "Ready"
    assert world.news == ["ReplicasStarting", "Serving"]


CRASH = {"exitCode": 1, "reason": "Error", "message": "Traceback\nValueError: no labels"}
BAD_MODEL = {
    "exitCode": 65,
    "reason": "Error",
    "message": json.dumps(
        {"result": "Failed", "cause": "BadInput", "message": "model.uri: no manifest.json"}
    ),
}
OOM = {"exitCode": 137, "reason": "OOMKilled"}


@pytest.mark.parametrize(
    ("state", "ended", "cause", "sentence"),
    [
        ({"waiting": {"reason": "CrashLoopBackOff"}}, CRASH, "UserCode", "exit code 1"),
        ({"running": {}}, CRASH, "UserCode", "exit code 1"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, BAD_MODEL, "BadInput", "model.uri: no manifest.json"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, OOM, "OutOfMemory", "killed for memory"),
        (
            {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}},
            None,
            "ImagePull",
            "no such tag",
        ),
        ({"waiting": {"reason": "ErrImageNeverPull", "message": "absent"}}, None, "ImagePull", "absent"),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": "x"}},
            None,
            "ImagePull",
            "ConfigError",
        ),
    ],
    ids=["back-off", "between", "bad model", "memory", "pull", "never pull", "config"],
)
def test_never_ready_while_a_replica_ends_again_and_again(state, ended, cause, sentence):
    world = serving()
    container = {"state": state, "restartCount": 3} | ({"lastState": {"terminated": ended}} if ended else {})
    world.pod("r-3", containerStatuses=[container])
    # Whatever the controller says of numbers: enough old replicas may be ready.
    world.controller(updated=2, ready=2)
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicaFailing")
    assert (world.status.failure.pod, world.status.failure.cause) == ("r-3", cause)
    assert sentence in world.status.failure.message
    assert "r-3" in world.message("Ready")
    assert sentence in world.message("Ready")


def test_the_log_of_a_failing_replica_is_told():
    world = serving()
    world.pod("r-3", containerStatuses=[{"state": {}, "restartCount": 1, "lastState": {"terminated": CRASH}}])
    world.settle()
    assert world.status.failure.last_log_lines == ("Traceback", "ValueError: no labels")
    assert world.status.failure.exit_code == 1
    del world.pods["r-3"]
    world.settle()
    assert world.status.failure is None
    assert world.condition("Ready") == ("True", "Serving")


def test_a_replica_that_was_restarted_long_ago_and_serves_is_no_failure():
    world = serving()
    world.pod("r-2", ready=True)
    world.pods["r-2"]["status"]["containerStatuses"][0] |= {
        "restartCount": 4,
        "lastState": {"terminated": CRASH},
    }
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_an_evicted_replica_that_was_replaced_is_no_failure():
    world = serving()
    # The kubelet ended it (node pressure, shutdown); its object stays until somebody sweeps it away.
    ended = {"terminated": {"exitCode": 137, "reason": "Error"}}
    world.pod("r-0", phase="Failed", reason="Evicted", containerStatuses=[{"state": ended}])
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert (world.status.replicas, world.status.failure) == (2, None)


def test_a_replica_that_leaves_is_not_counted():
    world = serving()
    world.pods["r-1"]["metadata"]["deletionTimestamp"] = times.to_text(START)
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicasStarting")
    assert (world.status.replicas, world.status.ready_replicas) == (1, 1)


def test_scaled_to_zero_is_as_asked():
    world = serving()
    world.edit(replicas={"min": 0})
    world.look()
    assert world.applied["Deployment"]["spec"]["replicas"] == 0
    world.controller(updated=0, ready=0, replicas=0)
    world.settle()
    assert world.condition("Ready")[0] == "False", "replicas are still there"
    world.pods.clear()
    world.settle()
    assert world.condition("Ready") == ("True", "ScaledToZero")
    assert world.condition("Reconciling")[0] == "False"


def rolling(*, gpus: int = 0, updated: int = 1, ready: int = 2) -> World:
    """A service that was Ready and rolls over to another model: three pods, so many of them new and ready."""
    world = serving(gpus=gpus)
    world.job = job(state="Succeeded", output=AGAIN, uid="job-2")
    world.settle()
    world.pod("s-1", ready=ready > 2, gpus=gpus)
    world.controller(updated=updated, ready=ready, replicas=3)
    return world


def test_a_roll_out_stays_ready_while_enough_replicas_answer_and_says_how_far_it_is():
    world = serving()
    world.job = job(state="Succeeded", output=AGAIN, uid="job-2")
    world.settle()
    for updated, ready, gone in ((0, 2, None), (1, 3, None), (1, 2, "r-1"), (2, 3, None)):
        if updated:
            world.pod(f"s-{updated}", ready=True)
            world.pods.pop(gone, None)
            world.controller(updated=updated, ready=ready, replicas=3)
            world.settle()
        text = f"{updated} of 2 replicas run the present version, {ready} are available"
        assert world.condition("Ready") == ("True", "Serving")
        assert world.condition("ReplicasReady") == ("True", "RollingOut")
        assert world.condition("Reconciling") == ("True", "RollingOut")
        assert world.message("Ready") == world.message("Reconciling") == text
        assert world.status.updated_replicas == updated
        assert world.status.state == "Ready"
    del world.pods["r-2"]
    world.controller(updated=2, ready=2)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("False", "UpToDate")
    assert world.news == ["ReplicasStarting", "Serving"]


def test_a_roll_out_is_not_ready_once_fewer_than_asked_for_answer():
    world = rolling()
    world.pod("r-2")
    world.settle()
    assert world.condition("Ready") == ("False", "RollingOut")
    assert world.message("Ready") == "1 of 2 replicas run the present version, 1 are available"
    world.pod("r-2", ready=True)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_roll_out_is_not_ready_while_the_new_version_ends_again_and_again():
    world = rolling()
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    ended = {"state": waiting, "restartCount": 2, "lastState": {"terminated": BAD_MODEL}}
    world.pod("s-1", containerStatuses=[ended])
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicaFailing")
    assert "model.uri: no manifest.json" in world.message("Ready")


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("why", [NO_ROOM, NO_QUOTA])
def test_a_roll_out_without_room_for_one_more_stays_ready_and_says_so(gpus, why):
    world = rolling(gpus=gpus)
    world.gated("s-1", gpus=gpus, why=why)
    world.settle()
    assert world.condition("GPUAvailable")[0] == ("False" if gpus else "True")
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("True", str(why.reason))
    updated = "1 of 2 replicas run the present version, 2 are available"
    between = "; the next has no room: " if gpus else "; "
    assert world.message("Reconciling") == f"{updated}{between}1 replica waits: {why.message}"
    world.pod("r-2", gpus=gpus)
    world.settle()
    assert world.condition("Ready") == ("False", str(why.reason))


def test_a_roll_out_waits_for_no_replica_that_has_no_place_itself():
    def may_be_missing() -> int:
        strategy = world.applied["Deployment"]["spec"]["strategy"]
        assert strategy["rollingUpdate"]["maxSurge"] == 1
        return strategy["rollingUpdate"]["maxUnavailable"]

    world = serving(gpus=1)
    world.edit(replicas={"min": 3})
    world.gated("r-3", gpus=1, why=NO_QUOTA)
    world.controller(updated=3, ready=2, replicas=3)
    world.settle()
    assert may_be_missing() == 0, "nothing is replaced"
    world.edit(timeoutSeconds=20)
    world.settle()
    world.gated("s-1", gpus=1, why=NO_QUOTA)
    world.controller(updated=1, ready=2, replicas=4)
    world.settle()
    assert may_be_missing() == 1, "the two that answer go on answering, and the third is replaced first"
    world.pod("s-1", gpus=1, ready=True)
    world.seen["answers"] = Answers(waits={"r-3": NO_QUOTA}, one_too_many="s-1")
    world.controller(updated=1, ready=3, replicas=4)
    world.settle()
    assert may_be_missing() == 1, "three answer now, and the queue pays for two"
    world.pods["r-1"]["metadata"]["deletionTimestamp"] = times.to_text(START)
    world.settle()
    assert may_be_missing() == 1, "it counts until it is gone: else r-2 would go, too"
    world.pod("s-2", gpus=1, ready=True)
    world.seen["answers"] = Answers()
    world.controller(updated=2, ready=4, replicas=4)
    world.settle()
    assert may_be_missing() == 0


def test_a_roll_out_that_is_refused_stays_ready_and_says_so():
    world = serving()
    world.edit(timeoutSeconds=20)
    world.seen["refusal"] = "deployments.apps: exceeded quota"
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("True", "RequestRefused")
    assert "exceeded quota" in world.message("Reconciling")


def test_more_replicas_are_not_ready_before_they_answer():
    world = serving()
    world.edit(replicas={"min": 3})
    world.settle()
    assert world.condition("Ready")[0] == "False"
    world.pod("r-3", ready=True)
    world.controller(updated=3, ready=3)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_restart_by_somebody_else_leaves_it_ready_while_all_answer():
    world = serving()
    world.applied["Deployment"]["metadata"]["generation"] += 1  # kubectl rollout restart
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("True", "RollingOut")
    world.pod("r-2")
    world.settle()
    assert world.condition("Ready") == ("False", "RollingOut")


# ---- what is written


def test_a_second_look_at_what_is_settled_writes_nothing():
    world = serving()
    made = world.plan()
    assert (made.status, made.actions, made.announcements, made.look_again_seconds) == (None, (), (), None)


@pytest.mark.parametrize("kind", ["Service", "Deployment", "PodDisruptionBudget"])
def test_a_child_that_somebody_deleted_is_made_again(kind):
    world = serving()
    del world.applied[kind]
    made = world.plan()
    assert [action.resource.kind for action in made.actions] == [kind]


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget"])
def test_writing_what_is_no_replica_does_not_make_it_unready(kind):
    world = serving()
    world.applied[kind]["metadata"]["annotations"] = {"datahall.dev/applied": "of another version"}
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.news == ["ReplicasStarting", "Serving"]


def test_a_deployment_scaled_by_hand_is_scaled_back():
    world = serving()
    world.applied["Deployment"]["spec"]["replicas"] = 7
    made = world.plan()
    assert [action.resource for action in made.actions] == [DEPLOYMENTS]
    assert made.actions[0].body["spec"]["replicas"] == 2


def test_the_service_comes_first_so_that_its_name_is_there_early():
    made = World().plan()
    kinds = [action.resource for action in made.actions]
    assert kinds == [SERVICES, DEPLOYMENTS, POD_DISRUPTION_BUDGETS]


def test_children_go_with_their_service_and_are_found_by_its_label():
    for action in World().plan().actions:
        metadata = action.body["metadata"]
        assert metadata["ownerReferences"][0]["uid"] == "svc-1"
        assert metadata["labels"]["datahall.dev/inference-service"] == "digits"
        assert (metadata["name"], metadata["namespace"]) == ("digits", "team-a")


def test_a_service_that_is_being_deleted_is_left_alone():
    world = serving()
    world.seen["deleting"] = True
    world.edit(replicas={"min": 9})
    assert world.plan() == Plan()


def test_every_look_says_which_spec_it_speaks_of():
    world = serving()
    world.edit(timeoutSeconds=20)
    world.settle()
    assert world.status.observed_generation == 2
    assert {c.observed_generation for c in world.status.conditions} == {2}
