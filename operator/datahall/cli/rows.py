"""Objects as table rows: which columns there are, and what each shows in every state. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from datahall.cli.words import NOTHING, age, duration, lines_of, number, percent
from datahall.sdk import InferenceService, Queue, TrainingJob, explanation, state_of

JOB_COLUMNS = (
    *(
        "NAME",
        "STATE",
        "WAITING",
        "WORKERS",
        "PROGRESS",
        "ETA",
        "LOSS",
        "ACCURACY",
        "RESTARTS",
        "NODES",
        "AGE",
    ),
)
SERVICE_COLUMNS = ("NAME", "STATE", "READY", "MODEL", "URL", "AGE")
QUEUE_COLUMNS = ("NAME", "GPUS", "ADMITTED", "WAITING", "NAMESPACES", "AGE")
MESSAGE = "MESSAGE"
"""The column that `-o wide` adds."""

_LOSSES = ("loss", "train_loss", "validation_loss")
_ACCURACIES = ("validation_accuracy", "accuracy")
_NODES_SHOWN = 2


def job_row(job: TrainingJob, at: datetime) -> tuple[str, ...]:
    """The cells of `JOB_COLUMNS`."""
    status = job.status
    progress, restarts = status.progress, status.restarts
    state = state_of(job)
    reported = dict(progress.metrics) if progress else {}
    final = status.output.metrics if status.output else {}
    eta = progress.eta_seconds if progress and state == "Running" else None
    loss = _first(_LOSSES, {**reported, **final})
    accuracy = _first(_ACCURACIES, {**reported, **final})
    return (
        job.metadata.name,
        state,
        explanation(job).reason if state == "Queued" else NOTHING,
        f"{workers_of(job)}/{job.spec.workers.count}",
        f"{progress.percent}%" if progress and progress.percent is not None else NOTHING,
        duration(eta) if eta is not None else NOTHING,
        number(loss) if loss is not None else NOTHING,
        percent(accuracy) if accuracy is not None else NOTHING,
        str(restarts.counted + restarts.uncounted) if restarts else "0",
        _short([place.node for place in status.placement]),
        age(job.metadata.creation_timestamp, at),
    )


def service_row(service: InferenceService, at: datetime) -> tuple[str, ...]:
    """The cells of `SERVICE_COLUMNS`."""
    status = service.status
    return (
        service.metadata.name,
        state_of(service),
        f"{status.ready_replicas}/{service.spec.replicas.min}",
        _model(service),
        status.url or NOTHING,
        age(service.metadata.creation_timestamp, at),
    )


def queue_row(queue: Queue, at: datetime) -> tuple[str, ...]:
    """The cells of `QUEUE_COLUMNS`."""
    return (
        queue.metadata.name,
        ",".join(f"{model}:{used}/{nominal}" for model, used, nominal in quota_use(queue)) or NOTHING,
        str(queue.status.admitted),
        str(queue.status.waiting),
        _short(queue.spec.namespaces) if queue.spec.namespaces else "all",
        age(queue.metadata.creation_timestamp, at),
    )


def message_cell(thing: TrainingJob | InferenceService | Queue) -> str:
    """The cell of `MESSAGE`: why it is in its state."""
    return lines_of(explanation(thing).message) or NOTHING


def workers_of(job: TrainingJob) -> int:
    """Workers that have a place."""
    return job.status.workers if job.status.workers is not None else len(job.status.placement)


def quota_use(queue: Queue) -> list[tuple[str, int, int]]:
    """Model, GPUs held, and GPUs granted, for each entry of the quota."""
    held = {use.model: use.used for use in queue.status.used}
    return [(quota.model, held.get(quota.model, 0), quota.nominal) for quota in queue.spec.gpus]


def _model(service: InferenceService) -> str:
    pinned = service.status.model
    if pinned is not None and pinned.digest:
        return pinned.digest.removeprefix("sha256:")[:12]
    wanted = service.spec.model
    if wanted.from_training_job is not None:
        return f"tj/{wanted.from_training_job.name}"
    return wanted.uri or NOTHING


def _first(names: Sequence[str], metrics: Mapping[str, float]) -> float | None:
    return next((metrics[name] for name in names if name in metrics), None)


def _short(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    if not distinct:
        return NOTHING
    more = len(distinct) - _NODES_SHOWN
    return ",".join(distinct[:_NODES_SHOWN]) + (f",+{more}" if more > 0 else "")
