"""The status of a TrainingJob: where it runs, how far it is, what went wrong, what came out."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .common import Condition, Digest, GPUModel, Model, StatusModel, Time, Unique


class Placement(Model):
    """Where one worker runs."""

    rank: Annotated[int, Field(ge=0, le=1023, examples=[0])]
    """The worker's rank."""
    node: Annotated[str, Field(max_length=253, examples=["gpu-node-17"])]
    """The node it is pinned to."""
    gpu_model: Annotated[GPUModel | None, Field(examples=["H100"])] = None
    """The model of its GPUs. Absent: it has none."""


class Blocker(Model):
    """One thing that a job waits for."""

    reason: Annotated[str, Field(min_length=1, max_length=63, examples=["QuotaExceeded"])]
    """What, in one word of the reason catalogue (docs/reference)."""
    message: Annotated[
        str, Field(max_length=4096, examples=["needs 8 H100 GPUs; queue team-a has 4 of quota left"])
    ] = ""
    """What, in a sentence with numbers."""


class Move(Model):
    """A running job that would start again on other nodes."""

    job: Annotated[str, Field(max_length=317, examples=["team-b/small"])]
    """The job, as namespace/name."""
    from_nodes: Annotated[tuple[str, ...], Field(max_length=8, examples=[["node-1"]])]
    """Nodes that it is on; the first 8 by name."""
    to_nodes: Annotated[tuple[str, ...], Field(max_length=8, examples=[["node-3"]])]
    """Nodes that it would go on from, from its last checkpoint; the first 8 by name."""
    gpu_seconds: Annotated[int, Field(ge=0, examples=[71])]
    """What that costs, in GPU-seconds, two digits of it: its work since the last checkpoint, and the restart."""


class Moves(Model):
    """Who would move so that the job finds its room in one piece. Nobody is ended for it before it is due."""

    jobs: Annotated[tuple[Move, ...], Field(min_length=1, max_length=64)]
    """Who, the dearest first."""
    gpu_seconds: Annotated[int, Field(ge=0, examples=[71])]
    """What all of that costs, in GPU-seconds, two digits of it."""
    due_time: Annotated[Time, Field(examples=["2026-11-22T15:03:00Z"])]
    """When they move, if nothing else makes room before: once the job has waited for as many GPU-seconds as it costs,
    and no more than 60 jobs have moved within an hour. To the minute, RFC 3339."""


class Waiting(Model):
    """Why the job waits, and until when as far as anyone can tell."""

    position: Annotated[int | None, Field(ge=1, examples=[3])] = None
    """Its place in the queue's line, by priority and age; 1 goes first. Absent: it is in no line yet."""
    reason: Annotated[str, Field(min_length=1, max_length=63, examples=["BorrowedAway"])]
    """What it waits for most, in one word of the reason catalogue (docs/reference)."""
    starts_at: Annotated[Time | None, Field(examples=["2026-11-22T15:20:00Z"])] = None
    """When it is expected to start, RFC 3339: an estimate, from what runs now. Absent: nobody can tell."""
    blockers: Annotated[
        tuple[Blocker, ...],
        Field(
            max_length=8, examples=[[{"reason": "NoRoom", "message": "needs 8 GPUs, 5 are free in one rack"}]]
        ),
    ] = ()
    """What it waits for, the most important first."""
    moves: Moves | None = None
    """Which jobs would move to make room for it, and when. Absent: none would, or it is not at the head of its line."""
    since_time: Annotated[Time | None, Field(examples=["2026-11-22T15:00:00Z"])] = None
    """When it began to wait, RFC 3339."""


