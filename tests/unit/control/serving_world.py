"""One service in memory: a test plays Deployment controller, kubelet and everybody else."""

from __future__ import annotations

import copy
import json
from typing import Any

from datahall.api.inferenceservice import InferenceService
from datahall.api.reasons import Reason
from datahall.api.trainingjob import TrainingJob
from datahall.control import times
from datahall.control.actions import Apply, Delete, Patch, Plan
from datahall.control.child_views import DeploymentView, deployment_view
from datahall.control.serving import objects
from datahall.control.serving.plan import Answers, Seen, plan
from datahall.control.training.seen import Waiting
from datahall.control.views import PodView, pod_view
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


NO_QUOTA = Waiting(Reason.QUOTA_EXCEEDED, "needs 2 GPUs; queue team-a has 1 of 5 GPUs of quota left")

NO_ROOM = Waiting(Reason.NO_ROOM, "needs 2 GPUs on one node; the best has 1")
