"""`datahall describe`: one page about one object, the answer first. Pure: a description and a time become text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from datahall.api.trainingjob import Progress
from datahall.cli.rows import quota_use
from datahall.cli.table import entry, painted, section
from datahall.cli.words import NOTHING, age, duration, lines_of, number, size
from datahall.sdk import Description, InferenceService, Queue, TrainingJob, state_of
from datahall.sdk.explaining import explanation, failure_place

_USERS_SHOWN = 20


def page(described: Description, at: datetime, *, colour: bool = False) -> str:
    """The whole page, without a line end."""
    thing = described.object
    state = painted(described.state) if colour else described.state
    lines = [
        f"{described.kind} {described.name}"
        + (f" in namespace {described.namespace}" if described.namespace else ""),
        *entry("State", f"{state} ({described.reason})" if described.reason else state),
        *entry("Why", lines_of(described.message)),
    ]
    match thing:
        case TrainingJob():
            lines += _job(thing, at)
        case InferenceService():
            lines += _service(thing)
        case Queue():
            lines += _queue(thing)
    lines += entry("Age", age(thing.metadata.creation_timestamp, at))
    lines += _conditions(described, at) + _pods(described, at) + _users(described) + _events(described, at)
    return "\n".join(lines)


def _job(job: TrainingJob, at: datetime) -> list[str]:
    spec, status = job.spec, job.status
    lines = [
        *entry("Queue", f"{spec.queue}, priority {spec.priority}"),
        *entry("Task", f"{spec.task}, {_gang(job)}"),
    ]
    if (progress := status.progress) is not None:
        lines += entry("Progress", progress_of(progress, running=state_of(job) == "Running"))
        lines += entry("Metrics", metrics_of(progress.metrics))
    if status.restarts is not None:
        lines += entry(
            "Restarts",
            f"{status.restarts.counted} counted of at most {spec.failure_policy.max_restarts}, "
            f"{status.restarts.uncounted} uncounted",
        )
    if (saved := status.last_checkpoint) is not None:
        parts = [f"step {saved.step}"]
        if saved.bytes is not None:
            parts.append(size(saved.bytes))
        if saved.time:
            parts.append(f"{age(saved.time, at)} ago")
        lines += entry("Checkpoint", ", ".join(parts), saved.uri)
    if (made := status.output) is not None:
        lines += entry("Output", made.uri, made.digest, metrics_of(made.metrics))
    if status.placement:
        lines += entry(
            "Placement",
            *(
                f"rank {place.rank}: {place.node}" + (f" ({place.gpu_model})" if place.gpu_model else "")
                for place in status.placement
            ),
        )
    if (failure := status.failure) is not None:
        when = ([f"generation {failure.generation}"] if failure.generation else []) + (
            [f"{age(failure.time, at)} ago"] if failure.time else []
        )
        lines += _failure(failure.cause, failure.message, [failure_place(job), *when], failure.last_log_lines)
    return lines


def _gang(job: TrainingJob) -> str:
    workers, resources = job.spec.workers.count, job.spec.resources
    each = f"{workers} worker" + ("s" if workers > 1 else "")
    if not resources.gpus:
        return f"{each} on CPU ({resources.cpu} cores, {resources.memory})"
    models = f" ({' or '.join(resources.gpu_models)})" if resources.gpu_models else ""
    return f"{each} x {resources.gpus} GPU{models}"


def _service(service: InferenceService) -> list[str]:
    spec, status = service.spec, service.status
    lines = [
        *entry("Queue", spec.queue),
        *entry(
            "Replicas",
            f"{status.ready_replicas} of {spec.replicas.min} ready, {status.updated_replicas} with the present model",
        ),
        *entry("URL", status.url or ""),
    ]
    source = f"tj/{spec.model.from_training_job.name}" if spec.model.from_training_job else spec.model.uri
    pinned = status.model
    lines += entry("Model", f"from {source}", (pinned and pinned.uri) or "", (pinned and pinned.digest) or "")
    if (failure := status.failure) is not None:
        lines += _failure(failure.cause, failure.message, [failure_place(service)], failure.last_log_lines)
    return lines


def _queue(queue: Queue) -> list[str]:
    use = [f"{model}: {used} of {nominal} held" for model, used, nominal in quota_use(queue)]
    return [
        *entry("GPUs", *(use or ["none granted; work without GPUs needs none"])),
        *entry("Namespaces", ", ".join(queue.spec.namespaces) or "all"),
        *entry("Work", f"{queue.status.admitted} admitted, {queue.status.waiting} waiting"),
    ]


def _failure(cause: str | None, message: str | None, where: Iterable[str], log: Iterable[str]) -> list[str]:
    told = ": ".join(part for part in (cause, lines_of(message or "")) if part)
    return entry("Failure", told, ", ".join(part for part in where if part), *(f"| {line}" for line in log))


def _conditions(described: Description, at: datetime) -> list[str]:
    if not described.conditions:
        return []
    rows = [
        (
            each.type,
            each.status,
            each.reason,
            age(each.last_transition_time, at),
            lines_of(each.message) or NOTHING,
        )
        for each in described.conditions
    ]
    return section("Conditions", ("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"), rows)


def _pods(described: Description, at: datetime) -> list[str]:
    if not described.pods:
        return []
    rows = [
        (
            pod.name,
            NOTHING if pod.rank is None else str(pod.rank),
            pod.state,
            str(pod.restarts),
            pod.node or NOTHING,
            age(pod.created, at),
            lines_of(pod.message) or NOTHING,
        )
        for pod in described.pods
    ]
    return section("Pods", ("NAME", "RANK", "STATE", "RESTARTS", "NODE", "AGE", "MESSAGE"), rows)


def _priority(user: TrainingJob | InferenceService) -> int:
    """Services do not wait in line, so they have none."""
    return user.spec.priority if isinstance(user, TrainingJob) else 0


def _users(described: Description) -> list[str]:
    if not described.users:
        return []
    live = [user for user in described.users if state_of(user) not in {"Succeeded", "Failed"}]
    rows = [
        (
            f"{user.kind.lower()}/{user.metadata.name}",
            user.metadata.namespace,
            str(_priority(user)),
            state_of(user),
            lines_of(explanation(user).message) or NOTHING,
        )
        for user in sorted(live, key=lambda user: -_priority(user))[:_USERS_SHOWN]
    ]
    lines = section("Work in it", ("NAME", "NAMESPACE", "PRIORITY", "STATE", "MESSAGE"), rows)
    return [*lines, f"  and {len(live) - _USERS_SHOWN} more"] if len(live) > _USERS_SHOWN else lines


def _events(described: Description, at: datetime) -> list[str]:
    if not described.events:
        return []
    rows = [
        (
            age(event.time, at) + (f" (x{event.count})" if event.count > 1 else ""),
            event.type,
            event.reason or NOTHING,
            event.about,
            lines_of(event.message),
        )
        for event in described.events
    ]
    return section("Events", ("LAST SEEN", "TYPE", "REASON", "ABOUT", "MESSAGE"), rows)


def progress_of(progress: Progress, *, running: bool) -> str:
    """`step 120 of 625, 19 %, 410 samples/s, 77s to go`; the time left only while it runs."""
    parts = []
    if progress.step is not None:
        parts.append(
            f"step {progress.step}" + (f" of {progress.total_steps}" if progress.total_steps else "")
        )
    if progress.percent is not None:
        parts.append(f"{progress.percent} %")
    if progress.epoch is not None and progress.epochs is not None:
        parts.append(f"epoch {progress.epoch} of {progress.epochs}")
    if progress.samples_per_second is not None:
        parts.append(f"{number(progress.samples_per_second)} samples/s")
    if progress.device:
        parts.append(f"on {progress.device}")
    if progress.eta_seconds is not None and running:
        parts.append(f"{duration(progress.eta_seconds)} to go")
    return ", ".join(parts)


def metrics_of(metrics: dict[str, float]) -> str:
    """`loss 0.211, validation_accuracy 0.962`."""
    return ", ".join(f"{name} {number(value)}" for name, value in sorted(metrics.items()))