class PreemptedBy(Model):
    """Whom the job made room for."""

    job: Annotated[str, Field(max_length=317, examples=["team-b/pretraining"])]
    """The job that took its room, as namespace/name."""
    priority: Annotated[int | None, Field(examples=[1000])] = None
    """That job's priority. Absent: priority did not decide, such as where quota was given back."""
    time: Annotated[Time, Field(examples=["2026-11-22T15:00:00Z"])]
    """When this job was told to end, RFC 3339."""
    message: Annotated[
        str, Field(max_length=4096, examples=["queue team-b takes back 8 H100 GPUs that it had lent"])
    ] = ""
    """Why this one, in a sentence with numbers."""


class Restarts(Model):
    """How often the gang was started again."""

    counted: Annotated[int, Field(ge=0, examples=[1])] = 0
    """Restarts for the job's own failures, held against failurePolicy.maxRestarts."""
    uncounted: Annotated[int, Field(ge=0, examples=[0])] = 0
    """Restarts for evictions, preemptions, lost nodes and suspensions."""
    unschedulable: Annotated[int | None, Field(ge=1, examples=[2])] = None
    """Starts in a row that found no node; each makes the next wait longer. Absent: the last start found one."""


class Progress(Model):
    """How far training has come, as its first worker last reported."""

    step: Annotated[int | None, Field(ge=0, examples=[120])] = None
    """Optimizer steps done."""
    total_steps: Annotated[int | None, Field(ge=0, examples=[625])] = None
    """Optimizer steps in all."""
    epoch: Annotated[int | None, Field(ge=0, examples=[1])] = None
    """Whole epochs done."""
    epochs: Annotated[int | None, Field(ge=0, examples=[5])] = None
    """Epochs in all."""
    percent: Annotated[int | None, Field(ge=0, le=100, examples=[19])] = None
    """Share of the steps done, in per cent."""
    eta_seconds: Annotated[int | None, Field(ge=0, examples=[77])] = None
    """Seconds left at the present speed."""
    samples_per_second: Annotated[float | None, Field(ge=0, examples=[410.2])] = None
    """Training samples per second, over all workers."""
    device: Annotated[str | None, Field(max_length=128, examples=["cuda:NVIDIA H100"])] = None
    """What the workers compute on."""
    metrics: Annotated[
        dict[str, float], Field(max_length=64, examples=[{"loss": 0.21, "validation_accuracy": 0.962}])
    ] = Field(default_factory=dict)
    """The newest value of each metric; accuracies and the like are fractions of 1."""
    time: Annotated[Time | None, Field(examples=["2026-11-22T15:00:00Z"])] = None
    """When this was reported, RFC 3339."""


class LastCheckpoint(Model):
    """The newest checkpoint that is complete."""

    step: Annotated[int, Field(ge=0, examples=[100])]
    """Optimizer steps that it holds."""
    uri: Annotated[
        str, Field(max_length=2048, examples=["pvc://models/digits/.checkpoints/6f0c/step-00000100"])
    ]
    """Where it lies."""
    bytes: Annotated[int | None, Field(ge=0, examples=[1234567])] = None
    """Its size in bytes."""
    time: Annotated[Time | None, Field(examples=["2026-11-22T15:00:00Z"])] = None
    """When it was saved, RFC 3339."""


class Failure(Model):
    """The newest failure: which worker, how it ended, and why."""

    pod: Annotated[str | None, Field(max_length=253, examples=["digits-g1-0"])] = None
    """The pod that failed first."""
    node: Annotated[str | None, Field(max_length=253, examples=["gpu-node-17"])] = None
    """The node it ran on."""
    rank: Annotated[int | None, Field(ge=0, le=1023, examples=[0])] = None
    """The worker's rank."""
    exit_code: Annotated[int | None, Field(ge=-1, le=65535, examples=[65])] = None
    """Exit code of the trainer (docs/contracts.md)."""
    signal: Annotated[int | None, Field(ge=0, le=128, examples=[9])] = None
    """The signal that ended it, by number."""
    cause: Annotated[str | None, Field(max_length=63, examples=["BadInput"])] = None
    """Cause, in one word of the cause catalogue (docs/reference)."""
    message: Annotated[
        str | None,
        Field(max_length=4096, examples=["data.train: pvc://data/digits/train: no such directory"]),
    ] = None
    """Cause, in a sentence."""
    last_log_lines: Annotated[
        tuple[Annotated[str, Field(max_length=4096)], ...],
        Field(max_length=50, examples=[["ValueError: no such file"]]),
    ] = ()
    """The last lines that the trainer wrote."""
    time: Annotated[Time | None, Field(examples=["2026-11-22T15:00:00Z"])] = None
    """When it happened, RFC 3339."""
    generation: Annotated[int | None, Field(ge=0, examples=[1])] = None
    """The gang generation that it belongs to."""


