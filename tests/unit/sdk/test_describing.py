"""Descriptions: the reason in words, pods and what ails them, events."""

from __future__ import annotations

import pytest

from datahall.api.trainingjob import TrainingJob
from datahall.sdk import AsyncClient, NotFoundError, PodLine, explanation
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import FakeApi


async def test_a_queued_job_says_what_it_waits_for(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.queued()))
    described = await client.describe("tj", "digits")
    assert (described.state, described.reason, described.message) == (
        "Queued",
        "QuotaExceeded",
        samples.WAITS,
    )
    assert described.pods == ()
    assert described.events == ()


async def test_pods_and_events(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.running()))
    api.put(samples.worker(1, state="unpulled"))
    api.put(samples.worker(0))
    api.put(samples.event(2, "Admitted", "two nodes"))
    api.put(
        samples.event(1, "Queued", "waits", series={"count": 3, "lastObservedTime": "2026-11-22T15:01:30Z"})
    )
    api.put(samples.event(3, "Failed", "cannot pull", kind="Pod", name="digits-g1-1", type="Warning"))
    api.put(samples.event(4, "Started", "container started", kind="Pod", name="digits-g1-0"))
    api.put(samples.event(5, "Other", "not ours", name="other"))
    described = await client.describe("TrainingJob", "digits")
    assert [pod.name for pod in described.pods] == ["digits-g1-0", "digits-g1-1"]
    assert described.pods[1] == PodLine(
        name="digits-g1-1",
        state="ImagePullBackOff",
        message="Back-off pulling image x",
        node="gpu-node-2",
        restarts=0,
        rank=1,
        generation=1,
        created="2026-11-22T15:00:00Z",
    )
    assert [(event.reason, event.count, event.about) for event in described.events] == [
        ("Queued", 3, "TrainingJob/digits"),
        ("Admitted", 1, "TrainingJob/digits"),
        ("Failed", 1, "Pod/digits-g1-1"),
    ]


async def test_what_may_not_be_read_is_left_out(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.running()))
    api.put(samples.worker(0))
    api.forbidden |= {"pods", "events"}
    described = await client.describe("tj", "digits")
    assert (described.state, described.pods, described.events) == ("Running", (), ())


async def test_a_queue_names_its_users(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.queue())
    api.put(samples.job(**samples.queued()))
    api.put(samples.service("other", "team-b"))
    stranger = samples.job("stranger")
    stranger["spec"]["queue"] = "elsewhere"
    api.put(stranger)
    described = await client.describe("queue", "team-a")
    assert [(user.kind, user.metadata.name) for user in described.users] == [
        ("TrainingJob", "digits"),
        ("InferenceService", "other"),
    ]


async def test_what_does_not_exist(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError):
        await client.describe("infs", "none")


C = samples.condition


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ("", "the operator has not looked at it yet; if this lasts, is the operator running?")),
        (
            [C("Queued", message="waits"), C("Stalled", reason="QueueNotFound", message="no queue")],
            ("QueueNotFound", "no queue"),
        ),
        (
            [C("Admitted", message="has nodes"), C("Running", False, "PodsStarting", "1 of 2 run")],
            ("PodsStarting", "1 of 2 run"),
        ),
        ([C("Admitted", message="has nodes")], ("Admitted", "has nodes")),
        ([C("Running", message="runs"), C("Admitted", message="has nodes")], ("Running", "runs")),
        (
            [C("Restarting", reason="WorkerLost", message="node gone"), C("Running", False)],
            ("WorkerLost", "node gone"),
        ),
        ([C("Suspended", message="on request"), C("Stalled", message="x")], ("Suspended", "on request")),
        ([C("Failed", message="broken"), C("Restarting", message="x")], ("Failed", "broken")),
        ([C("Queued", False)], ("", "")),
    ],
)
def test_the_condition_that_explains(conditions: list[samples.Json], expected: tuple[str, str]) -> None:
    why = explanation(TrainingJob.from_json(samples.job(conditions=conditions)))
    assert (why.reason, why.message) == expected
