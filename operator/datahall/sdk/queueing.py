"""Where queues stand, and who stands in line in one of them: read off specs and statuses, nothing is decided here.

The operator says what is held and what each queue's share is; whose turn that makes it follows by one rule: down the
tree, the smallest share among those with waiting jobs. Statuses carry rounded shares and not the whole standing, so
where they do not tell two queues apart, both are `TIED` and nobody is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from datahall.api.conditions import ConditionType, find_condition
from datahall.api.queue import EnergyUse, PowerUse, Queue
from datahall.api.reasons import Reason
from datahall.api.trainingjob import TrainingJob
from datahall.sdk.explaining import explanation, state_of

_TROUBLE = {Reason.QUEUE_PARENT_NOT_FOUND, Reason.QUEUE_PARENTS_IN_CIRCLE}


class Turn(StrEnum):
    """Whether a queue's next job goes first."""

    NONE = ""
    """Nothing waits in it, or another goes first."""
    NEXT = "next"
    """Its share is the smallest, here and at each level above."""
    TIED = "tied"
    """Another has the same share, as far as the statuses tell."""


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What a queue holds of one entry of its quota.

    Attributes:
        model: the entry, such as H100 or Any.
        used: GPUs that its own jobs and services hold.
        nominal: GPUs of its own.
        borrowed: GPUs held beyond nominal.
        available: GPUs of quota that a job could take now; None where the operator has not said.
        borrowing_limit: GPUs that it may hold beyond nominal; None for as many as there are.
        lending_limit: GPUs of its own that others may borrow; None for all.
    """

    model: str
    used: int
    nominal: int
    borrowed: int
    available: int | None
    borrowing_limit: int | None
    lending_limit: int | None


@dataclass(frozen=True, slots=True)
class QueueStanding:
    """One queue in its place in the tree.

    Attributes:
        name: its name.
        depth: how many queues are above it; 0 at the top.
        parent: the Queue that its spec names as parent, even if there is none of that name.
        weight: its part of what is contended, relative to its neighbours.
        gpus: use of each entry of the quota, and of models that are held without one.
        watts: power reserved; None where it is not counted.
        nominal_watts: watts of its own; None for no limit.
        joules: energy of the last 24 hours; None where it is not counted.
        nominal_joules_per_day: joules of its own; None for no limit.
        share: its share of the hall beyond nominal, by weight, a decimal; None where the operator has not said.
        running: TrainingJobs, and replicas of InferenceServices, that hold their place.
        waiting: TrainingJobs and replicas that are in its line.
        turn: whether its next job goes first.
        reason: a word of the reason catalogue for what is wrong with it; "" for nothing.
        trouble: the same in a sentence.
        stale: whether the spec is newer than what the operator says.
    """

    name: str
    depth: int
    parent: str | None
    weight: int
    gpus: tuple[ModelUse, ...]
    watts: PowerUse | None
    nominal_watts: int | None
    joules: EnergyUse | None
    nominal_joules_per_day: int | None
    share: str | None
    running: int
    waiting: int
    turn: Turn = Turn.NONE
    reason: str = ""
    trouble: str = ""
    stale: bool = False


@dataclass(frozen=True, slots=True)
class LineEntry:
    """A TrainingJob that waits in a queue.

    Attributes:
        name: its name.
        namespace: its namespace.
        priority: its priority.
        created: when it was made, RFC 3339: the older goes first within a priority.
        position: its place in line, as the operator last said; None in no line yet.
        reason: what it waits for most, in one word.
        message: the same in a sentence with numbers.
        starts_at: when it is expected to start, RFC 3339; None if nobody can tell.
        since: since when it waits, RFC 3339; None where the operator has not said.
        workers: the fewest workers that it starts with.
        gpus: GPUs of each.
    """

    name: str
    namespace: str
    priority: int
    created: str
    position: int | None
    reason: str
    message: str
    starts_at: str | None
    since: str | None
    workers: int
    gpus: int


@dataclass(frozen=True, slots=True)
class QueueLine:
    """One queue in detail.

    Attributes:
        queue: where it stands.
        path: the queues above it, the top first.
        beneath: the queues right beneath it, by name.
        namespaces: who may use it; empty for everybody.
        minimum_run_seconds: how long its jobs run before they may be ended for others.
        line: its waiting jobs, the next first; those that are in no line yet come last.
        complete: whether jobs of all namespaces could be read.
    """

    queue: QueueStanding
    path: tuple[str, ...]
    beneath: tuple[str, ...]
    namespaces: tuple[str, ...]
    minimum_run_seconds: int
    line: tuple[LineEntry, ...]
    complete: bool


def tree_of(queues: Iterable[Queue]) -> tuple[QueueStanding, ...]:
    """All queues in the order of the tree: each is followed by those beneath it, neighbours by name.

    A queue whose parent does not exist, and each queue of a circle, stands at the top: that is how they are judged.
    """
    by_name = {queue.metadata.name: queue for queue in queues}
    above = parents(by_name)
    beneath: dict[str | None, list[str]] = {}
    for name in sorted(by_name):
        beneath.setdefault(above[name], []).append(name)
    order: list[QueueStanding] = []
    ahead = [(name, 0) for name in reversed(beneath.get(None, []))]
    while ahead:
        name, depth = ahead.pop()
        order.append(_standing(by_name[name], depth, by_name))
        ahead += [(child, depth + 1) for child in reversed(beneath.get(name, []))]
    turns = _turns(order, beneath)
    return tuple(replace(each, turn=turns.get(each.name, Turn.NONE)) for each in order)


def queue_line(
    queue: Queue, queues: Iterable[Queue], jobs: Iterable[TrainingJob], *, complete: bool
) -> QueueLine:
    """One queue in detail.

    Args:
        queue: the queue.
        queues: all queues.
        jobs: TrainingJobs, those of other queues may be among them.
        complete: whether `jobs` has the jobs of all namespaces.
    """
    name = queue.metadata.name
    by_name = {each.metadata.name: each for each in queues} | {name: queue}
    above = parents(by_name)
    path: list[str] = []
    here = above[name]
    while here is not None:
        path.insert(0, here)
        here = above[here]
    return QueueLine(
        queue=next(each for each in tree_of(by_name.values()) if each.name == name),
        path=tuple(path),
        beneath=tuple(sorted(each for each, over in above.items() if over == name)),
        namespaces=queue.spec.namespaces,
        minimum_run_seconds=queue.spec.minimum_run_seconds,
        line=line_of(jobs, name),
        complete=complete,
    )


def parents(queues: Mapping[str, Queue]) -> dict[str, str | None]:
    """The queue that each queue really borrows from: None at the top, without its parent, and in a circle."""
    found: dict[str, str | None] = {}
    for name, queue in queues.items():
        parent = queue.spec.parent
        found[name] = parent if parent in queues and not circle(name, queues) else None
    return found


def circle(name: str, queues: Mapping[str, Queue]) -> tuple[str, ...]:
    """The circle of parents that a queue is part of, from it on; empty if it is in none."""
    seen = [name]
    while (above := queues[seen[-1]].spec.parent) in queues and above not in seen:
        assert above is not None, "a queue of that name exists"
        seen.append(above)
    return tuple(seen) if above == name else ()


def line_of(jobs: Iterable[TrainingJob], queue: str) -> tuple[LineEntry, ...]:
    """The jobs that wait in a queue, in the planner's order: priority, then age; those without a place come last."""
    mine = [job for job in jobs if job.spec.queue == queue and state_of(job) == "Queued"]
    return tuple(line_entry(job) for job in sorted(mine, key=place_in_line))


