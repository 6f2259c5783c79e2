"""Which running jobs would move so that waiting ones find room in one piece: read off statuses, nothing is decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from datahall.api.trainingjob import TrainingJob
from datahall.api.trainingjob_status import Move
from datahall.sdk.explaining import state_of


@dataclass(frozen=True, slots=True)
class PlannedMoves:
    """Who would move for one waiting job.

    Attributes:
        name: the job that would start.
        namespace: its namespace.
        queue: its Queue.
        workers: workers that it would start with, at least.
        gpus: GPUs of each.
        jobs: who would move, from where to where, and what each costs; the dearest first.
        gpu_seconds: what all of it costs, in GPU-seconds.
        due: when they move, if nothing else makes room before, RFC 3339.
    """

    name: str
    namespace: str
    queue: str
    workers: int
    gpus: int
    jobs: tuple[Move, ...]
    gpu_seconds: int
    due: str


def planned_moves(jobs: Iterable[TrainingJob]) -> tuple[PlannedMoves, ...]:
    """What would move for those of some jobs that wait, what is due first before the rest."""
    found = []
    for job in jobs:
        moves = job.status.waiting.moves if job.status.waiting is not None else None
        if moves is None or state_of(job) != "Queued":
            continue
        found.append(
            PlannedMoves(
                name=job.metadata.name,
                namespace=job.metadata.namespace,
                queue=job.spec.queue,
                workers=job.spec.workers.fewest,
                gpus=job.spec.resources.gpus,
                jobs=moves.jobs,
                gpu_seconds=moves.gpu_seconds,
                due=moves.due_time,
            )
        )
    return tuple(sorted(found, key=lambda plan: (plan.due, plan.namespace, plan.name)))
