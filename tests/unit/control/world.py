"""A world of one TrainingJob in memory: plans are carried out on it, and tests play user, planner, kubelet and clock.

Everything goes through the real projections (`pod_view`, `TrainingJob.from_json`) and the real merge patch, so what a
test sees is what the API server would hold.
"""

from __future__ import annotations

import copy
import datetime
import itertools
import json
from typing import Any

from datahall.api.trainingjob import Placement, TrainingJob
from datahall.control import labels, times
from datahall.control.actions import Create, Delete, Plan
from datahall.control.claims import Claims
from datahall.control.executor import difference
from datahall.control.settings import Settings
from datahall.control.training import plan as training
from datahall.control.training.obstacles import obstacle
from datahall.control.training.pods import worker_pod
from datahall.control.training.seen import LeftBehind
from datahall.control.views import PodView, pod_view
from datahall.kube.resources import PODS, SERVICES, TRAINING_JOBS

Json = dict[str, Any]

START = datetime.datetime(2026, 11, 22, 16, 0, tzinfo=datetime.UTC)
DIGEST = "sha256:" + "0123456789abcdef" * 4
UID = "6f0c1a1e-8f0e-4a53-9d4e-3b1f6a1c2d3e"
SETTINGS = Settings.from_environment(
    {"POD_NAME": "operator-0", "DATAHALL_REPORT_URL": "http://operator:8080"}
)

PROGRESS = {
    "step": 120,
    "totalSteps": 625,
    "epoch": 1,
    "epochs": 5,
    "samplesPerSecond": 410.2,
    "etaSeconds": 77,
    "device": "cpu",
    "metrics": {"loss": 0.21, "validation_accuracy": 0.962},
}
SUCCEEDED = {
    "result": "Succeeded",
    "output": {"uri": "pvc://models/digits/versions/0123456789abcdef", "digest": DIGEST},
    "progress": {**PROGRESS, "step": 625},
    "checkpoint": {"step": 600, "uri": "pvc://models/digits/.checkpoints/u/step-00000600", "bytes": 9},
}


def failed(cause: str, message: str, *lines: str) -> Json:
    """A termination message of the trainer."""
    return {"result": "Failed", "cause": cause, "message": message, "lastLogLines": list(lines)}


def job_body(*, workers: int = 2, **spec: Any) -> Json:
    """A TrainingJob as the API server stores it; `spec` replaces or (with None) removes fields."""
    whole: Json = {
        "queue": "team-a",
        "task": "ImageClassification",
        "workers": {"count": workers},
        "resources": {"gpus": 1, "cpu": "4", "memory": "16Gi"},
        "model": {"architecture": "cnn"},
        "data": {"train": "pvc://data/digits", "validationFraction": 0.2},
        "training": {"epochs": 5, "batchSize": 64},
        "output": {"uri": "pvc://models/digits"},
    }
    whole = {key: value for key, value in (whole | spec).items() if value is not None}
    metadata = {
        "name": "digits",
        "namespace": "team-a",
        "uid": UID,
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": times.to_text(START),
    }
    return {
        "apiVersion": "datahall.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": metadata,
        "spec": whole,
    }


def custom(**spec: Any) -> Json:
    """The fields that make a job a Custom one."""
    return {
        "task": "Custom",
        "container": {"image": "team-a/trainer:1"},
        "model": None,
        "data": None,
        "training": None,
        "output": None,
        **spec,
    }


