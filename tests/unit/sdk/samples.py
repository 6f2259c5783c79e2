"""Objects in every state that the tests of the SDK and of the CLI need."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
DIGEST = "sha256:" + "0123456789abcdef" * 4


def condition(
    type_: str, status: bool = True, reason: str = "", message: str = "", generation: int = 1
) -> Json:
    return {
        "type": type_,
        "status": "True" if status else "False",
        "reason": reason or type_,
        "message": message,
        "lastTransitionTime": "2026-11-22T15:00:00Z",
        "observedGeneration": generation,
    }


def job(name: str = "digits", namespace: str = "team-a", workers: int = 2, **status: Any) -> Json:
    body: Json = {
        "apiVersion": "datahall.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-11-22T15:00:00Z"},
        "spec": {
            "queue": "team-a",
            "workers": {"count": workers},
            "resources": {"gpus": 1, "gpuModels": ["H100"]},
            "task": "ImageClassification",
            "model": {"architecture": "cnn"},
            "data": {"train": "pvc://data/digits/train", "validationFraction": 0.2},
            "training": {"epochs": 5, "batchSize": 64},
            "output": {"uri": "pvc://models/digits"},
        },
    }
    if status:
        body["status"] = {"observedGeneration": 1, **status}
    return body


PROGRESS: Json = {
    "step": 120,
    "totalSteps": 625,
    "epoch": 1,
    "epochs": 5,
    "percent": 19,
    "etaSeconds": 77,
    "samplesPerSecond": 410.2,
    "device": "cpu",
    "metrics": {"loss": 0.2113, "validation_accuracy": 0.962},
    "time": "2026-11-22T15:03:00Z",
}
PLACEMENT: list[Json] = [
    {"rank": 0, "node": "gpu-node-1", "gpuModel": "H100"},
    {"rank": 1, "node": "gpu-node-2", "gpuModel": "H100"},
]
CHECKPOINT: Json = {
    "step": 100,
    "uri": "pvc://models/digits/.checkpoints/6f0c/step-00000100",
    "bytes": 1234567,
    "time": "2026-11-22T15:02:30Z",
}
FAILURE: Json = {
    "pod": "digits-g1-0",
    "node": "gpu-node-1",
    "rank": 0,
    "exitCode": 65,
    "cause": "BadInput",
    "message": "data.train: pvc://data/digits/train: no such directory",
    "lastLogLines": ["reading data", "no such directory"],
    "time": "2026-11-22T15:01:00Z",
    "generation": 1,
}
OUTPUT: Json = {
    "uri": "pvc://models/digits/versions/0123456789abcdef",
    "digest": DIGEST,
    "metrics": {"validation_accuracy": 0.987, "loss": 0.05},
}
WAITS = "needs 8 GPUs (H100), the queue has 3 of 16 left; job big holds 12"


def queued() -> Json:
    return {"state": "Queued", "conditions": [condition("Queued", reason="QuotaExceeded", message=WAITS)]}


def running(**more: Any) -> Json:
    return {
        "state": "Running",
        "conditions": [
            condition("Queued", False),
            condition("Admitted"),
            condition("Running", reason="GangRunning", message="2 of 2 workers run"),
        ],
        "generation": 1,
        "placement": PLACEMENT,
        "progress": PROGRESS,
        "restarts": {"counted": 0, "uncounted": 0},
        **more,
    }


BLOCKERS: list[Json] = [
    {
        "reason": "BorrowedAway",
        "message": "needs 2 x 8 GPUs (H100); that is within the 16 H100 GPUs of queue team-a (4 in use), and 8 H100 "
        "GPUs of it are there now: the rest is borrowed by team-b",
    },
    {"reason": "NoRoom", "message": "needs 2 x 8 GPUs (H100) at once, and 1 of 2 workers fit now"},
]


def waiting(position: int | None = 3, blockers: list[Json] = BLOCKERS, **more: Any) -> Json:
    """Queued, as the planner tells it."""
    first = blockers[0]
    return {
        "state": "Queued",
        "conditions": [condition("Queued", reason=first["reason"], message=first["message"])],
        "queuedTime": "2026-11-22T14:30:00Z",
        "waiting": {
            **({} if position is None else {"position": position}),
            "reason": first["reason"],
            "blockers": blockers,
            "sinceTime": "2026-11-22T14:30:00Z",
            "startsAt": "2026-11-22T15:20:00Z",
            **more,
        },
    }


MOVES: Json = {
    "jobs": [{"job": "team-b/small", "fromNodes": ["node-1"], "toNodes": ["node-3"], "gpuSeconds": 71}],
    "gpuSeconds": 71,
    "dueTime": "2026-11-22T15:03:00Z",
}

PREEMPTED_BY: Json = {
    "job": "team-b/pretraining",
    "time": "2026-11-22T15:01:00Z",
    "message": "queue team-b takes back 8 H100 GPUs that it had lent",
}


def succeeded() -> Json:
    return {
        **running(),
        "state": "Succeeded",
        "conditions": [
            condition("Running", False),
            condition("Succeeded", reason="TrainingSucceeded", message="trained in 3m"),
        ],
        "progress": {**PROGRESS, "step": 625, "percent": 100, "etaSeconds": 0},
        "output": OUTPUT,
        "lastCheckpoint": CHECKPOINT,
    }


def failed() -> Json:
    return {
        "state": "Failed",
        "conditions": [condition("Failed", reason="BadInput", message="worker 0 failed: BadInput")],
        "restarts": {"counted": 1, "uncounted": 2},
        "generation": 4,
        "failure": FAILURE,
    }


def service(name: str = "digits", namespace: str = "team-a", **status: Any) -> Json:
    body: Json = {
        "apiVersion": "datahall.dev/v1alpha1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-11-22T15:00:00Z"},
        "spec": {"queue": "team-a", "model": {"fromTrainingJob": {"name": "digits"}}, "replicas": {"min": 2}},
    }
    if status:
        body["status"] = {"observedGeneration": 1, **status}
    return body


def ready() -> Json:
    return {
        "state": "Ready",
        "conditions": [
            condition("ModelReady"),
            condition("Ready", reason="Serving", message="2 of 2 replicas serve"),
        ],
        "replicas": 2,
        "readyReplicas": 2,
        "updatedReplicas": 2,
        "url": "http://digits.team-a.svc",
        "model": {"uri": OUTPUT["uri"], "digest": DIGEST, "fromTrainingJob": "digits"},
    }


def queue(name: str = "team-a", **status: Any) -> Json:
    return {
        "apiVersion": "datahall.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": name, "creationTimestamp": "2026-11-22T15:00:00Z"},
        "spec": {
            "gpus": [{"model": "H100", "nominal": 16}, {"model": "Any", "nominal": 8}],
            "namespaces": ["team-a"],
        },
        "status": {
            "conditions": [condition("Ready", reason="QueueReady")],
            "used": [{"model": "H100", "used": 12}],
            "admitted": 3,
            "waiting": 1,
            **status,
        },
    }


def branch(name: str, parent: str | None = None, *, waits: int = 0, share: str | None = None) -> Json:
    """A Queue in a tree, without quota of its own."""
    status = {
        "conditions": [condition("Ready", reason="QueueReady")],
        "waiting": waits,
        **({} if share is None else {"share": share}),
    }
    return {**queue(name), "spec": {} if parent is None else {"parent": parent}, "status": status}


def worker(
    rank: int, *, name: str = "digits", generation: int = 1, state: str = "running", phase: str = ""
) -> Json:
    states: dict[str, Json] = {
        "running": {"running": {}},
        "waiting": {"waiting": {"reason": "ContainerCreating"}},
        "unpulled": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x"}},
        "done": {"terminated": {"exitCode": 0}},
        "failed": {"terminated": {"exitCode": 65, "reason": "Error"}},
    }
    phases = {"running": "Running", "done": "Succeeded", "failed": "Failed"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-g{generation}-{rank}",
            "namespace": "team-a",
            "labels": {
                "datahall.dev/training-job": name,
                "datahall.dev/generation": str(generation),
                "datahall.dev/rank": str(rank),
            },
        },
        "spec": {"nodeName": f"gpu-node-{rank + 1}"},
        "status": {
            "phase": phase or phases.get(state, "Pending"),
            "containerStatuses": [{"name": "trainer", "restartCount": 0, "state": states[state]}],
        },
    }


def event(
    number: int, reason: str, note: str, *, kind: str = "TrainingJob", name: str = "digits", **more: Any
) -> Json:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"event-{number}", "namespace": "team-a"},
        "eventTime": f"2026-11-22T15:0{number}:00.000000Z",
        "regarding": {"kind": kind, "name": name},
        "reason": reason,
        "note": note,
        "type": "Normal",
        **more,
    }
