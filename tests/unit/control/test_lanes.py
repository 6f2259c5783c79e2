"""Lanes: what is told never waits behind what is made, nor what moves on behind telling others that they wait."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from datahall.control.actions import Action, Announce, Create, Delete
from datahall.control.dispatch import JOB, PLAN
from datahall.control.reconcilers import PODS_AT_ONCE
from datahall.control.workqueue import Key, Lane
from datahall.kube import Resource
from datahall.kube.resources import PODS, QUEUES, SERVICES
from tests.unit.control.hall import Hall, Json

pytestmark = pytest.mark.looptime

WRITE_SECONDS = 0.5
DIGITS = Key(JOB, "team-a", "digits")


class Server:
    """Takes its time for every write; what it did is in `done`, in order, with the time."""

    def __init__(self, hall: Hall) -> None:
        self.hall = hall
        self.done: list[tuple[str, str, float]] = []
        self.in_flight = self.most_in_flight = 0
        self._numbers = itertools.count(1)

    async def write_status(self, resource: Resource, *, after: Json, meta: Json, **_: Any) -> None:
        if resource == QUEUES:
            return
        await asyncio.sleep(WRITE_SECONDS)
        view = self.hall.tables.jobs.get(meta["namespace"], meta["name"])
        assert view is not None
        assert view.job is not None
        self._tell("status", meta["name"])
        self.hall.change_job(view.job.to_json(), status=after)

    async def run(self, action: Action) -> None:
        pods = int(action.resource == PODS)
        self.in_flight += pods
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(WRITE_SECONDS)
        self.in_flight -= pods
        if isinstance(action, Delete):
            self._tell("delete", action.name)
            return
        name = action.body["metadata"]["name"]
        self._tell(action.resource.kind, name)
        if isinstance(action, Create) and action.resource == PODS:
            body = {**action.body, "metadata": {**action.body["metadata"], **self.hall.meta(name)}}
            body["metadata"]["labels"] = action.body["metadata"]["labels"]
            self.hall.tables.pods.put(body)

    def tell(self, _: str, __: str, name: str, ___: str, news: Announce) -> None:
        self._tell(str(news.reason), name)

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.done]

    def _tell(self, kind: str, name: str) -> None:
        self.done.append((kind, name, asyncio.get_running_loop().time()))


@pytest.fixture
async def hall() -> Hall:
    return Hall(nodes=4, nominal=32)


@pytest.fixture
async def server(hall: Hall) -> Server:
    server: Any = Server(hall)
    hall.reconcilers._executor = hall.reconcilers._recorder = server
    return server


async def work(hall: Hall, *, seconds: float, lookers: int = 2, makers: int = 2, tellers: int = 0) -> None:
    """What the operator's workers do, for so long."""

    async def worker(lane: Lane) -> None:
        while True:
            key, _ = await hall.queue.get(lane)
            await hall.reconcilers.reconcile(key, lane)
            hall.queue.done(key)

    lanes = [Lane.LOOK] * lookers + [Lane.MAKE] * makers + [Lane.TELL] * tellers
    workers = [asyncio.create_task(worker(lane)) for lane in lanes]
    done, pending = await asyncio.wait(workers, timeout=seconds)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()


async def test_a_look_writes_the_status_and_leaves_the_children_to_the_other_lane(hall, server):
    hall.job(places=True, workers=2, gpus=1)
    hall.queue_keys()
    await hall.reconcilers.reconcile(DIGITS)
    assert server.kinds() == ["status"]
    assert hall.queue.ready(Lane.MAKE) == {DIGITS}
    await hall.reconcilers.reconcile(DIGITS, Lane.MAKE)
    assert server.kinds() == ["status", "Service", "Pod", "Pod"]


