from __future__ import annotations

import datetime
from typing import Any

import pytest

from datahall.api.queue import Queue
from datahall.control import queues
from datahall.planning import QueueEntry, QueueReport, QueueUse

NOW = datetime.datetime(2026, 11, 22, 16, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(hours=1)
NOTHING = QueueEntry(0, 0, 0, None)
NO_USE = QueueUse(NOW.timestamp(), 0.0, 0.0)


def queue(status: dict[str, Any] | None = None, *, spec: dict[str, Any] | None = None, **gpus: int) -> Queue:
    quotas = [{"model": model, "nominal": nominal} for model, nominal in gpus.items()]
    body = {
        "metadata": {"name": "team-a", "uid": "q", "generation": 3},
        "spec": {"gpus": quotas, **(spec or {})},
    }
    return Queue.from_json(body | ({"status": status} if status else {}))


def report(*, watts: QueueEntry = NOTHING, joules: QueueEntry = NOTHING, **more: Any) -> QueueReport:
    gpus = {key: more.pop(key) for key in [key for key in more if isinstance(more[key], QueueEntry)]}
    whole: dict[str, Any] = {
        "share": 0.0,
        "total_share": 0.0,
        "waiting": 0,
        "held": 0,
        "parent": "",
        "trouble": "",
    }
    return QueueReport(gpus=gpus, watts=watts, joules=joules, **{**whole, **more})


def told(
    body: Queue,
    seen: QueueReport,
    *,
    now: datetime.datetime = NOW,
    held: int = 0,
    waiting: int = 0,
    parent_exists: bool = True,
    use: QueueUse = NO_USE,
) -> Any:
    return queues.status(
        body, report=seen, use=use, parent_exists=parent_exists, held=held, waiting=waiting, now=now
    )


def ready(status: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in status["conditions"] if c["type"] == "Ready")


def test_a_queue_says_what_is_held_borrowed_and_to_be_had():
    seen = report(H100=QueueEntry(16, 20, 4, 8), Any=QueueEntry(8, 3, 0, 5), share=0.12345)
    status = told(queue(H100=16, Any=8), seen, held=3, waiting=5)
    assert status["used"] == [
        {"model": "Any", "used": 3, "nominal": 8, "borrowed": 0, "available": 5},
        {"model": "H100", "used": 20, "nominal": 16, "borrowed": 4, "available": 8},
    ]
    assert status["summary"] == "H100 20/16, Any 3/8"
    assert status["share"] == "0.123"
    assert (status["admitted"], status["waiting"], status["observedGeneration"]) == (3, 5, 3)
    assert (ready(status)["status"], ready(status)["reason"]) == ("True", "QueueReady"), (
        "it borrows, as it may"
    )


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0"), (0.5, "0.5"), (0.0004, "0"), (12.0, "12"), (-1e-12, "0"), (float("inf"), None)],
)
def test_a_share_has_three_digits(share, text):
    assert told(queue(H100=8), report(H100=QueueEntry(8, 0, 0, 8), share=share)).get("share") == text


def test_models_without_an_entry_are_told_while_they_are_held():
    seen = report(
        H100=QueueEntry(8, 0, 0, 8),
        L4=QueueEntry(0, 2, 2, 0),
        A100=QueueEntry(0, 0, 0, 4),
        **{"": QueueEntry(0, 1, 1, 0)},
    )
    status = told(queue(H100=8), seen)
    assert [entry["model"] for entry in status["used"]] == ["Unknown", "H100", "L4"]


def test_power_and_energy_are_told_where_they_are_counted():
    assert {"watts", "joules"}.isdisjoint(told(queue(H100=8), report(H100=QueueEntry(8, 0, 0, 8))))
    seen = report(watts=QueueEntry(11200, 8400, 0, 2800), joules=QueueEntry(0, 312_000_000, 0, None))
    status = told(queue(H100=8, spec={"watts": {"nominal": 11200}}), seen)
    assert status["watts"] == {"reserved": 8400, "available": 2800}
    assert status["joules"] == {"lastDay": 312_000_000}


