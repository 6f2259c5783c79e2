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
    ({}, "digits Pending - - - - 0 - 4m"),
    (samples.queued(), "digits Queued - - - - 0 - 4m"),
    (
        {"conditions": [condition("Admitted")], "placement": samples.PLACEMENT},
        "digits Starting - - - - 0 gpu-node-1,gpu-node-2 4m",
    ),
    (samples.running(), "digits Running 19% 77s 0.211 96.2% 0 gpu-node-1,gpu-node-2 4m"),
    (
        samples.running(restarts={"counted": 1, "uncounted": 2}),
        "digits Running 19% 77s 0.211 96.2% 3 gpu-node-1,gpu-node-2 4m",
    ),
    (
        samples.running(placement=[{"rank": rank, "node": f"n{rank // 2}"} for rank in range(8)]),
        "digits Running 19% 77s 0.211 96.2% 0 n0,n1,+2 4m",
    ),
    # A job that does not run has no time left to tell, but keeps what it reached.
    (
        {**samples.running(), "state": "Restarting", "conditions": [condition("Restarting")]},
        "digits Restarting 19% - 0.211 96.2% 0 gpu-node-1,gpu-node-2 4m",
    ),
    (
        {"state": "Suspended", "conditions": [condition("Suspended")], "progress": samples.PROGRESS},
        "digits Suspended 19% - 0.211 96.2% 0 - 4m",
    ),
    (samples.succeeded(), "digits Succeeded 100% - 0.05 98.7% 0 gpu-node-1,gpu-node-2 4m"),
    (samples.failed(), "digits Failed - - - - 3 - 4m"),
    (
        {"state": "Running", "progress": {"step": 3, "metrics": {"perplexity": 12.0}}},
        "digits Running - - - - 0 - 4m",
    ),
]


@pytest.mark.parametrize(("status", "row"), JOBS, ids=[row.split()[1] for _, row in JOBS])
def test_job_row(status: samples.Json, row: str) -> None:
    cells = rows.job_row(TrainingJob.from_json(samples.job(**status)), NOW)
    assert len(cells) == len(rows.JOB_COLUMNS)
    assert " ".join(cells) == row


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
