"""A run that ends early because the planner says so: it makes room for another, moves, or comes back larger.

It says so, its workers save and leave, and it waits in line again. The status is written before a pod is touched. A
crash before that write forgets the eviction, and whoever leads next plans anew; after it, the job holds no place, and
what still runs of it is stopped like that of any job without one.
"""

from __future__ import annotations

from datahall.api.conditions import ConditionType
from datahall.api.reasons import Reason
from datahall.api.trainingjob import PreemptedBy, Restarts
from datahall.control import times
from datahall.control.training.look import Look
from datahall.control.training.progress import take_report
from datahall.control.training.seen import Eviction, Waiting
from datahall.control.training.waiting import told


def make_way(look: Look, eviction: Eviction) -> None:
    """Give the place up, and stop the workers: they have their grace period to save."""
    seen, status, draft = look.seen, look.seen.job.status, look.draft
    now, message = times.to_text(seen.now), eviction.message[:4096]
    take_report(look, always=True)
    restarts = status.restarts or Restarts()
    look.give_back()
    draft.set(
        restarts=restarts.model_copy(update={"uncounted": restarts.uncounted + 1}),
        queued_time=now,
    )
    reason = eviction.reason
    if reason is Reason.PREEMPTED:
        by = PreemptedBy(job=eviction.preemptor[:317], priority=eviction.priority, time=now, message=message)
        draft.set(preemptions=(status.preemptions or 0) + 1, preempted_by=by)
    draft.set(waiting=told(look, Waiting(reason, message)))
    draft.true(ConditionType.QUEUED, reason, message)
    draft.false(ConditionType.ADMITTED, reason, "gave its place up")
    draft.false(ConditionType.RUNNING, reason, message)
    draft.true(ConditionType.RESTARTING, reason, message)
    look.reconciling(message, reason)
    look.announce(reason, message)
    look.stop(seen.pods, all_of_them=True)
    look.look_again(5)
