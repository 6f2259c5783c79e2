"""TrainingJobs and InferenceServices for the end-to-end tests."""

from __future__ import annotations

from typing import Any

API = "datahall.dev/v1alpha1"


def digits_job(name: str, *, epochs: int = 1, workers: int = 2, **spec: Any) -> dict[str, Any]:
    """A short run over the digits, with checkpoints close together."""
    return {
        "apiVersion": API,
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {
            "queue": "team-a",
            "workers": {"count": workers},
            "resources": {"gpus": 1, "cpu": "400m", "memory": "1536Mi"},
            "task": "ImageClassification",
            "model": {"architecture": "cnn"},
            "data": {"train": "pvc://data/digits/train", "validation": "pvc://data/digits/validation"},
            "training": {"epochs": epochs, "batchSize": 64, "learningRate": "1e-3", "seed": 11},
            "checkpoint": {"everySteps": 10, "keep": 2},
            "output": {"uri": f"pvc://models/{name}"},
            **spec,
        },
    }


def sleeper(name: str, *, image: str, gpus: int = 0, seconds: int = 600, **spec: Any) -> dict[str, Any]:
    """A job that holds its place and does nothing. It ends when asked to: a bare `sleep` as process 1 would not."""
    script = f"trap 'exit 0' TERM; sleep {seconds} & wait"
    return {
        "apiVersion": API,
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {
            "queue": "team-a",
            "resources": {"gpus": gpus, "cpu": "10m", "memory": "64Mi"},
            "task": "Custom",
            "container": {"image": image, "command": ["sh", "-c", script]},
            **spec,
        },
    }


def service(name: str, job: str, **spec: Any) -> dict[str, Any]:
    """An InferenceService of what a job made."""
    return {
        "apiVersion": API,
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {
            "queue": "team-a",
            "model": {"fromTrainingJob": {"name": job}},
            "resources": {"cpu": "200m", "memory": "1Gi"},
            **spec,
        },
    }
