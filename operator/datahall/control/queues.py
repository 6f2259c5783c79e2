"""What to say about a Queue: what is held of its quota, borrowed and still to be had, and how many wait.

Its status keeps what it used over time, too: that is all that one leader has to leave to the next.
"""

from __future__ import annotations

import datetime
import math
from typing import Any

from datahall.api.conditions import ConditionType, set_condition
from datahall.api.queue import EnergyUse, GPUUse, PowerUse, Queue, UseOverTime
from datahall.api.reasons import Reason
from datahall.control import times
from datahall.planning import QueueEntry, QueueReport, QueueUse

UNKNOWN_MODEL = "Unknown"
"""What GPUs are called here whose model nobody knows (any more): those of a node that is gone."""

HISTORY_EVERY_SECONDS = 300.0
"""How often what a queue used over time is put down where nothing else of its status changes. A new leader counts what
is held since the last time: only what started and ended between two writes could be missed, and both are changes."""

_ENTRIES = 64


def entries(queue: Queue, report: QueueReport) -> dict[str, QueueEntry]:
    """Where a queue stands per entry of its quota, and per model that it holds without one."""
    named = {quota.model for quota in queue.spec.gpus}
    found = {
        model or UNKNOWN_MODEL: entry
        for model, entry in sorted(report.gpus.items())
        if model in named or entry.used > 0
    }
    return dict(list(found.items())[:_ENTRIES])


def status(
    queue: Queue,
    *,
    report: QueueReport,
    use: QueueUse,
    parent_exists: bool,
    held: int,
    waiting: int,
    now: datetime.datetime,
) -> dict[str, Any] | None:
    """The new status as JSON, or None if nothing changed.

    Args:
        queue: the Queue with its present status.
        report: where it stands, as the planner has it.
        use: what it has used over time, as the planner has it.
        parent_exists: whether the queue that it names as its parent exists.
        held: jobs and replicas that hold their place.
        waiting: jobs and replicas that wait.
        now: the present time.
    """
    used = entries(queue, report)
    reason, message = _ready(report, used, parent_exists=parent_exists)
    conditions = set_condition(
        queue.status.conditions,
        type_=ConditionType.READY,
        status=True,
        reason=reason,
        message=message,
        generation=queue.metadata.generation,
        now=times.to_text(now),
    )
    after = queue.status.model_copy(
        update={
            "observed_generation": queue.metadata.generation,
            "conditions": conditions,
            "summary": queue.spec.summary({model: entry.used for model, entry in used.items()}),
            "used": tuple(
                GPUUse(
                    model=model,
                    used=entry.used,
                    nominal=entry.nominal,
                    borrowed=entry.borrowed,
                    available=entry.available,
                )
                for model, entry in used.items()
            ),
            "watts": _power(queue, report.watts),
            "joules": _energy(queue, report.joules),
            "share": _share(report.share),
            "admitted": held,
            "waiting": waiting,
        }
    )
    if after == queue.status and not _history_is_due(queue, report, now):
        return None
    after = after.model_copy(update={"history": _history(queue, use)})
    return None if after == queue.status else after.to_json()


def use_of(queue: Queue) -> QueueUse | None:
    """What a Queue used over time, as its status has it; None where it says nothing."""
    history = queue.status.history
    if history is None:
        return None
    try:
        as_of = times.from_text(history.as_of).timestamp()
    except ValueError:
        return None  # not written by us: whose turn it is begins anew, and nothing else suffers
    return QueueUse(as_of, history.decayed_gpu_seconds, history.decayed_joules, history.joules_by_hour)


def _history_is_due(queue: Queue, report: QueueReport, now: datetime.datetime) -> bool:
    """Whether use is to be put down though nothing else has changed: where nothing is held, none is added."""
    if not (report.watts.used or any(entry.used for entry in report.gpus.values())):
        return False
    history = queue.status.history
    return history is None or times.since(history.as_of, now) >= HISTORY_EVERY_SECONDS


def _history(queue: Queue, use: QueueUse) -> UseOverTime | None:
    if queue.status.history is None and not (use.gpu_seconds or use.joules):
        return None
    return UseOverTime(
        as_of=times.to_text(datetime.datetime.fromtimestamp(use.as_of_seconds, datetime.UTC)),
        decayed_gpu_seconds=round(use.gpu_seconds),
        decayed_joules=round(use.joules),
        joules_by_hour=use.joules_by_hour,
    )


def _ready(report: QueueReport, used: dict[str, QueueEntry], *, parent_exists: bool) -> tuple[Reason, str]:
    over = [
        f"{model}: {entry.used} of {entry.nominal} GPUs held, {entry.over} more than quota and borrowing allow"
        for model, entry in used.items()
        if entry.over
    ]
    if report.watts.over:
        over.append(
            f"{report.watts.used} of {report.watts.nominal} W reserved, {report.watts.over} W more than quota and "
            "borrowing allow"
        )
    if over:
        return Reason.QUEUE_OVERCOMMITTED, "; ".join(over)
    if report.trouble:
        circle = Reason.QUEUE_PARENTS_IN_CIRCLE
        return circle if parent_exists else Reason.QUEUE_PARENT_NOT_FOUND, report.trouble
    return Reason.QUEUE_READY, ""


def _power(queue: Queue, entry: QueueEntry) -> PowerUse | None:
    """None where nobody counts: no GPU has a known cap, and no queue on the way up has a limit."""
    if not entry.used and entry.available is None and queue.spec.watts is None:
        return None
    return PowerUse(reserved=entry.used, available=entry.available)


def _energy(queue: Queue, entry: QueueEntry) -> EnergyUse | None:
    if not entry.used and entry.available is None and queue.spec.joules_per_day is None:
        return None
    return EnergyUse(last_day=entry.used, available=entry.available)


def _share(share: float) -> str | None:
    """With three digits: it decays all the time, and who reads it wants to know who goes first."""
    if not math.isfinite(share):
        return None
    return f"{max(share, 0.0):.3f}".rstrip("0").rstrip(".")
