"""Logs: several ranks, following through pending pods, broken streams and a restart of the gang, to the end."""

from __future__ import annotations

import asyncio

import pytest

from datahall.sdk import AsyncClient, DeniedError, LogLine, NoLogsError, NotFoundError
from tests.unit.sdk import samples
from tests.unit.sdk.fake_api import FakeApi


async def collect(client: AsyncClient, name: str = "digits", **options: object) -> list[str]:
    async with asyncio.timeout(20):
        return [str(line) async for line in client.logs(name, **options)]  # type: ignore[arg-type]


def finish(api: FakeApi, *pods: str) -> None:
    for pod in pods:
        api.log(pod, close=True)
    api.status("TrainingJob", "digits", **samples.succeeded())


async def test_several_ranks_are_prefixed_in_order(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.running()))
    for rank in (1, 0):
        api.put(samples.worker(rank))
        api.log(f"digits-g1-{rank}", f"hello from {rank}", "bye")
    assert await collect(client) == [
        "[rank 0] hello from 0",
        "[rank 0] bye",
        "[rank 1] hello from 1",
        "[rank 1] bye",
    ]


async def test_one_rank_is_not(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.running()))
    for rank in (0, 1):
        api.put(samples.worker(rank))
        api.log(f"digits-g1-{rank}", f"hello from {rank}", "two", "three")
    assert await collect(client, rank=1, tail=2) == ["two", "three"]


async def test_only_the_newest_generation_is_read(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(workers=1, **samples.running()))
    for generation in (1, 2, 10):
        api.put(samples.worker(0, generation=generation, state="failed" if generation < 10 else "running"))
        api.log(f"digits-g{generation}-0", f"generation {generation}")
    lines = [line async for line in client.logs("digits")]
    assert lines == [LogLine("generation 10", "digits-g10-0", 10, 0)]


@pytest.mark.parametrize(
    ("status", "workers", "options", "message"),
    [
        (samples.queued(), 0, {}, f"TrainingJob digits has not started: it is Queued: {samples.WAITS}"),
        (samples.succeeded(), 0, {}, "has ended .Succeeded. and its pods are gone"),
        (samples.running(), 2, {"rank": 5}, "has no log of rank 5"),
    ],
)
async def test_no_logs_says_why(
    api: FakeApi, client: AsyncClient, status: samples.Json, workers: int, options: samples.Json, message: str
) -> None:
    api.put(samples.job(**status))
    for rank in range(workers):
        api.put(samples.worker(rank))
    with pytest.raises(NoLogsError, match=message.replace("(", r"\(").replace(")", r"\)")):
        await collect(client, **options)


async def test_a_job_that_does_not_exist(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError, match="not found"):
        await collect(client)


async def test_follow_waits_for_pods_and_ends_with_the_job(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(workers=1, **samples.queued()))
    api.log("digits-g1-0", "first", "second")

    def pending() -> None:
        api.put(samples.worker(0, state="waiting"))
        api.put(samples.worker(0))

    def reading() -> None:
        api.log("digits-g1-0", "third")
        finish(api, "digits-g1-0")

    api.on_watch["pods"].append(pending)
    api.on_log["digits-g1-0"] = reading
    assert await collect(client, follow=True) == ["first", "second", "third"]


async def test_follow_survives_a_restart_of_the_gang(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.running()))
    for rank in (0, 1):
        api.put(samples.worker(rank))
        api.log(f"digits-g1-{rank}", f"{rank} of 1")

    def restarts() -> None:
        for rank in (0, 1):
            api.log(f"digits-g1-{rank}", close=True)
            api.remove("Pod", f"digits-g1-{rank}")
        api.status("TrainingJob", "digits", state="Restarting", conditions=[samples.condition("Restarting")])
        for rank in (0, 1):
            api.log(f"digits-g2-{rank}", f"{rank} of 2")
            api.put(samples.worker(rank, generation=2))

    api.on_log["digits-g1-1"] = restarts
    api.on_log["digits-g2-1"] = lambda: finish(api, "digits-g2-0", "digits-g2-1")
    lines = await collect(client, follow=True)
    assert sorted(lines) == ["[rank 0] 0 of 1", "[rank 0] 0 of 2", "[rank 1] 1 of 1", "[rank 1] 1 of 2"]
    assert lines.index("[rank 1] 1 of 1") < lines.index("[rank 1] 1 of 2")


async def test_a_broken_stream_goes_on_without_gap_or_repeat(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(workers=1, **samples.running()))
    api.put(samples.worker(0))
    api.log("digits-g1-0", *(f"line {number}" for number in range(10)))
    api.logs["digits-g1-0"].cut_after = 6
    finish(api, "digits-g1-0")
    assert await collect(client, follow=True) == [f"line {number}" for number in range(10)]


async def test_follow_of_a_job_that_has_ended(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(workers=1, **samples.failed()))
    api.put(samples.worker(0, generation=4, state="failed"))
    api.log("digits-g4-0", "a", "b", "boom", close=True)
    assert await collect(client, follow=True, tail=1) == ["boom"]


async def test_follow_ends_when_the_job_is_deleted(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(workers=1, **samples.queued()))
    api.on_watch["trainingjobs"].append(lambda: api.remove("TrainingJob", "digits") and None)
    assert await collect(client, follow=True) == []


async def test_follow_tells_that_pods_may_not_be_read(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.queued()))
    api.forbidden.add("pods")
    with pytest.raises(DeniedError, match="pods is forbidden"):
        await collect(client, follow=True)


async def test_leaving_early_ends_all_readers(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.job(**samples.running()))
    for rank in (0, 1):
        api.put(samples.worker(rank))
        api.log(f"digits-g1-{rank}", "hello")
    before = len(asyncio.all_tasks())
    stream = client.logs("digits", follow=True)
    assert str(await anext(stream)).endswith("hello")
    await stream.aclose()  # type: ignore[attr-defined]
    assert len(asyncio.all_tasks()) == before


async def test_replicas_of_a_service_are_prefixed_by_pod(api: FakeApi, client: AsyncClient) -> None:
    api.put(samples.service())
    for suffix in ("x", "y"):
        pod = samples.worker(0)
        pod["metadata"] = {
            "name": f"digits-{suffix}",
            "namespace": "team-a",
            "labels": {"datahall.dev/inference-service": "digits"},
        }
        pod["status"]["containerStatuses"][0]["name"] = "server"
        api.put(pod)
        api.log(f"digits-{suffix}", f"serving {suffix}")
    assert await collect(client, kind="InferenceService") == ["[digits-x] serving x", "[digits-y] serving y"]