async def test_what_is_made_is_decided_anew(hall, server):
    job = hall.job(places=True, workers=2, gpus=1)
    await hall.reconcilers.reconcile(DIGITS)
    view = hall.tables.jobs.get("team-a", "digits")
    hall.change_job(view.job.to_json(), spec={"suspend": True})
    hall.queue_keys()
    await hall.reconcilers.reconcile(DIGITS, Lane.MAKE)
    assert server.kinds() == ["status"]  # nothing made, and nothing told from this lane
    assert DIGITS in hall.queue.ready()
    await hall.reconcilers.reconcile(DIGITS)
    assert server.kinds() == ["status", "status", "SuspendRequested"]
    assert hall.queue.ready(Lane.MAKE) == set()
    hall.delete_job(job)
    await hall.reconcilers.reconcile(DIGITS, Lane.MAKE)
    assert server.kinds()[3:] == []


async def test_statuses_do_not_wait_for_pods(hall, server):
    """Twelve jobs: with two writers of statuses the last is written after six writes, pods or not."""
    for number in range(12):
        hall.job(f"job-{number:02}", places=True, workers=2, gpus=1)
    await work(hall, seconds=60)
    told = [at for kind, _, at in server.done if kind == "status"]
    assert len(told) == 12
    assert max(told) == pytest.approx(6 * WRITE_SECONDS)
    assert sum(kind == "Pod" for kind in server.kinds()) == 24


async def test_pods_do_not_wait_for_the_end_of_the_looks(hall, server):
    """Looks that never end keep the workers of their own lane busy, and no others."""
    hall.job("quiet", places=True, workers=2, gpus=1)
    noisy = [hall.job(f"noisy-{number}", suspend=True) for number in range(4)]

    async def noise() -> None:
        for message in itertools.count():
            for job in noisy:
                view = hall.tables.jobs.get("team-a", job["metadata"]["name"])
                hall.change_job(view.job.to_json(), spec={"priority": message % 2})
            await asyncio.sleep(WRITE_SECONDS / 4)

    task = asyncio.create_task(noise())
    await work(hall, seconds=30)
    task.cancel()
    made = [at for kind, name, at in server.done if kind == "Pod" and name.startswith("quiet")]
    assert len(made) == 2
    assert max(made) < 10


async def test_those_who_only_wait_are_told_in_a_lane_of_their_own(hall, server):
    names = [f"job-{number}" for number in range(8)]
    for name in names:
        hall.job(name, workers=1, gpus=8)  # four of them fit
    await work(hall, seconds=1)
    hall.queue.add(PLAN)
    await work(hall, seconds=30)
    waiting = hall.queue.ready(Lane.TELL)
    assert len(waiting) == 4
    assert {name for kind, name, _ in server.done if kind == "status"} == set(names) - {
        key.name for key in waiting
    }
    assert sum(kind == "Pod" for kind in server.kinds()) == 4
    await work(hall, seconds=30, tellers=1)
    assert {name for kind, name, _ in server.done if kind == "status"} == set(names)
    assert hall.queue.ready(Lane.TELL) == set()


async def test_pods_in_flight_are_bounded_whatever_the_gangs(hall, server):
    for number in range(4):
        hall.job(f"job-{number}", places=True, workers=PODS_AT_ONCE, gpus=0)
    await work(hall, seconds=60, makers=4)
    assert sum(kind == "Pod" for kind in server.kinds()) == 4 * PODS_AT_ONCE
    assert server.most_in_flight == PODS_AT_ONCE


async def test_the_service_comes_before_the_pods_that_need_its_name(hall, server):
    hall.job(places=True, workers=2, gpus=1)
    await work(hall, seconds=10)
    assert server.kinds().index(SERVICES.kind) < server.kinds().index(PODS.kind)


async def test_the_time_to_a_first_status_counts_from_the_arrival_of_the_job(hall, server):
    hall.job(gpus=1)
    key, arrived = await hall.queue.get()
    await hall.reconcilers.reconcile(key)
    hall.queue.done(key)
    assert server.done == []  # the planner has not said anything yet
    await asyncio.sleep(0.5)
    hall.cycle()
    hall.queue.add(key)
    assert await hall.queue.get() == (key, arrived)
    await hall.reconcilers.reconcile(key)
    assert server.kinds() == ["status"]
