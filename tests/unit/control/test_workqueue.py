from __future__ import annotations

import asyncio

import pytest

from datahall.control.workqueue import BACK_OFF_LONGEST_SECONDS, Key, Lane, WorkQueue

pytestmark = pytest.mark.looptime


def key(name: str, namespace: str = "a") -> Key:
    return Key("TrainingJob", namespace, name)


def now() -> float:
    return asyncio.get_running_loop().time()


async def take(queue: WorkQueue) -> Key:
    return (await queue.get())[0]


async def test_a_key_is_queued_once():
    queue = WorkQueue()
    for _ in range(3):
        queue.add(key("x"))
    assert len(queue) == 1
    assert await take(queue) == key("x")
    assert len(queue) == 0


async def test_a_key_added_in_work_is_worked_on_again_and_never_twice_at_once():
    queue = WorkQueue()
    queue.add(key("x"))
    await take(queue)
    queue.add(key("x"))
    queue.add(key("x"))
    assert (len(queue), queue.working) == (0, 1)
    queue.done(key("x"))
    assert await take(queue) == key("x")
    queue.done(key("x"))
    assert (len(queue), queue.working) == (0, 0)


async def test_get_waits_for_a_key():
    queue = WorkQueue()
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(5)
    queue.add(key("x"))
    assert await getter == (key("x"), 5.0)


async def test_each_waiting_worker_gets_a_key():
    queue = WorkQueue()
    getters = [asyncio.create_task(take(queue)) for _ in range(3)]
    await asyncio.sleep(1)
    for name in "xyz":
        queue.add(key(name))
    assert {await getter for getter in getters} == {key("x"), key("y"), key("z")}


async def test_a_worker_that_gives_up_loses_no_key():
    queue = WorkQueue()
    impatient = asyncio.create_task(take(queue))
    patient = asyncio.create_task(take(queue))
    await asyncio.sleep(1)
    impatient.cancel()
    queue.add(key("x"))
    assert await patient == key("x")


async def test_a_delayed_key_comes_in_its_time():
    queue = WorkQueue()
    queue.add_after(key("x"), 5)
    assert queue.delayed == 1
    assert await queue.get() == (key("x"), 5.0)
    assert queue.delayed == 0


async def test_of_two_delays_the_shorter_counts_and_the_key_comes_once():
    queue = WorkQueue()
    queue.add_after(key("x"), 9)
    queue.add_after(key("x"), 3)
    queue.add_after(key("x"), 7)
    await take(queue)
    assert now() == 3
    queue.done(key("x"))
    await asyncio.sleep(20)
    assert len(queue) == 0


async def test_no_delay_is_now():
    queue = WorkQueue()
    queue.add_after(key("x"), 0)
    assert len(queue) == 1


async def test_failures_wait_longer_each_time_until_one_success():
    queue = WorkQueue()
    delays = [queue.retry(key("x")) for _ in range(12)]
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == BACK_OFF_LONGEST_SECONDS
    queue.forget(key("x"))
    assert queue.retry(key("x")) == 0.2


async def test_the_server_may_ask_for_a_longer_wait():
    queue = WorkQueue()
    assert queue.retry(key("x"), at_least=7) == 7
    assert queue.retry(key("y"), at_least=3600) == BACK_OFF_LONGEST_SECONDS
    assert await queue.get() == (key("x"), 7.0)


async def test_namespaces_take_turns():
    queue = WorkQueue()
    for number in range(100):
        queue.add(key(f"many-{number}", "a"))
    queue.add(key("one", "b"))
    order = [await take(queue) for _ in range(4)]
    assert [k.namespace for k in order] == ["a", "b", "a", "a"]


async def test_the_age_is_that_of_the_oldest_ready_key():
    queue = WorkQueue()
    assert queue.oldest_seconds() == 0
    queue.add(key("x"))
    await asyncio.sleep(4)
    queue.add(key("y"))
    assert queue.oldest_seconds() == 4
    await take(queue)
    assert queue.oldest_seconds() == 0


# ---- two lanes


async def test_each_lane_has_its_own_line():
    queue = WorkQueue()
    queue.add(key("x"))
    queue.add(key("y"), Lane.MAKE)
    queue.add(key("x"), Lane.MAKE)
    assert (len(queue), queue.depth(Lane.LOOK), queue.depth(Lane.MAKE)) == (3, 1, 2)
    assert (await queue.get(Lane.MAKE))[0] == key("y")
    assert (await queue.get(Lane.LOOK))[0] == key("x")


async def test_a_key_is_never_in_two_workers_of_different_lanes():
    queue = WorkQueue()
    queue.add(key("x"))
    queue.add(key("x"), Lane.MAKE)
    await queue.get(Lane.LOOK)
    maker = asyncio.create_task(queue.get(Lane.MAKE))
    await asyncio.sleep(5)
    assert not maker.done()
    queue.done(key("x"))
    assert await maker == (key("x"), 0.0)


async def test_a_key_whose_turn_came_while_the_other_lane_had_it_does_not_line_up_again():
    queue = WorkQueue()
    for name in "xyz":
        queue.add(key(name), Lane.MAKE)
    queue.add(key("x"))
    await queue.get(Lane.LOOK)
    assert (await queue.get(Lane.MAKE))[0] == key("y")
    queue.done(key("x"))
    assert (await queue.get(Lane.MAKE))[0] == key("x")
    assert (await queue.get(Lane.MAKE))[0] == key("z")


async def test_a_key_handed_on_by_its_own_work_is_ready_when_that_is_done():
    queue = WorkQueue()
    queue.add(key("x"))
    queue.add(key("y"), Lane.MAKE)
    await queue.get(Lane.LOOK)
    queue.add(key("x"), Lane.MAKE)
    assert queue.ready(Lane.MAKE) == {key("y")}
    queue.done(key("x"))
    assert [(await queue.get(Lane.MAKE))[0] for _ in range(2)] == [key("y"), key("x")]


async def test_looks_that_go_well_do_not_hasten_what_fails_in_the_other_lane():
    queue = WorkQueue()
    delays = []
    for _ in range(4):
        delays.append(queue.retry(key("x"), Lane.MAKE))
        queue.forget(key("x"))
    assert delays == [0.2, 0.4, 0.8, 1.6]
    queue.forget(key("x"), Lane.MAKE)
    assert queue.retry(key("x"), Lane.MAKE) == 0.2
    assert (await queue.get(Lane.MAKE))[0] == key("x")
    assert queue.depth(Lane.LOOK) == 0


async def test_a_change_that_its_first_look_cannot_answer_ages_on():
    queue = WorkQueue()
    queue.add(key("x"))
    await queue.get()
    queue.unanswered(key("x"))
    queue.done(key("x"))
    await asyncio.sleep(3)
    queue.add(key("x"))
    await asyncio.sleep(1)
    assert await queue.get() == (key("x"), 0.0)
    queue.done(key("x"))
    queue.add(key("x"))
    assert await queue.get() == (key("x"), 4.0)