def test_a_limit_that_was_lowered_below_what_is_held_is_said():
    status = told(queue(H100=8), report(H100=QueueEntry(8, 9, 1, 0, over=1)))
    assert ready(status)["reason"] == "QueueOvercommitted"
    assert ready(status)["message"] == "H100: 9 of 8 GPUs held, 1 more than quota and borrowing allow"
    watts = told(queue(H100=8), report(watts=QueueEntry(100, 700, 600, 0, over=600)))
    assert ready(watts)["reason"] == "QueueOvercommitted"
    assert "700 of 100 W" in ready(watts)["message"]


@pytest.mark.parametrize(
    ("exists", "reason"), [(True, "QueueParentsInCircle"), (False, "QueueParentNotFound")]
)
def test_a_place_in_no_tree_is_said(exists, reason):
    seen = report(H100=QueueEntry(8, 0, 0, 8), trouble="parent: something is wrong")
    status = told(queue(H100=8, spec={"parent": "above"}), seen, parent_exists=exists)
    assert (ready(status)["status"], ready(status)["reason"]) == ("True", reason), "its own quota is in use"
    assert ready(status)["message"] == seen.trouble


def test_the_same_numbers_again_are_not_written():
    seen = report(H100=QueueEntry(8, 2, 0, 6), share=0.25)
    first = told(queue(H100=8), seen, held=1)
    again = queue(first, H100=8)
    decayed = report(H100=QueueEntry(8, 2, 0, 6), share=0.2499)
    assert told(again, decayed, held=1, now=LATER) is None
    changed = told(again, report(H100=QueueEntry(8, 3, 0, 5)), held=1, now=LATER)
    assert ready(changed)["lastTransitionTime"] == "2026-11-22T16:00:00Z"


def used(at: datetime.datetime, gpu_seconds: float = 7200.4, *hours: int) -> QueueUse:
    return QueueUse(at.timestamp(), gpu_seconds, gpu_seconds * 700, hours)


BUSY = report(H100=QueueEntry(8, 2, 0, 6))
IDLE = report(H100=QueueEntry(8, 0, 0, 8))


def test_what_was_used_over_time_is_put_down_and_read_back():
    status = told(queue(H100=8), BUSY, held=1, use=used(NOW, 7200.4, 5, 0, 9))
    assert status["history"] == {
        "asOf": "2026-11-22T16:00:00Z",
        "decayedGpuSeconds": 7200,
        "decayedJoules": 5040280,
        "joulesByHour": [5, 0, 9],
    }
    kept = queues.use_of(queue(status, H100=8))
    assert kept == QueueUse(NOW.timestamp(), 7200, 5040280, (5, 0, 9))
    assert queues.use_of(queue(H100=8)) is None, "a queue that nobody has looked at"


def test_a_queue_that_used_nothing_says_nothing_of_it():
    assert "history" not in told(queue(H100=8), IDLE)
    assert told(queue(told(queue(H100=8), IDLE), H100=8), IDLE, now=LATER) is None


def test_use_is_put_down_with_each_change_and_else_every_few_minutes():
    first = queue(told(queue(H100=8), BUSY, held=1, use=used(NOW)), H100=8)
    soon = NOW + datetime.timedelta(seconds=60)
    due = NOW + datetime.timedelta(seconds=queues.HISTORY_EVERY_SECONDS)
    assert told(first, BUSY, held=1, now=soon, use=used(soon, 7320)) is None
    assert (
        told(first, BUSY, held=1, waiting=1, now=soon, use=used(soon, 7320))["history"]["decayedGpuSeconds"]
        == 7320
    )
    assert (
        told(first, BUSY, held=1, now=due, use=used(due, 7800))["history"]["asOf"] == "2026-11-22T16:05:00Z"
    )


def test_before_anything_is_counted_there_is_nothing_to_put_down():
    first = queue(told(queue(H100=8), BUSY, held=1), H100=8)
    assert told(first, BUSY, held=1, now=LATER) is None
    assert told(first, BUSY, held=1, now=LATER, use=used(LATER))["history"]["asOf"] == "2026-11-22T17:00:00Z"


def test_where_nothing_is_held_use_is_not_written_again():
    """What fades can be worked out from what is written."""
    first = queue(told(queue(H100=8), IDLE, use=used(NOW)), H100=8)
    assert told(first, IDLE, now=LATER, use=used(LATER, 7190)) is None


def test_a_time_that_cannot_be_read_is_no_history():
    status = told(queue(H100=8), BUSY, held=1, use=used(NOW))
    status["history"]["asOf"] = "yesterday"
    assert queues.use_of(queue(status, H100=8)) is None
