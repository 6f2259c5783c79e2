"""The queue where things go wrong: a key that fails for days, a worker that leaves, many workers on few keys."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from datahall.control.workqueue import BACK_OFF_LONGEST_SECONDS, Key, WorkQueue

pytestmark = pytest.mark.looptime

A, B, C = (Key("TrainingJob", "team-a", name) for name in "abc")


async def test_a_key_that_fails_for_days_is_still_retried():
    queue = WorkQueue()
    assert [queue.retry(A) for _ in range(5000)][-1] == BACK_OFF_LONGEST_SECONDS


async def test_a_worker_that_was_woken_and_cancelled_leaves_the_key_to_another():
    queue = WorkQueue()
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add(A)  # wakes the first, which never comes to take it
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    key, _ = await asyncio.wait_for(second, 1)
    assert key == A


async def test_sixteen_workers_never_share_a_key():
    queue, in_work, looks = WorkQueue(), set(), 0

    async def work() -> None:
        nonlocal looks
        while True:
            key, _ = await queue.get()
            assert key not in in_work
            in_work.add(key)
            await asyncio.sleep(0.1)
            in_work.discard(key)
            looks += 1
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(16)]
    for step in range(200):
        for key in (A, B, C):
            queue.add(key)
            queue.add_after(key, 0.01 * step)
        await asyncio.sleep(0.03)
    await asyncio.sleep(10)
    for worker in workers:
        worker.cancel()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    assert (len(queue), queue.working) == (0, 0)
    assert looks >= 3 * 200 * 0.03 / 0.1 - 3
