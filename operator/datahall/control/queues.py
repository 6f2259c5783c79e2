"""What to say about a Queue: how much of its quota is held, how many jobs wait."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from datahall.api.conditions import ConditionType, set_condition
from datahall.api.queue import ANY_MODEL, GPUUse, Queue
from datahall.api.reasons import Reason
from datahall.control import times


def entries_used(queue: Queue, usage: Mapping[str, int]) -> dict[str, int]:
    """GPUs held per entry of the quota. Models without an entry of their own count under Any."""
    entries = {quota.model for quota in queue.spec.gpus}
    used = dict.fromkeys(sorted(entries), 0)
    for model, gpus in usage.items():
        entry = model if model in entries else ANY_MODEL
        used[entry] = used.get(entry, 0) + gpus
    return used


def status(
    queue: Queue, *, usage: Mapping[str, int], held: int, waiting: int, now: datetime.datetime
) -> dict[str, Any] | None:
    """The new status as JSON, or None if nothing changed.

    Args:
        queue: the Queue with its present status.
        usage: GPUs held per GPU model.
        held: jobs that hold their place.
        waiting: jobs that wait.
        now: the present time.
    """
    used = entries_used(queue, usage)
    over = {
        model: (gpus, queue.spec.nominal(model))
        for model, gpus in used.items()
        if gpus > queue.spec.nominal(model)
    }
    if over:
        reason = Reason.QUEUE_OVERCOMMITTED
        message = "; ".join(
            f"{model}: {held_} of {nominal} GPUs held" for model, (held_, nominal) in over.items()
        )
    else:
        reason, message = Reason.QUEUE_READY, ""
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
            "summary": queue.spec.summary(used),
            "used": tuple(GPUUse(model=model, used=gpus) for model, gpus in used.items()),
            "admitted": held,
            "waiting": waiting,
        }
    )
    return None if after == queue.status else after.to_json()
