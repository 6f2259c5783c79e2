"""What to do about a TrainingJob: one pure function from all that is seen to the next status and the next writes.

The order of the checks is the life cycle: gone, final, done, suspended, past its deadline, waiting, running. Three
rules make a crash anywhere harmless. The status is written before anything it implies, so whoever comes next reads what
was meant. Children have names made from (job, generation, rank), so making them twice is making them once. And a pod of
an earlier generation is always in the way: while one exists, nothing of the present generation is made (the fence).

What each stage does is in its own module: `waiting`, `running`, `endings`.
"""

from __future__ import annotations

from typing import Any

from datahall.api.conditions import ConditionType
from datahall.api.reasons import Reason
from datahall.control.actions import Plan
from datahall.control.settings import Settings
from datahall.control.training.endings import after_the_end, deadline_message, fail, finished, past_deadline
from datahall.control.training.look import Look
from datahall.control.training.running import run
from datahall.control.training.seen import (
    Blocker,
    Eviction,
    Refusal,
    Report,
    Seen,
    Waiting,
    terminal,
    wants_admission,
)
from datahall.control.training.waiting import wait

__all__ = [
    "Blocker",
    "Eviction",
    "Refusal",
    "Report",
    "Seen",
    "Waiting",
    "plan",
    "terminal",
    "wants_admission",
]


def plan(seen: Seen, settings: Settings) -> Plan:
    """Decide what is to be done about a job now."""
    if seen.deleting:
        return Plan()  # the garbage collector takes the children by their ownerReferences
    look = Look.at(seen, settings)
    if terminal(seen.job):
        after_the_end(look)
        return look.done()
    _tell_effective(look)
    if finished(look):
        return look.done()  # a result that is there counts, whatever has been asked for or has run out since
    if seen.job.spec.suspend:
        _suspended(look)
    elif past_deadline(look):
        fail(look, Reason.DEADLINE_EXCEEDED, deadline_message(look))
    elif seen.job.status.placement:
        _resumed(look)
        run(look)
    else:
        _resumed(look)
        wait(look)
    return look.done()


def _tell_effective(look: Look) -> None:
    """Show the spec as it runs: some of it may change, and so may the defaults of a newer operator."""
    effective = _without_nulls(look.seen.job.spec.effective())
    if look.seen.job.status.effective != effective:
        look.draft.set(effective=effective)


def _without_nulls(body: dict[str, Any]) -> dict[str, Any]:
    """Neither a merge patch nor the API server can keep a null: what is not set is absent."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in body.items()
        if value is not None
    }


def _suspended(look: Look) -> None:
    """Stop the workers (they save first), give everything back."""
    draft = look.draft
    running = [pod for pod in look.seen.pods if not pod.finished]
    if not draft.is_true(ConditionType.SUSPENDED):
        look.announce(Reason.SUSPEND_REQUESTED, f"{len(running)} workers are stopped; their GPUs become free")
    look.release()
    look.end_back_off()
    draft.set(waiting=None)
    draft.set(start_time=None)  # the deadline counts anew from the resumption, as a Kubernetes Job's does
    draft.true(ConditionType.SUSPENDED, Reason.SUSPEND_REQUESTED, "spec.suspend is true").false(
        ConditionType.QUEUED
    )
    look.stop(running)
    if running:
        look.reconciling(f"{len(running)} workers are stopping")
        look.look_again(5)
    else:
        draft.false(ConditionType.RECONCILING)


def _resumed(look: Look) -> None:
    if look.draft.is_true(ConditionType.SUSPENDED):
        look.draft.false(ConditionType.SUSPENDED, Reason.RESUMED, "spec.suspend is false")
        look.announce(Reason.RESUMED, "waits in its queue again")