def line_entry(job: TrainingJob) -> LineEntry:
    """A job as it stands in line."""
    waiting, why = job.status.waiting, explanation(job)
    return LineEntry(
        name=job.metadata.name,
        namespace=job.metadata.namespace,
        priority=job.spec.priority,
        created=job.metadata.creation_timestamp,
        position=waiting.position if waiting else None,
        reason=waiting.reason if waiting else why.reason,
        message=(waiting.blockers[0].message if waiting and waiting.blockers else "") or why.message,
        starts_at=waiting.starts_at if waiting else None,
        since=(waiting.since_time if waiting else None) or job.status.queued_time,
        workers=job.spec.workers.fewest,
        gpus=job.spec.resources.gpus,
    )


def in_no_line(job: TrainingJob) -> bool:
    """Whether the operator has put a waiting job into no line: something other than quota and room is in its way."""
    return job.status.waiting is not None and job.status.waiting.position is None


def place_in_line(job: TrainingJob) -> tuple[bool, int, str, str]:
    """Where a waiting job stands among those of its queue: the smaller goes first, those in no line come last."""
    return in_no_line(job), -job.spec.priority, job.metadata.creation_timestamp, job.metadata.uid


def _standing(queue: Queue, depth: int, queues: Mapping[str, Queue]) -> QueueStanding:
    spec, status = queue.spec, queue.status
    reason, trouble = _trouble(queue, queues)
    return QueueStanding(
        name=queue.metadata.name,
        depth=depth,
        parent=spec.parent,
        weight=spec.weight,
        gpus=_uses(queue),
        watts=status.watts,
        nominal_watts=spec.watts.nominal if spec.watts else None,
        joules=status.joules,
        nominal_joules_per_day=spec.joules_per_day.nominal if spec.joules_per_day else None,
        share=status.share,
        running=status.admitted,
        waiting=status.waiting,
        reason=reason,
        trouble=trouble,
        stale=0 < status.observed_generation < queue.metadata.generation,
    )


