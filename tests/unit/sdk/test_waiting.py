"""Waiting: by watch, through broken streams, to the end, to a failure, to a timeout."""

from __future__ import annotations

import pytest

from datahall.api.trainingjob import TrainingJob
from datahall.sdk import AsyncClient, JobFailed, MisuseError, NotFoundError, UnreachableError, WaitTimeout
from datahall.sdk.kinds import INFERENCE_SERVICE, QUEUE, TRAINING_JOB
from datahall.sdk.waiting import reached, wanted_state
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import END, EXPIRE, HANG_UP, FakeApi

JOBS = "trainingjobs"


def becomes(api: FakeApi, then: str | None = None, **status: object):
    def act() -> str | None:
        api.status("TrainingJob", "digits", **status)
        return then

    return act


async def test_returns_the_job_at_once_if_it_is_there_already(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.succeeded()))
    job = await client.wait("digits")
    assert isinstance(job, TrainingJob)
    assert job.status.output is not None
    assert job.status.output.metrics["validation_accuracy"] == 0.987


async def test_follows_the_job_by_watch_and_reports_each_change(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job())
    api.on_watch[JOBS].append(becomes(api, HANG_UP, **samples.queued()))
    api.on_watch[JOBS].append(becomes(api, END, **samples.running()))
    api.on_watch[JOBS].append(becomes(api, **samples.succeeded()))
    seen: list[str | None] = []
    job = await client.wait("digits", on_progress=lambda job: seen.append(job.status.state))
    assert job is not None
    assert seen == [None, "Queued", "Running", "Succeeded"]
    assert api.count("GET", "/trainingjobs") == 4, "one list and three watches: it does not poll"


async def test_lists_anew_when_the_version_has_expired(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job())
    api.on_watch[JOBS].append(becomes(api, EXPIRE, **samples.running()))
    api.on_watch[JOBS].append(becomes(api, **samples.succeeded()))
    seen: list[str | None] = []
    await client.wait("digits", on_progress=lambda job: seen.append(job.status.state))
    assert seen == [None, "Running", "Succeeded"]


async def test_goes_on_after_the_server_was_away(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job())

    def goes_away() -> str:
        api.answers.extend([(500, {"message": "etcd is away"}), (503, "starting"), (502, "soon")])
        api.status("TrainingJob", "digits", **samples.succeeded())
        return EXPIRE

    api.on_watch[JOBS].append(goes_away)
    await client.wait("digits", timeout_seconds=30)


async def test_a_failed_job_raises_its_failure(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.running()))
    api.on_watch[JOBS].append(becomes(api, **samples.failed()))
    with pytest.raises(JobFailed) as caught:
        await client.wait("digits")
    assert str(caught.value) == (
        "TrainingJob digits failed: BadInput: data.train: pvc://data/digits/train: no such directory "
        "(pod digits-g1-0 on node gpu-node-1, rank 0, exit code 65)"
    )
    assert caught.value.reason == "BadInput"
    assert caught.value.failure is not None
    assert caught.value.failure.last_log_lines == ("reading data", "no such directory")


async def test_a_timeout_carries_the_last_known_state(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.queued()))
    with pytest.raises(WaitTimeout) as caught:
        await client.wait("digits", timeout_seconds=0.3)
    assert str(caught.value) == (
        f"TrainingJob digits is not Succeeded after 0.3 s; it is Queued: {samples.WAITS}"
    )
    assert caught.value.state == "Queued"
    assert caught.value.object is not None


async def test_a_job_that_does_not_exist_is_told_at_once(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError, match="digits does not exist in namespace team-a"):
        await client.wait("digits")


async def test_a_job_deleted_meanwhile(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job())
    api.on_watch[JOBS].append(lambda: api.remove("TrainingJob", "digits"))
    with pytest.raises(NotFoundError, match="was deleted while it was waited for"):
        await client.wait("digits")


