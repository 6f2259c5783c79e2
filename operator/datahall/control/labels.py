"""Labels and names that the operator gives to what it makes. Selectors elsewhere rely on them: never rename one."""

from __future__ import annotations

MANAGED_BY = "app.kubernetes.io/managed-by"
TRAINING_JOB = "datahall.dev/training-job"
INFERENCE_SERVICE = "datahall.dev/inference-service"
GENERATION = "datahall.dev/generation"
RANK = "datahall.dev/rank"
QUEUE = "datahall.dev/queue"
MODEL_DIGEST = "datahall.dev/model-digest"

GPU_RESOURCE = "nvidia.com/gpu"
GPU_PRODUCT = "nvidia.com/gpu.product"
RACK = "datahall.dev/rack"
BLOCK = "datahall.dev/block"
GPU_CAP_WATTS = "datahall.dev/gpu-cap-watts"
"""Of a node: the power cap of each of its GPUs, in watts, by whoever set it."""

PLACEMENT_GATE = "datahall.dev/placement"
"""Scheduling gate of a replica's pod: the planner lifts it, with a node pinned in the same write."""

PLACED_AT = "datahall.dev/placed-at"
"""Annotation with the time at which the gate was lifted, RFC 3339: from then on a scheduler has to bind the pod."""

FIELD_MANAGER = "datahall"
"""Field manager of the objects that the operator makes."""

STATUS_MANAGER = "datahall-status"
"""Field manager of the status that it writes."""


def worker_pod(job: str, generation: int, rank: int) -> str:
    """Name of a worker's pod: deterministic, so that making it twice is making it once."""
    return f"{job}-g{generation}-{rank}"


def workers_service(job: str) -> str:
    """Name of the headless Service that gives the workers of a job their DNS names."""
    return f"{job}-workers"