class TrainedModel(Model):
    """The finished model."""

    uri: Annotated[str, Field(max_length=2048, examples=["pvc://models/digits/versions/0123456789abcdef"])]
    """Where it lies."""
    digest: Annotated[Digest, Field(examples=["sha256:" + "0123456789abcdef" * 4])]
    """Digest of its manifest: equal weights have equal digests."""
    metrics: Annotated[dict[str, float], Field(max_length=64, examples=[{"validation_accuracy": 0.987}])] = (
        Field(default_factory=dict)
    )
    """Its metrics on the held-out data; accuracies and the like are fractions of 1."""


class TrainingJobStatus(StatusModel):
    """What the operator sees. Conditions are the truth; state sums them up for a table."""

    observed_generation: Annotated[int, Field(ge=0, examples=[1])] = 0
    """The metadata.generation that this status speaks of."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), Unique("type")] = ()
    """Queued, Admitted, Running, Restarting, Suspended, Succeeded, Failed, and for tools Reconciling and Stalled."""
    state: Annotated[str | None, Field(max_length=63, examples=["Running"])] = None
    """One word derived from the conditions, for tables; programs read the conditions."""
    effective: dict[str, Any] | None = Field(
        default=None, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )
    """The spec with every default filled in: what runs. What is not set, and has no default, is absent."""
    generation: Annotated[int, Field(ge=0, examples=[1])] = 0
    """How many times the gang was started; pods are named after it."""
    placement: Annotated[tuple[Placement, ...], Field(max_length=1024), Unique("rank")] = ()
    """Where each worker of the present generation runs."""
    workers: Annotated[int | None, Field(ge=0, le=1024, examples=[2])] = None
    """Workers of the present generation: between workers.min and workers.count. Absent: it has none."""
    spread: Annotated[
        str | None,
        Field(max_length=256, examples=["on 2 racks of 1 block; one rack was preferred"]),
    ] = None
    """How the workers are spread over the hall, for a person. Absent: they have no place."""
    waiting: Waiting | None = None
    """Why the job waits. Absent: it does not."""
    queued_time: Annotated[Time | None, Field(examples=["2026-11-22T15:00:00Z"])] = None
    """When the job last began to wait in its queue, RFC 3339."""
    start_time: Annotated[Time | None, Field(examples=["2026-11-22T15:00:00Z"])] = None
    """When the workers were first started, RFC 3339."""
    completion_time: Annotated[Time | None, Field(examples=["2026-11-22T15:00:00Z"])] = None
    """When the job succeeded or failed, RFC 3339."""
    restarts: Restarts | None = None
    """How often the gang was started again."""
    preemptions: Annotated[int | None, Field(ge=0, examples=[1])] = None
    """How often the job was ended to make room for another; each makes it dearer to end again. Absent: never."""
    preempted_by: PreemptedBy | None = None
    """The newest preemption that ended a run of this job. Absent: none did."""
    progress: Progress | None = None
    """How far training has come."""
    last_checkpoint: LastCheckpoint | None = None
    """What a restart would go on from."""
    failure: Failure | None = None
    """The newest failure of a worker, even if the job went on."""
    output: TrainedModel | None = None
    """The finished model, once the job succeeded."""