def merged(target: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7396, as its own appendix defines it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


class World:
    """One job, its pods, and everyone who acts on them."""

    def __init__(
        self, *, workers: int = 2, fewest: int | None = None, room: bool = True, **spec: Any
    ) -> None:
        self.now = START
        self.raw: Json | None = job_body(workers=workers, **spec)
        if fewest is not None:
            self.raw["spec"]["workers"]["min"] = fewest
        self.workers = workers
        self.pods: dict[str, Json] = {}
        self.room = room
        self.nodes = [f"node-{rank}" for rank in range(workers)]
        self.placed = workers
        self.waiting: training.Waiting | None = None
        self.eviction: training.Eviction | None = None
        self.claims = Claims()
        self.left_behind: LeftBehind | None = None
        self.report: training.Report | None = None
        self.refusal: training.Refusal | None = None
        self.lost: frozenset[str] = frozenset()
        self.unfit: frozenset[str] = frozenset()
        self.history: list[tuple[str, str]] = []
        self.news: list[tuple[str, str]] = []
        self.status_writes = 0
        self.deleting = False
        self._versions = itertools.count(2)
        self._uids = itertools.count(1)

    # ---- reading

    @property
    def job(self) -> TrainingJob:
        assert self.raw is not None
        return TrainingJob.from_json(self.raw)

    @property
    def status(self) -> Any:
        return self.job.status

    def views(self) -> tuple[PodView, ...]:
        return tuple(pod_view(raw) for raw in self.pods.values())

    def condition(self, type_: str) -> Any:
        return next((c for c in self.status.conditions if c.type == type_), None)

    def true(self) -> set[str]:
        """Types of the conditions that are True, without the two that are only for tools."""
        return {c.type for c in self.status.conditions if c.status == "True"} - {"Reconciling", "Stalled"}

    def names(self) -> list[str]:
        return sorted(self.pods)

    def created(self) -> list[str]:
        return [name for verb, name in self.history if verb == "create"]

    def seen(self) -> training.Seen:
        job, pods = self.job, self.views()
        in_the_way = obstacle(job, claims=self.claims, left_behind=self.left_behind, now=self.now)
        wanted = training.wants_admission(job, pods) and in_the_way is None and self.refusal is None
        places = tuple(Placement(rank=r, node=self.nodes[r], gpu_model="H100") for r in range(self.placed))
        room = self.room and not self.lost.intersection(
            self.nodes
        )  # the planner places nothing on a lost node
        return training.Seen(
            job=job,
            pods=pods,
            now=self.now,
            deleting=self.deleting,
            admitted=places if wanted and room else None,
            spread="on one rack" if wanted and room else "",
            waiting=self.waiting if wanted and not room else None,
            eviction=self.eviction if job.status.placement else None,
            claims=self.claims,
            left_behind=self.left_behind,
            report=self.report,
            refusal=self.refusal,
            lost_nodes=self.lost,
            unfit_nodes=self.unfit,
        )

    # ---- the operator

    def plan(self) -> Plan:
        return training.plan(self.seen(), SETTINGS)

    def look(self, *, crash_after: int | None = None) -> Plan:
        """One reconcile. With `crash_after`, only so many of its writes happen."""
        plan = self.plan()
        writes: list[Any] = [plan.status] if plan.status is not None else []
        writes += plan.actions
        for index, write in enumerate(writes):
            if crash_after is not None and index >= crash_after:
                return plan
            if isinstance(write, Create):
                self._create(write)
            elif isinstance(write, Delete):
                self._delete(write)
            else:
                assert index == 0
                self._write_status(write)
        self.news += [(str(a.reason), a.message) for a in plan.announcements]
        return plan

    def settle(self) -> Plan:
        """Look until a look changes nothing; pods that are being deleted go meanwhile."""
        for _ in range(20):
            before = copy.deepcopy((self.raw, self.pods))
            plan = self.look()
            self.reap()
            if self.raw is None or (self.raw, self.pods) == before:
                return plan
        raise AssertionError(f"no rest after 20 looks; status {json.dumps(self.raw, indent=1)}")

    def _write_status(self, after: Json) -> None:
        assert self.raw is not None
        before = self.job.status.to_json()
        self.raw["status"] = merged(self.raw.get("status", {}), difference(before, after))
        self.raw["metadata"]["resourceVersion"] = str(next(self._versions))
        self.status_writes += 1
        if not self.status.placement:
            self.eviction = None  # it is as good as carried out
        self.history.append(("status", after.get("state") or ""))

    def _create(self, action: Create) -> None:
        metadata = action.body["metadata"]
        if action.resource == SERVICES:
            assert metadata["ownerReferences"][0]["uid"] == UID
            return
        assert action.resource == PODS
        name = metadata["name"]
        assert not training.terminal(self.job), f"{name} created for a job that has ended"
        if name in self.pods:
            return
        generation = int(metadata["labels"][labels.GENERATION])
        older = [p.name for p in self.views() if p.generation < generation]
        assert not older, f"{name} created while {older} exist"
        assert generation == self.status.generation
        body = copy.deepcopy(action.body)
        body["metadata"] |= {
            "uid": f"pod-{next(self._uids)}",
            "resourceVersion": str(next(self._versions)),
            "creationTimestamp": times.to_text(self.now),
        }
        body["status"] = {"phase": "Pending"}
        self.pods[name] = body
        assert len(self.pods) <= self.placed
        self.history.append(("create", name))

    def _delete(self, action: Delete) -> None:
        if action.resource == TRAINING_JOBS:
            self.raw = None
            return
        raw = self.pods.get(action.name)
        if raw is None or raw["metadata"]["uid"] != action.uid:
            return
        self.history.append(("delete", action.name))
        if action.grace_seconds == 0:
            del self.pods[action.name]
        else:
            raw["metadata"].setdefault("deletionTimestamp", times.to_text(self.now))

    # ---- user and clock

    def edit(self, **spec: Any) -> None:
        assert self.raw is not None
        self.raw["spec"] |= spec
        self.raw["metadata"]["generation"] += 1

    def wait(self, seconds: float) -> None:
        self.now += datetime.timedelta(seconds=seconds)

    # ---- the kubelet

    def _pod(self, rank: int) -> Json:
        raw = self.pods[labels.worker_pod("digits", self.status.generation, rank)]
        raw["metadata"]["resourceVersion"] = str(next(self._versions))
        raw["spec"]["nodeName"] = self.nodes[rank]
        return raw

    def run(self, *ranks: int) -> None:
        for rank in ranks or range(self.placed):
            self._pod(rank)["status"] = {
                "phase": "Running",
                "containerStatuses": [{"state": {"running": {}}}],
            }

    def waits(self, rank: int, reason: str, message: str = "") -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        self._pod(rank)["status"] = {"phase": "Pending", "containerStatuses": [{"state": state}]}

    def end(
        self,
        rank: int,
        exit_code: int = 0,
        said: Json | str | None = None,
        *,
        reason: str = "",
        pod_reason: str = "",
        pod_message: str = "",
        disruption: str = "",
    ) -> None:
        """The container ends: exit code, termination message, and what the kubelet says to it."""
        terminated = {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "finishedAt": times.to_text(self.now),
            "message": said if isinstance(said, str) else json.dumps(said) if said else "",
        }
        status: Json = {
            "phase": "Succeeded" if exit_code == 0 else "Failed",
            "containerStatuses": [{"state": {"terminated": terminated}}],
            "reason": pod_reason,
            "message": pod_message,
        }
        if disruption:
            status["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": disruption}]
        self._pod(rank)["status"] = status

    def delete_pod(self, rank: int) -> None:
        """Somebody else deletes a pod; it leaves when `reap` is called."""
        self._pod(rank)["metadata"]["deletionTimestamp"] = times.to_text(self.now)

    def vanish(self, rank: int) -> None:
        """A pod is gone before anyone saw it go."""
        del self.pods[labels.worker_pod("digits", self.status.generation, rank)]

    def reap(self, *names: str) -> None:
        """Pods whose deletion was asked for are gone."""
        for name in names or list(self.pods):
            if "deletionTimestamp" in self.pods[name]["metadata"]:
                del self.pods[name]


def running(**options: Any) -> World:
    """A world whose gang runs."""
    world = World(**options)
    world.settle()
    world.run()
    world.settle()
    assert world.true() == {"Admitted", "Running"}
    return world


def worker(**over: Any) -> PodView:
    """One worker pod, Pending on its node, with raw fields over it."""
    job = TrainingJob.from_json(job_body())
    place = Placement(rank=0, node="node-0")
    raw = worker_pod(job, generation=1, place=place, workers=2, settings=SETTINGS)
    raw["metadata"] |= {"uid": "pod-1", "resourceVersion": "5", "creationTimestamp": times.to_text(START)}
    return pod_view(merged(raw, over))
