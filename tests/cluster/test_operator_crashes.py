"""The operator killed -9 at every write of a job's life, and every write answered wrongly: the end is the same.

One life, nearly always: two workers run, one fails, the gang restarts, worker 0 succeeds; and one in which a gang makes
room for another. The kubelet that plays it acts on what it sees alone, so it needs no cue from the operator that may be
dead at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datahall.kube import KubeError
from datahall.kube.resources import PODS, QUEUES, SERVICES, TRAINING_JOBS
from local_cluster.api import ApiServer
from tests.cluster.cluster import SUCCEEDED, Cluster
from tests.cluster.operator_process import Operator
from tests.cluster.pod_diary import PodDiary
from tests.cluster.proxy import Call, Fault, Proxy
from tests.cluster.statuses import without_times
from tests.cluster.waiting import until
from tests.cluster.warm_start import WarmStart
from tests.conftest import make_namespace

pytestmark = pytest.mark.apiserver

LIFE = [
    "PATCH trainingjobs/status  Starting",
    "POST services -workers",
    "POST pods -g1-0",
    "POST pods -g1-1",
    "PATCH trainingjobs/status  Running",
    "PATCH trainingjobs/status  Restarting",
    "DELETE pods -g1-0",
    "DELETE pods -g1-1",
    "POST services -workers",
    "POST pods -g2-0",
    "POST pods -g2-1",
    "PATCH trainingjobs/status  Running",
    "PATCH trainingjobs/status  Succeeded",
]
"""The writes of the undisturbed life; the two pods of a gang go out side by side, in either order."""

FAILED = {"result": "Failed", "cause": "UserCode", "message": "ValueError: x", "lastLogLines": ["x"]}


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmStart]:
    with WarmStart() as parent:
        yield parent


@pytest.fixture
async def cluster(plane: ApiServer) -> AsyncIterator[Cluster]:
    async with Cluster.open(plane, make_namespace(plane), nodes=8, quota=1000) as opened:
        yield opened


class Kubelet:
    """Plays the life of every job of the namespace; `async with` starts and ends it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def __aenter__(self) -> Kubelet:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            pods: dict[str, dict[str, Any]] = {}
            for pod in await self._cluster.listed(PODS):
                job = pod["metadata"]["labels"]["datahall.dev/training-job"]
                pods.setdefault(job, {})[pod["metadata"]["name"]] = pod
            for job in await self._cluster.listed(TRAINING_JOBS):
                name = job["metadata"]["name"]
                with contextlib.suppress(KubeError):
                    await self._tick(name, job.get("status", {}), pods.get(name, {}))
            await asyncio.sleep(0.04)

    async def _tick(self, job: str, status: dict[str, Any], pods: dict[str, Any]) -> None:
        cluster = self._cluster
        for name, pod in pods.items():
            if "deletionTimestamp" in pod["metadata"]:
                await cluster.delete(PODS, name, grace_seconds=0)
        generation = status.get("generation", 0)
        gang = [pods.get(f"{job}-g{generation}-{rank}") for rank in (0, 1)]
        if not all(gang):
            return
        for pod in gang:
            if not pod["spec"].get("nodeName"):
                await cluster.run(pod["metadata"]["name"])
        if status.get("state") != "Running" or any(pod["status"]["phase"] != "Running" for pod in gang):
            return
        if status.get("restarts", {}).get("counted", 0) == 0:
            await cluster.end(f"{job}-g{generation}-1", 1, FAILED)
        else:
            await cluster.end(f"{job}-g{generation}-1", 0)
            await cluster.end(f"{job}-g{generation}-0", 0, SUCCEEDED)


async def picture(cluster: Cluster, job: str) -> dict[str, Any]:
    """Everything that is left of a job, without times and without its name."""
    status = without_times(await cluster.status(job))
    status["failure"] = {k: v for k, v in status["failure"].items() if k != "pod"}
    pods = await cluster.pods(job)
    services = [s for s in await cluster.listed(SERVICES) if s["metadata"]["name"].startswith(f"{job}-")]
    text = {
        "status": status,
        "pods": sorted((name.removeprefix(job), pod["status"]["phase"]) for name, pod in pods.items()),
        "services": [s["metadata"]["name"].removeprefix(job) for s in services],
    }
    return _renamed(text, job)


def same(found: dict[str, Any], expected: dict[str, Any], when: str) -> None:
    lines = [json.dumps(side, indent=1, sort_keys=True).splitlines() for side in (expected, found)]
    assert found == expected, "\n".join([when, *difflib.unified_diff(*lines, "undisturbed", "found", n=2)])


