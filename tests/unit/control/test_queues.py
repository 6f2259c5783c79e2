from __future__ import annotations

import datetime
from typing import Any

import pytest

from datahall.api.queue import Queue
from datahall.control import queues

NOW = datetime.datetime(2026, 11, 22, 16, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(hours=1)


def queue(status: dict[str, Any] | None = None, **gpus: int) -> Queue:
    body = {
        "metadata": {"name": "team-a", "uid": "q", "generation": 3},
        "spec": {"gpus": [{"model": model, "nominal": nominal} for model, nominal in gpus.items()]},
    }
    return Queue.from_json(body | ({"status": status} if status else {}))


def told(body: Queue, *, now: datetime.datetime = NOW, held: int = 0, waiting: int = 0, **usage: int) -> Any:
    return queues.status(body, usage=usage, held=held, waiting=waiting, now=now)


def ready(status: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in status["conditions"] if c["type"] == "Ready")


def test_a_queue_says_what_is_held_out_of_what_is_granted():
    status = told(queue(H100=16, Any=8), held=3, waiting=5, H100=12, L4=2, A100=1)
    assert status["used"] == [{"model": "Any", "used": 3}, {"model": "H100", "used": 12}]
    assert status["summary"] == "H100 12/16, Any 3/8"
    assert (status["admitted"], status["waiting"], status["observedGeneration"]) == (3, 5, 3)
    assert (ready(status)["status"], ready(status)["reason"]) == ("True", "QueueReady")


def test_nothing_held_is_zero_of_each():
    assert told(queue(H100=16))["used"] == [{"model": "H100", "used": 0}]


@pytest.mark.parametrize(("held", "reason"), [(8, "QueueReady"), (9, "QueueOvercommitted")])
def test_a_quota_that_was_lowered_below_what_is_held_is_said(held, reason):
    status = told(queue(H100=8), H100=held)
    assert ready(status)["reason"] == reason
    assert ready(status).get("message", "") == ("H100: 9 of 8 GPUs held" if held > 8 else "")


def test_gpus_of_a_model_without_any_quota_count_under_any():
    status = told(queue(H100=8), L4=2)
    assert {"model": "Any", "used": 2} in status["used"]
    assert ready(status)["reason"] == "QueueOvercommitted"


def test_the_same_numbers_again_are_not_written():
    first = told(queue(H100=8), held=1, H100=2)
    again = queue(first, H100=8)
    assert told(again, held=1, H100=2, now=LATER) is None
    changed = told(again, held=1, H100=3, now=LATER)
    assert ready(changed)["lastTransitionTime"] == "2026-11-22T16:00:00Z"