def _uses(queue: Queue) -> tuple[ModelUse, ...]:
    """One for each entry of the quota, then models that are held without one."""
    told = {use.model: use for use in queue.status.used}
    granted = {quota.model: quota for quota in queue.spec.gpus}
    found = []
    for model in [*granted, *(model for model in told if model not in granted)]:
        quota, use = granted.get(model), told.get(model)
        used = use.used if use else 0
        nominal = quota.nominal if quota else 0
        borrowed = use.borrowed if use else None
        found.append(
            ModelUse(
                model=model,
                used=used,
                nominal=nominal,
                borrowed=max(0, used - nominal) if borrowed is None else borrowed,
                available=use.available if use else None,
                borrowing_limit=quota.borrowing_limit if quota else None,
                lending_limit=quota.lending_limit if quota else None,
            )
        )
    return tuple(found)


def _trouble(queue: Queue, queues: Mapping[str, Queue]) -> tuple[str, str]:
    """What is wrong: a parent that is not there and a circle are seen at once, the rest is for the operator to say."""
    name, parent = queue.metadata.name, queue.spec.parent
    if parent is not None and parent not in queues:
        message = f"its parent {parent} does not exist: until it does, {name} neither borrows nor lends"
        return Reason.QUEUE_PARENT_NOT_FOUND, message
    if round_ := circle(name, queues):
        shown = " -> ".join((*round_, name))
        message = (
            f"its parents go in a circle ({shown}): until one names another, each neither borrows nor lends"
        )
        return Reason.QUEUE_PARENTS_IN_CIRCLE, message
    ready = find_condition(queue.status.conditions, ConditionType.READY)
    if ready is None or ready.reason in {Reason.QUEUE_READY, *_TROUBLE}:
        return "", ""  # trouble with the parent that the operator still tells of is over
    return ready.reason, ready.message


def _turns(order: Iterable[QueueStanding], beneath: Mapping[str | None, list[str]]) -> dict[str, Turn]:
    """Whose turn it is, by name: down the tree, the smallest share of those with waiting jobs."""
    standing = {each.name: each for each in order}
    waits: dict[str, bool] = {}
    for name in reversed(standing):  # those beneath come before those above
        waits[name] = standing[name].waiting > 0 or any(waits[child] for child in beneath.get(name, []))
    found: list[str] = []
    tied = False
    levels: list[str | None] = [None]
    while levels:
        over = levels.pop()
        below = [name for name in beneath.get(over, []) if waits[name]]
        if over is not None and standing[over].waiting > 0:
            found.append(over)
            # Its own jobs take turns with those beneath it by its own use alone, which no status says.
            tied = tied or bool(below)
        first = _smallest([standing[name] for name in below])
        tied = tied or len(first) > 1
        levels += first
    turn = Turn.TIED if tied else Turn.NEXT
    return dict.fromkeys(found, turn)


def _smallest(queues: list[QueueStanding]) -> list[str]:
    """Those with the smallest share; all of them where a share is not known, for then nobody can tell."""
    shares = {queue.name: Decimal(queue.share) for queue in queues if queue.share is not None}
    if len(shares) < len(queues):
        return [queue.name for queue in queues]
    return [name for name, share in shares.items() if share == min(shares.values())]