def _renamed(value: Any, job: str) -> Any:
    if isinstance(value, dict):
        return {k: _renamed(v, job) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(v, job) for v in value]
    # The planner may choose another node; which one says nothing about the life.
    return (
        re.sub(r"test-[0-9a-f]+-\d+", "NODE", value.replace(job, "JOB")) if isinstance(value, str) else value
    )


def of(job: str, call: Call) -> bool:
    """Whether a call writes the job's status or one of its children."""
    return call.of_a_job and (call.name == job or call.name.startswith(f"{job}-"))


def site(job: str, call: Call) -> str:
    state = str((call.body or {}).get("status", {}).get("state", ""))
    return f"{call.site} {call.name.removeprefix(job)} {state}".strip()


async def test_killed_at_every_write_the_job_ends_the_same(
    plane: ApiServer, cluster: Cluster, warm: WarmStart, tmp_path: Path
) -> None:
    async with Proxy(plane, tmp_path) as proxy, Kubelet(cluster), PodDiary(cluster) as diary:
        operator = Operator(proxy.login, namespace=cluster.namespace, folder=tmp_path, warm=warm)
        try:
            operator.start()
            await cluster.job("calm")
            await cluster.state("Succeeded", "calm")
            expected = await picture(cluster, "calm")
            sites = [site("calm", call) for call in proxy.calls if of("calm", call)]
            assert sorted(sites) == sorted(LIFE)

            for number in range(len(LIFE)):
                for when in ("before", "after"):
                    job = f"job-{number}-{when}"
                    killed = _kill_at(proxy, operator, job, number, when)
                    await cluster.job(job)
                    await until(lambda killed=killed: _is(killed), what=f"{job} is killed", seconds=15)
                    operator.start()
                    await cluster.state("Succeeded", job, seconds=30)
                    same(await picture(cluster, job), expected, f"killed {when} {LIFE[number]}")
                    assert operator.running
            diary.check_fence()
            assert len(diary.entries) == 6 * (1 + 2 * len(LIFE))
        finally:
            operator.kill()


async def _is(flags: list[bool]) -> bool:
    return bool(flags)


def _kill_at(proxy: Proxy, operator: Operator, job: str, number: int, when: str) -> list[bool]:
    """Have the operator killed at its write of that number for that job; a list that is filled by it."""
    done: list[bool] = []
    count = 0
    chosen = False

    def kill() -> None:
        operator.kill()
        done.append(True)

    def judge(call: Call) -> Fault | None:
        nonlocal count, chosen
        if chosen or not of(job, call):
            return None
        count += 1
        if count <= number:
            return None
        chosen = True  # at once: pods are made side by side, and a second kill would hit the next operator
        return Fault(before=kill) if when == "before" else Fault(after=kill)

    proxy.judge = judge
    return done


FAULTS: dict[str, Callable[[], Fault]] = {
    "409": lambda: Fault(status=409),
    "429": lambda: Fault(status=429, headers={"Retry-After": "1"}),
    "500": lambda: Fault(status=500),
    "reset": lambda: Fault(reset=True),
    "504 after commit": lambda: Fault(lost=True),
    "cut after commit": lambda: Fault(after=lambda: None),
}


EVICTION = [
    "PATCH trainingjobs/status  Queued",
    "DELETE pods -g1-0",
    "DELETE pods -g1-1",
]
"""The writes by which a gang makes room for another."""


class TwoJobs(Kubelet):
    """The kubelet of a hall in which `low` runs until it was ended for another, and others end once they run."""

    async def _tick(self, job: str, status: dict[str, Any], pods: dict[str, Any]) -> None:
        cluster = self._cluster
        for name, pod in pods.items():
            if "deletionTimestamp" in pod["metadata"]:
                await cluster.delete(PODS, name, grace_seconds=0)
            elif not pod["spec"].get("nodeName"):
                await cluster.run(name)
        if status.get("state") != "Running" or (job.startswith("low") and not status.get("preemptions")):
            return
        for name, pod in sorted(pods.items(), reverse=True):
            if pod["status"]["phase"] == "Running":
                await cluster.end(name, 0, SUCCEEDED if name.endswith("-0") else "")