async def test_a_job_deleted_and_made_anew_is_another_job(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job())

    def replaced() -> str:
        api.remove("TrainingJob", "digits")
        api.put(samples.job(**samples.succeeded()))
        return EXPIRE

    api.on_watch[JOBS].append(replaced)
    with pytest.raises(NotFoundError, match="made anew"):
        await client.wait("digits")


async def test_deletion_can_be_waited_for(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job())
    api.on_watch[JOBS].append(lambda: api.remove("TrainingJob", "digits"))
    assert await client.wait("digits", for_="deleted") is None
    assert await client.wait("digits", for_="deleted") is None, "gone already"


async def test_an_unreachable_server_is_told_at_once(api: FakeApi, client: AsyncClient) -> None:
    api.answers.append((503, "no"))
    with pytest.raises(UnreachableError):
        await client.wait("digits")


async def test_an_error_of_the_callback_ends_the_wait(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job())
    with pytest.raises(ZeroDivisionError):
        await client.wait("digits", on_progress=lambda job: 1 / 0)


async def test_a_service_is_waited_for_until_ready(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.service())
    api.on_watch["inferenceservices"].append(
        lambda: api.status("InferenceService", "digits", observedGeneration=1, **samples.ready()) and None
    )
    service = await client.wait("digits", kind="infs")
    assert service is not None
    assert service.status.state == "Ready"


def parsed(**status: object) -> TrainingJob:
    return TrainingJob.from_json(samples.job(**status))


@pytest.mark.parametrize(
    ("status", "wanted", "expected"),
    [
        (samples.queued(), "Queued", True),
        (samples.queued(), "Running", False),
        (samples.queued(), "Deleted", False),
        (samples.running(), "Running", True),
        (samples.running(), "Succeeded", False),
        (samples.succeeded(), "Running", True),  # it has been, between two looks
        (samples.succeeded(), "Deleted", False),
        (samples.failed(), "Failed", True),
        (samples.failed(), "Deleted", False),
    ],
)
def test_reached(status: samples.Json, wanted: str, expected: bool) -> None:
    assert reached(parsed(**status), wanted) is expected


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (samples.failed(), "Succeeded"),
        (samples.failed(), "Running"),
        (samples.succeeded(), "Failed"),
        (samples.succeeded(), "Suspended"),
    ],
)
def test_out_of_reach(status: samples.Json, wanted: str) -> None:
    with pytest.raises(JobFailed):
        reached(parsed(**status), wanted)


def test_a_state_of_an_older_spec_does_not_count() -> None:
    body = samples.service(**samples.ready())
    body["metadata"]["generation"] = 2
    service = INFERENCE_SERVICE.model.from_json(body)
    assert isinstance(service, INFERENCE_SERVICE.model)
    assert not reached(service, "Ready")  # type: ignore[arg-type]


@pytest.mark.parametrize(("reason", "hopeless"), [("TrainingJobFailed", True), ("QueueNotFound", False)])
def test_a_stalled_service_fails_only_if_nothing_can_mend_it(reason: str, hopeless: bool) -> None:
    stalled = samples.condition("Stalled", reason=reason, message="so it is")
    service = INFERENCE_SERVICE.model.from_json(samples.service(conditions=[stalled]))
    if hopeless:
        with pytest.raises(
            JobFailed, match="InferenceService digits cannot serve: TrainingJobFailed: so it is"
        ):
            reached(service, "Ready")  # type: ignore[arg-type]
    else:
        assert not reached(service, "Ready")  # type: ignore[arg-type]


def test_wanted_state() -> None:
    assert wanted_state(TRAINING_JOB, None) == "Succeeded"
    assert wanted_state(INFERENCE_SERVICE, None) == "Ready"
    assert wanted_state(TRAINING_JOB, "succeeded") == "Succeeded"
    assert wanted_state(TRAINING_JOB, "deleted") == "Deleted"
    with pytest.raises(MisuseError, match="a TrainingJob is never 'Ready'; it can be Queued"):
        wanted_state(TRAINING_JOB, "Ready")
    with pytest.raises(MisuseError, match="no state to wait for"):
        wanted_state(QUEUE, "Ready")
