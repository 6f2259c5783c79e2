"""A small hall played through with the real planner, in virtual minutes: what the pictures in docs are drawn from.

The planner is told what an operator would tell it, once a minute, and asked every ten seconds until it has nothing more
to decide; that is done at once. Jobs run for as long
as they said, a job that is ended for others saves for a minute and waits again with what is left of it. Nothing is
random, so the same scenario gives the same record everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from datahall.planning import (
    Admit,
    Evict,
    GangProgress,
    GangRequest,
    Level,
    NodeState,
    Placement,
    Planner,
    QueueReport,
    QueueState,
)

GPUS_PER_NODE = 8
SAVING_MINUTES = 1
_MINUTE = 60.0
_CYCLE_SECONDS = 10
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the scenario; each worker takes a whole node.

    Attributes:
        name: its name, unique.
        queue: its queue.
        arrives: the minute in which it is submitted.
        minutes: how long it runs, in all.
        workers: workers, all or nothing.
        priority: its priority.
        level: the part of the hall that it has to fit in; None for anywhere.
    """

    name: str
    queue: str
    arrives: int
    minutes: int
    workers: int = 1
    priority: int = 0
    level: Level | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A job on its nodes for a while.

    Attributes:
        job: its name.
        nodes: where.
        start: the minute in which it started.
        end: the minute in which it ended or began to save.
        freed: the minute in which its nodes were free.
        ended_for: the job that it was ended for; "" where it was done.
    """

    job: str
    nodes: tuple[str, ...]
    start: int
    end: int
    freed: int
    ended_for: str


@dataclass(slots=True)
class Record:
    """What happened.

    Attributes:
        minutes: how long was played.
        spans: who was where, in the order of their end.
        promised: for each job that room was reserved for, the minute in which that was said first and the minute that
            was named.
        reports: where each queue stood, by queue, minute by minute.
    """

    minutes: int
    spans: list[Span] = field(default_factory=list)
    promised: dict[str, tuple[int, int]] = field(default_factory=dict)
    reports: dict[str, list[QueueReport]] = field(default_factory=dict)


@dataclass(slots=True)
class _Run:
    nodes: tuple[str, ...]
    start: int
    ended_for: str = ""
    saving_since: int | None = None


def racks(*sizes: int) -> list[NodeState]:
    """Nodes of equal build: rack `a` with so many, rack `b`, ..."""
    return [
        NodeState(
            name=f"{'abcdefgh'[rack]}{number + 1}",
            gpu_model="H100",
            gpus=GPUS_PER_NODE,
            cpu_milli=96_000,
            memory_bytes=1024 * _GIB,
            rack="abcdefgh"[rack],
            block="hall",
        )
        for rack, size in enumerate(sizes)
        for number in range(size)
    ]


def play(
    nodes: Iterable[NodeState], queues: Sequence[QueueState], jobs: Sequence[Job], *, minutes: int
) -> Record:
    """Play a scenario from minute 0 on."""
    planner = Planner()
    for node in nodes:
        planner.upsert_node(node)
    for queue in queues:
        planner.upsert_queue(queue)
    by_name = {job.name: job for job in jobs}
    left = {job.name: job.minutes for job in jobs}
    running: dict[str, _Run] = {}
    record = Record(minutes, reports={queue.name: [] for queue in queues})
    for now in range(minutes + 1):
        for name in sorted(running):
            _go_on(planner, record, running, left, job=by_name[name], now=now)
        for job in jobs:
            if job.arrives == now:
                planner.submit(_gang(job, job.minutes))
        for name, run in sorted(running.items()):
            planner.progress(name, _progress(run, left[name], now))
        for second in range(0, 60, _CYCLE_SECONDS):
            if not _decide(planner, running, now, second):
                break
        for job in jobs:
            _note_promise(planner, record, job.name, now)
        for queue in queues:
            report = planner.queue_report(queue.name, now * _MINUTE)
            assert report is not None, "the queue was told"
            record.reports[queue.name].append(report)
    for name, run in sorted(running.items()):
        record.spans.append(Span(name, run.nodes, run.start, minutes, minutes, run.ended_for))
    return record


def _decide(planner: Planner, running: dict[str, _Run], now: int, second: int) -> bool:
    """Do what the planner decides; whether anybody started or was told to end."""
    decided = False
    for decision in planner.cycle(now * _MINUTE + second):
        match decision:
            case Admit(name, places):
                running[name] = _Run(_nodes(places), now)
                decided = True
            case Evict(name, preemptor):
                running[name].ended_for = preemptor
                running[name].saving_since = now
                decided = True
    return decided


def _go_on(
    planner: Planner, record: Record, running: dict[str, _Run], left: dict[str, int], *, job: Job, now: int
) -> None:
    """Let a minute pass for a running job: it works, saves, or is gone."""
    name, run = job.name, running[job.name]
    if run.saving_since is not None:
        if now - run.saving_since < SAVING_MINUTES:
            return
        del running[name]
        record.spans.append(Span(name, run.nodes, run.start, run.saving_since, now, run.ended_for))
        planner.requeue(name)
        planner.submit(replace(_gang(job, left[name]), evictions=1))
        return
    left[name] -= 1 if now > run.start else 0
    if left[name] == 0:
        del running[name]
        record.spans.append(Span(name, run.nodes, run.start, now, now, ""))
        planner.withdraw(name)


def _gang(job: Job, minutes: int) -> GangRequest:
    return GangRequest(
        key=job.name,
        name=job.name,
        namespace="demo",
        queue=job.queue,
        priority=job.priority,
        created_seconds=job.arrives * _MINUTE,
        workers=job.workers,
        gpus=GPUS_PER_NODE,
        gpu_models=("H100",),
        cpu_milli=48_000,
        memory_bytes=512 * _GIB,
        level=job.level,
        required=job.level is not None,
        run_seconds=minutes * _MINUTE,
    )


def _progress(run: _Run, left: int, now: int) -> GangProgress:
    return GangProgress(run.start * _MINUTE, saved_seconds=now * _MINUTE, end_seconds=(now + left) * _MINUTE)


def _nodes(places: tuple[Placement, ...]) -> tuple[str, ...]:
    return tuple(sorted({place.node for place in places}))


def _note_promise(planner: Planner, record: Record, name: str, now: int) -> None:
    told = planner.waiting(name)
    if told is not None and told.starts_seconds is not None:
        record.promised.setdefault(name, (now, round(told.starts_seconds / _MINUTE)))
