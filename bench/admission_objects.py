"""The objects of bench-admission as JSON, ready to be sent: nodes, queues, jobs, pods, and what a kubelet reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.admission_sets import JobClass, Nodes
from datahall.api.trainingjob import Placement, TrainingJob
from datahall.control import labels
from datahall.control.settings import Settings
from datahall.control.training.pods import worker_pod
from local_cluster.gpu_nodes import Layout, render

Json = dict[str, Any]

API = "datahall.dev/v1alpha1"


def nodes(of: Nodes) -> list[Json]:
    """Ready nodes with more CPU, memory and room for pods than their GPUs need: GPUs and quota are the limit."""
    layout = Layout(
        nodes=of.count,
        gpus_per_node=of.gpus,
        nodes_per_rack=of.per_rack,
        racks_per_block=of.racks_per_block,
    )
    made = [render(index, layout) for index in range(of.count)]
    for node in made:
        node["status"]["conditions"] = [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T15:00:00Z"}
        ]
    return made


def queue(name: str, *, nominal: int | None, parent: str | None = None, borrowing: int | None = None) -> Json:
    """A Queue; without `nominal` one that only holds others together. Nothing is safe from being taken back.

    Fields that the installed definition does not know are dropped by the API server: see `knows_borrowing`.
    """
    spec: Json = {"minimumRunSeconds": 0}
    if nominal is not None:
        quota: Json = {"model": "Any", "nominal": nominal}
        if borrowing is not None:
            quota["borrowingLimit"] = borrowing
        spec["gpus"] = [quota]
    if parent is not None:
        spec["parent"] = parent
    return {"apiVersion": API, "kind": "Queue", "metadata": {"name": name}, "spec": spec}


def knows(definition: Mapping[str, Any], *path: str) -> bool:
    """Whether a CustomResourceDefinition has a field, such as "spec", "parent"; lists are passed through."""
    at: Mapping[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for step in path:
        at = at.get("items", at)
        if step not in at.get("properties", {}):
            return False
        at = at["properties"][step]
    return True


def job(name: str, *, queue: str, of: JobClass) -> Json:
    """A TrainingJob of its queue's namespace."""
    spec: Json = {
        "queue": queue,
        "priority": of.priority,
        "workers": {"count": of.workers},
        "resources": {"gpus": of.gpus, "cpu": "10m", "memory": "16Mi"},
        "task": "Custom",
        "container": {"image": "bench:none", "command": ["true"]},
    }
    if of.topology is not None:
        spec["topology"] = dict(of.topology)
    return {
        "apiVersion": API,
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": queue},
        "spec": spec,
    }


_SETTINGS = Settings.from_environment({"POD_NAME": "bench"})


def loose_pods(name: str, *, queue: str, of: JobClass) -> list[Json]:
    """The pods that the operator would make for a job, with no owner and pinned to no node: for the control."""
    body = job(name, queue=queue, of=of)
    body["metadata"]["uid"] = "bench"
    body["spec"].pop("topology", None)
    parsed = TrainingJob.from_json(body)
    pods = []
    for rank in range(of.workers):
        place = Placement(rank=rank, node="")
        pod = worker_pod(parsed, generation=1, place=place, workers=of.workers, settings=_SETTINGS)
        del pod["metadata"]["ownerReferences"]
        del pod["spec"]["affinity"]
        pods.append(pod)
    return pods


def running(now: str) -> Json:
    """What a kubelet reports when the container of a worker has started."""
    return _status("Running", {"running": {"startedAt": now}}, ready="True", now=now)


def succeeded(now: str) -> Json:
    """What a kubelet reports when it has ended well. Of one that ends within a second this can be its first word."""
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
    return _status("Succeeded", {"terminated": ended}, ready="False", now=now)


def _status(phase: str, state: Json, *, ready: str, now: str) -> Json:
    alive = phase == "Running"
    container = {
        "name": "trainer",
        "image": "bench:none",
        "imageID": "",
        "ready": alive,
        "started": alive,
        "restartCount": 0,
        "state": state,
    }
    conditions = [
        {"type": kind, "status": ready, "lastTransitionTime": now} for kind in ("ContainersReady", "Ready")
    ]
    return {
        "status": {
            "phase": phase,
            "startTime": now,
            "conditions": conditions,
            "containerStatuses": [container],
        }
    }


def holds_place(status: Mapping[str, Any]) -> bool:
    """Whether a TrainingJob's status says that it has a place."""
    return bool(status.get("placement"))


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """A condition of a status, if it is there."""
    return next((one for one in status.get("conditions") or () if one["type"] == kind), None)


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition is there and True."""
    found = condition(status, kind)
    return found is not None and found["status"] == "True"


def gang_of(pod: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Namespace, job and generation of a worker's pod; None for any other pod."""
    metadata = pod["metadata"]
    found = metadata.get("labels") or {}
    if labels.TRAINING_JOB not in found:
        return None
    return metadata["namespace"], found[labels.TRAINING_JOB], found.get(labels.GENERATION, "")
