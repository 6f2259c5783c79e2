"""Each state and the row that it makes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from datahall.api.inferenceservice import InferenceService
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.cli import rows, words
from tests.unit.sdk import samples
from tests.unit.sdk.samples import condition

NOW = datetime(2026, 11, 22, 15, 4, tzinfo=UTC)

JOBS = [
    ({}, "digits Pending - 0/2 - - - - 0 - 4m"),
    (samples.queued(), "digits Queued QuotaExceeded 0/2 - - - - 0 - 4m"),
    (
        {"conditions": [condition("Admitted")], "placement": samples.PLACEMENT},
        "digits Starting - 2/2 - - - - 0 gpu-node-1,gpu-node-2 4m",
    ),
    (samples.running(), "digits Running - 2/2 19% 77s 0.211 96.2% 0 gpu-node-1,gpu-node-2 4m"),
    (
        samples.running(restarts={"counted": 1, "uncounted": 2}),
        "digits Running - 2/2 19% 77s 0.211 96.2% 3 gpu-node-1,gpu-node-2 4m",
    ),
    (
        samples.running(placement=[{"rank": rank, "node": f"n{rank // 2}"} for rank in range(8)]),
        "digits Running - 8/2 19% 77s 0.211 96.2% 0 n0,n1,+2 4m",
    ),
    # A job that does not run has no time left to tell, but keeps what it reached.
    (
        {**samples.running(), "state": "Restarting", "conditions": [condition("Restarting")]},
        "digits Restarting - 2/2 19% - 0.211 96.2% 0 gpu-node-1,gpu-node-2 4m",
    ),
    (
        {"state": "Suspended", "conditions": [condition("Suspended")], "progress": samples.PROGRESS},
        "digits Suspended - 0/2 19% - 0.211 96.2% 0 - 4m",
    ),
    (samples.waiting(), "digits Queued BorrowedAway 0/2 - - - - 0 - 4m"),
    (samples.succeeded(), "digits Succeeded - 2/2 100% - 0.05 98.7% 0 gpu-node-1,gpu-node-2 4m"),
    (samples.failed(), "digits Failed - 0/2 - - - - 3 - 4m"),
    (
        {"state": "Running", "progress": {"step": 3, "metrics": {"perplexity": 12.0}}},
        "digits Running - 0/2 - - - - 0 - 4m",
    ),
]


@pytest.mark.parametrize(("status", "row"), JOBS, ids=[row.split()[1] for _, row in JOBS])
def test_job_row(status: samples.Json, row: str) -> None:
    cells = rows.job_row(TrainingJob.from_json(samples.job(**status)), NOW)
    assert len(cells) == len(rows.JOB_COLUMNS)
    assert " ".join(cells) == row


def test_the_workers_that_a_status_tells_go_before_those_that_are_placed() -> None:
    body = samples.job(workers=8, **samples.running())
    assert rows.job_row(TrainingJob.from_json(body), NOW)[3] == "2/8"
    body["status"]["workers"] = 3
    assert rows.job_row(TrainingJob.from_json(body), NOW)[3] == "3/8"


SERVICES = [
    ({}, "digits Pending 0/2 tj/digits - 4m"),
    ({"conditions": [condition("ModelReady", False)]}, "digits WaitingForModel 0/2 tj/digits - 4m"),
    (samples.ready(), "digits Ready 2/2 0123456789ab http://digits.team-a.svc 4m"),
    ({"conditions": [condition("Stalled")], "readyReplicas": 1}, "digits Stalled 1/2 tj/digits - 4m"),
]


@pytest.mark.parametrize(("status", "row"), SERVICES, ids=[row.split()[1] for _, row in SERVICES])
def test_service_row(status: samples.Json, row: str) -> None:
    cells = rows.service_row(InferenceService.from_json(samples.service(**status)), NOW)
    assert len(cells) == len(rows.SERVICE_COLUMNS)
    assert " ".join(cells) == row


def test_queue_row() -> None:
    assert rows.queue_row(Queue.from_json(samples.queue()), NOW) == (
        "team-a",
        "H100:12/16,Any:0/8",
        "3",
        "1",
        "team-a",
        "4m",
    )
    bare = {**samples.queue(), "spec": {}, "status": {}}
    assert rows.queue_row(Queue.from_json(bare), NOW)[1:] == ("-", "0", "0", "all", "4m")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (3600, "60m"),
        (7200, "2h"),
        (7500, "2h5m"),
        (100_000, "27h"),
        (200_000, "2d"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("since", "text"),
    [
        (None, "-"),
        ("", "-"),
        ("yesterday", "-"),
        ("2026-11-22T15:03:00Z", "60s"),
        ("2026-11-22T15:03:00", "60s"),
    ],
)
def test_age(since: str | None, text: str) -> None:
    assert words.age(since, NOW) == text


@pytest.mark.parametrize(
    ("count", "text"), [(5, "5 B"), (1_234_567, "1.2 MiB"), (3 * 2**40, "3.0 TiB"), (2**30, "1.0 GiB")]
)
def test_size(count: int, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "-"),
        ("soon", "-"),
        ("2026-11-22T15:20:00Z", "15:20 UTC, in 16m"),
        ("2026-11-22T16:20:00+01:00", "15:20 UTC, in 16m"),
        ("2026-11-22T15:04:00Z", "15:04 UTC, 0s ago"),
        ("2026-11-22T15:03:00Z", "15:03 UTC, 60s ago"),
        ("2026-11-23T09:05:00Z", "2026-11-23 09:05 UTC, in 18h"),
    ],
)
def test_a_point_in_time_and_how_far_off_it_is(text: str | None, told: str) -> None:
    assert words.when(text, NOW) == told


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 W"), (8400, "8400 W"), (11_200, "11.2 kW"), (312_000_000, "312 MW"), (4 * 10**15, "4000 TW")],
)
def test_watts_and_joules_are_short(amount: int, text: str) -> None:
    assert words.quantity(amount, "W") == text


@pytest.mark.parametrize(
    ("place", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st"), (112, "112th")],
)
def test_places_in_line(place: int, text: str) -> None:
    assert words.ordinal(place) == text
