"""All that is known when a TrainingJob is looked at, and the two questions that it answers by itself."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from datahall.api.conditions import ConditionType, is_true
from datahall.api.reasons import Reason
from datahall.api.trainingjob import LastCheckpoint, Placement, Progress, TrainingJob
from datahall.control.claims import Claims
from datahall.control.views import PodView
from datahall.planning.move_plans import MovePlan


@dataclass(frozen=True, slots=True)
class Report:
    """The newest report of a job's rank 0.

    Attributes:
        generation: the gang generation it speaks for.
        progress: how far it is.
        checkpoint: the newest complete checkpoint, or None.
    """

    generation: int
    progress: Progress
    checkpoint: LastCheckpoint | None


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that is in a job's way."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """The planner's refusal, for now.

    Attributes:
        reason: why, for a program.
        message: why, for a person, with numbers.
        position: its place in the queue's line, from 1; None where it is in none.
        starts_seconds: when it is expected to start, seconds since the epoch; None if nobody knows.
        blockers: everything that is in its way, the most important first.
        moves: who would move to make room for it; None where nobody would.
    """

    reason: Reason
    message: str
    position: int | None = None
    starts_seconds: float | None = None
    blockers: tuple[Blocker, ...] = ()
    moves: MovePlan | None = None


@dataclass(frozen=True, slots=True)
class Eviction:
    """The planner's decision that a run of a job ends: to make room for another, to move, or to grow.

    Attributes:
        preemptor: the other, as namespace/name; "" where there is none.
        priority: that one's priority, where priority decided; None where quota is given back.
        message: why, for a person, with numbers.
        reason: PREEMPTED, or MOVED or RESIZED: then room is held for it, and it starts again as soon as it has left.
    """

    preemptor: str
    priority: int | None
    message: str
    reason: Reason = Reason.PREEMPTED


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server refused a child of the present generation.

    Attributes:
        message: its sentence.
        final: whether the object itself is at fault (then trying again cannot help).
    """

    message: str
    final: bool


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """An object of a job that was deleted, under a name that the present job of that name needs.

    Attributes:
        kind: its kind.
        name: its name.
        owner_uid: the uid of the earlier job, "" where it was deleted in a way that leaves orphans.
    """

    kind: str
    name: str
    owner_uid: str

    @property
    def sentence(self) -> str:
        """What is in the way, and that nobody has to do anything."""
        owner = f" (uid {self.owner_uid})" if self.owner_uid else ""
        return (
            f'{self.kind} "{self.name}" of an earlier TrainingJob of this name{owner} is still there;'
            " this one goes on as soon as it is gone"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that is known when a job is looked at.

    Attributes:
        job: the job, its present status included.
        deleting: whether its deletion has begun.
        pods: its pods, of every generation.
        admitted: the placement that the planner decided and the status does not have yet.
        spread: how that placement is spread over the hall, for people.
        waiting: why the planner has it wait, where it does.
        eviction: that it is to make room for another, where the planner says so.
        claims: what is wrong with the claims that its spec names.
        left_behind: what an earlier job of its name left and a child of it needs the name of.
        report: the newest report of this job.
        refusal: what the API server said to a child of the present generation.
        lost_nodes: nodes that have not answered for a while, or are gone.
        unfit_nodes: nodes on which nothing new may start.
        now: the present time.
    """

    job: TrainingJob
    pods: tuple[PodView, ...]
    now: datetime.datetime
    deleting: bool = False
    admitted: tuple[Placement, ...] | None = None
    spread: str = ""
    waiting: Waiting | None = None
    eviction: Eviction | None = None
    claims: Claims = field(default_factory=Claims)
    left_behind: LeftBehind | None = None
    report: Report | None = None
    refusal: Refusal | None = None
    lost_nodes: frozenset[str] = frozenset()
    unfit_nodes: frozenset[str] = frozenset()


def terminal(job: TrainingJob) -> bool:
    """Whether the job has ended. Final: nothing is ever created for it again."""
    conditions = job.status.conditions
    return is_true(conditions, ConditionType.SUCCEEDED) or is_true(conditions, ConditionType.FAILED)


def wants_admission(job: TrainingJob, pods: tuple[PodView, ...]) -> bool:
    """Whether the planner should find it a place: it runs nowhere, holds nothing, and is meant to run."""
    return (
        not terminal(job)
        and not job.spec.suspend
        and not job.status.placement
        and all(pod.finished for pod in pods)
    )
