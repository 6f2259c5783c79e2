"""The lease in virtual time, with an API server of one object."""

from __future__ import annotations

import asyncio
import copy

import pytest

from datahall.control.lease import Lease, LeaseLostError
from datahall.kube import AlreadyExistsError, ConflictError, NotFoundError, UnavailableError

pytestmark = pytest.mark.looptime


class Server:
    """Keeps one Lease; `down` makes it unreachable, `slow` delays its answers."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.down = False
        self.slow = 0.0
        self.writes = []
        self.reads = 0

    async def _reach(self):
        await asyncio.sleep(self.slow)
        if self.down:
            raise UnavailableError("away")

    async def get(self, *_, **__):
        await self._reach()
        self.reads += 1
        if self.lease is None:
            raise NotFoundError("no lease")
        return copy.deepcopy(self.lease)

    async def create(self, _, body, **__):
        await self._reach()
        if self.lease is not None:
            raise AlreadyExistsError("exists")
        return self._keep(body)

    async def replace(self, _, body, **__):
        await self._reach()
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError("changed")
        return self._keep(body)

    def _keep(self, body):
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        self.writes.append(body["spec"]["holderIdentity"])
        return copy.deepcopy(self.lease)


def lease(server, name):
    return Lease(server, namespace="n", identity=name, duration_seconds=10)


def now():
    return asyncio.get_running_loop().time()


async def test_the_first_takes_it_and_keeps_it():
    server = Server()
    first = lease(server, "a")
    await first.acquire()
    assert (first.held(), first.holder) == (True, "a")
    keep = asyncio.create_task(first.keep())
    await asyncio.sleep(100)
    assert first.held()
    assert server.lease["spec"]["leaseTransitions"] == 0
    keep.cancel()


async def test_the_holder_renews_without_looking_and_looks_when_somebody_wrote():
    server = Server()
    first = lease(server, "a")
    await first.acquire()
    keep, reads = asyncio.create_task(first.keep()), server.reads
    await asyncio.sleep(50)
    assert server.reads == reads
    server._keep(server.lease)  # as whoever adds a label does
    await asyncio.sleep(50)
    assert server.reads == reads + 1
    assert first.held()
    keep.cancel()


async def test_two_never_lead_at_once_and_the_standby_writes_nothing():
    server = Server()
    first, second = lease(server, "a"), lease(server, "b")
    await first.acquire()
    keep = asyncio.create_task(first.keep())
    standby = asyncio.create_task(second.acquire())
    for _ in range(1000):
        await asyncio.sleep(0.1)
        assert not second.held()
    assert set(server.writes) == {"a"}
    assert second.holder == "a"
    keep.cancel()
    standby.cancel()


async def test_a_dead_leader_is_followed_after_the_lease_ran_out():
    server = Server()
    first, second = lease(server, "a"), lease(server, "b")
    await first.acquire()
    died = now()
    await second.acquire()
    assert not first.held()
    assert 10 <= now() - died <= 12.1
    assert server.lease["spec"]["leaseTransitions"] == 1


async def test_the_old_leader_stops_before_the_new_one_may_start():
    server = Server()
    first, second = lease(server, "a"), lease(server, "b")
    await first.acquire()
    standby = asyncio.create_task(second.acquire())
    while not standby.done():
        await asyncio.sleep(0.05)
        assert not (first.held() and second.held())
    assert second.held()


async def test_the_paused_leader_ends():
    server = Server()
    first, second = lease(server, "a"), lease(server, "b")
    await first.acquire()
    await second.acquire()
    with pytest.raises(LeaseLostError, match="held by b"):
        await first.keep()
    assert not first.held()


async def test_a_restart_under_the_same_name_goes_on_at_once():
    server = Server()
    await lease(server, "a").acquire()
    died, again = now(), lease(server, "a")
    await again.acquire()
    assert now() == died
    assert server.lease["spec"]["leaseTransitions"] == 0


async def test_an_unreachable_server_ends_the_lead_in_time():
    server = Server()
    first = lease(server, "a")
    await first.acquire()
    server.down = True
    with pytest.raises(LeaseLostError):
        await first.keep()
    assert now() < 10


async def test_a_server_that_hangs_ends_the_lead_in_time():
    server = Server()
    first = lease(server, "a")
    await first.acquire()
    server.slow = 1000
    with pytest.raises(
        LeaseLostError, match=r"not renewed for 6\.7 s: .* busy .* 0\.0 s,.* not answered for 5\.7 s"
    ):
        await first.keep()
    assert now() < 10


async def test_a_short_outage_is_survived():
    server = Server()
    first = lease(server, "a")
    await first.acquire()
    keep = asyncio.create_task(first.keep())
    server.down = True
    await asyncio.sleep(4)
    server.down = False
    await asyncio.sleep(50)
    assert not keep.done()
    assert first.held()
    keep.cancel()


async def test_released_is_taken_by_the_next_at_its_next_look():
    server = Server()
    first, second = lease(server, "a"), lease(server, "b")
    await first.acquire()
    standby = asyncio.create_task(second.acquire())
    await asyncio.sleep(3)
    await first.release()
    assert not first.held()
    released = now()
    await standby
    assert now() - released <= 2.1


async def test_what_is_not_held_cannot_be_released():
    server = Server()
    first, second = lease(server, "a"), lease(server, "b")
    await first.acquire()
    await second.acquire()
    await first.release()
    assert server.lease["spec"]["holderIdentity"] == "b"


async def test_of_many_that_want_it_at_once_one_gets_it():
    server = Server()
    many = [lease(server, f"p{n}") for n in range(5)]
    tasks = [asyncio.create_task(one.acquire()) for one in many]
    await asyncio.sleep(1)
    assert sum(one.held() for one in many) == 1
    for task in tasks:
        task.cancel()


async def test_an_empty_lease_that_somebody_made_is_taken():
    server = Server()
    server.lease = {"metadata": {"name": "datahall-operator", "resourceVersion": "7"}}
    first = lease(server, "a")
    await first.acquire()
    assert first.held()
    assert server.lease["spec"]["holderIdentity"] == "a"