async def test_killed_at_every_write_of_an_eviction_both_jobs_end_well_and_it_counts_once(
    plane: ApiServer, warm: WarmStart, tmp_path: Path
) -> None:
    async with (
        Cluster.open(plane, make_namespace(plane), nodes=1, quota=8) as cluster,
        Proxy(plane, tmp_path) as proxy,
        TwoJobs(cluster),
        PodDiary(cluster) as diary,
    ):
        no_minimum = {"spec": {"minimumRunSeconds": 0}}
        await cluster.client.merge_patch(QUEUES, no_minimum, name=cluster.namespace, field_manager="test")
        operator = Operator(proxy.login, namespace=cluster.namespace, folder=tmp_path, warm=warm)
        try:
            operator.start()
            for number in range(len(EVICTION)):
                for when in ("before", "after"):
                    low, high = (f"{kind}-{number}-{when}" for kind in ("low", "high"))
                    await cluster.job(low, resources={"gpus": 4})
                    await cluster.state("Running", low)
                    sites = len(proxy.calls)
                    killed = _kill_at(proxy, operator, low, number, when)
                    await cluster.job(high, workers=1, resources={"gpus": 8}, priority=1000)
                    await until(lambda killed=killed: _is(killed), what=f"{low} is killed", seconds=15)
                    operator.start()
                    for job in (high, low):
                        await cluster.state("Succeeded", job, seconds=30)
                    status = await cluster.status(low)
                    assert status["preemptions"] == 1, f"killed {when} {EVICTION[number]}"
                    assert status["restarts"] == {"counted": 0, "uncounted": 1}
                    assert status["preemptedBy"]["job"] == f"{cluster.namespace}/{high}"
                    assert (await cluster.status(high)).get("preemptions") is None
                    calls = [site(low, call) for call in proxy.calls[sites:] if of(low, call)]
                    assert sorted(dict.fromkeys(calls))[:2] == EVICTION[1:]
                    assert calls[0] == EVICTION[0], "the status goes first"
            diary.check_fence()
        finally:
            operator.kill()


async def test_every_write_answered_wrongly_converges(
    plane: ApiServer, cluster: Cluster, warm: WarmStart, tmp_path: Path
) -> None:
    async with Proxy(plane, tmp_path) as proxy, Kubelet(cluster), PodDiary(cluster) as diary:
        operator = Operator(proxy.login, namespace=cluster.namespace, folder=tmp_path, warm=warm)
        try:
            operator.start()
            await cluster.job("calm")
            await cluster.state("Succeeded", "calm")
            expected = await picture(cluster, "calm")
            rules: dict[str, tuple[int, Fault]] = {}
            for number in range(len(LIFE)):
                for index, fault in enumerate(FAULTS.values()):
                    rules[f"job-{number:02d}-{index}"] = (number, fault())
            seen: dict[str, int] = Counter()

            def judge(call: Call) -> Fault | None:
                job = next((j for j in rules if of(j, call)), None)
                if job is None:
                    return None
                seen[job] += 1
                number, fault = rules[job]
                return fault if seen[job] == number + 1 else None

            proxy.judge = judge
            names = list(rules)
            # Not all at once: the kubelet is one task, and a job's patience for its workers is real time.
            for start in range(0, len(names), 30):
                batch = names[start : start + 30]
                for job in batch:
                    await cluster.job(job)
                for job in batch:
                    await cluster.state("Succeeded", job, seconds=60)
            for job, (number, _) in rules.items():
                which = list(FAULTS)[int(job[-1])]
                same(await picture(cluster, job), expected, f"{which} at {LIFE[number]}")
            diary.check_fence()
            assert "reconcile crashed" not in operator.log.read_text()
        finally:
            operator.kill()


async def test_an_ordinary_job_costs_at_most_four_writes_beside_its_pods(
    plane: ApiServer, cluster: Cluster, warm: WarmStart, tmp_path: Path
) -> None:
    async with Proxy(plane, tmp_path) as proxy:
        operator = Operator(proxy.login, namespace=cluster.namespace, folder=tmp_path, warm=warm)
        try:
            operator.start()
            await cluster.job()
            await cluster.gang("digits-g1-0", "digits-g1-1")
            await cluster.run("digits-g1-0", "digits-g1-1")
            await cluster.state("Running")
            await cluster.end("digits-g1-1", 0)
            await cluster.end("digits-g1-0", 0, SUCCEEDED)
            await cluster.state("Succeeded")
            calls = [site("digits", call) for call in proxy.calls if of("digits", call)]
        finally:
            operator.kill()
    assert [call for call in calls if call.startswith("POST pods")] == ["POST pods -g1-0", "POST pods -g1-1"]
    beside = [call for call in calls if not call.startswith("POST pods")]
    assert beside == [
        "PATCH trainingjobs/status  Starting",
        "POST services -workers",
        "PATCH trainingjobs/status  Running",
        "PATCH trainingjobs/status  Succeeded",
    ]
