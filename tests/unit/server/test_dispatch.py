"""The dispatcher with a made-up engine, in virtual time: a second of waiting takes none."""

import asyncio

import numpy as np
import pytest

from datahall_server.batching import BatchLimits
from datahall_server.dispatch import Dispatcher
from datahall_server.engine.client import BatchResult
from datahall_server.engine.protocol import Instance, Problem
from datahall_server.errors import (
    ClientGoneError,
    DeadlineExceededError,
    EngineDiedError,
    InvalidInputError,
    ModelFailedError,
    OverloadedError,
    TooLargeError,
)
from datahall_server.metrics import Metrics


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to the next timer instead of waiting for it."""

    def __init__(self):
        super().__init__()
        self._virtual = 0.0

    def time(self):
        return self._virtual

    def _run_once(self):
        due = [timer._when for timer in self._scheduled if not timer._cancelled]
        if not self._ready and due:
            self._virtual = max(self._virtual, min(due))
        super()._run_once()


def virtual(test):
    """Run the test in virtual time, with a bench."""

    def run():
        async def main():
            bench = Bench(FakeEngine())
            try:
                await test(bench)
            finally:
                bench.feeding.cancel()

        # Not by asyncio.run, which would forget pytest-asyncio's own loop and leave it unclosed.
        loop = VirtualLoop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()

    run.__name__ = test.__name__
    return run


class FakeEngine:
    """Takes `seconds` per batch; text `bad` is a bad input, `nan` a failing model, `die` ends the engine."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.batches: list[list[str]] = []

    async def compute(self, instances):
        names = [bytes(instance.data).decode() for instance in instances]
        self.batches.append(names)
        await asyncio.sleep(self.seconds)
        if "die" in names:
            raise EngineDiedError("the engine process was killed by SIGKILL")
        problems = {"bad": Problem("invalid_input", "is bad"), "nan": Problem("model_failed", "not finite")}
        scores = np.array([[len(name), 0.5] for name in names], dtype=np.float32)
        return BatchResult(scores, [problems.get(name) for name in names], self.seconds)


class Bench:
    def __init__(self, engine: FakeEngine, **limits) -> None:
        self.engine = engine
        self.metrics = Metrics()
        numbers = {"max_batch_size": 4, "max_delay_seconds": 0.1, "max_queue": 8} | limits
        self.dispatcher = Dispatcher(
            engine=engine, limits=BatchLimits(**numbers), timeout_seconds=10, metrics=self.metrics
        )
        self.feeding = asyncio.create_task(self.dispatcher.run())

    def submit(self, *names: str, timeout: float = 10.0, gone=None) -> asyncio.Task:
        deadline = asyncio.get_running_loop().time() + timeout
        instances = [Instance("text", name.encode()) for name in names]
        return asyncio.create_task(
            self.dispatcher.submit(instances, param="inputs", deadline=deadline, gone=gone)
        )


@virtual
async def test_requests_that_come_together_are_computed_together(bench):
    answers = await asyncio.gather(bench.submit("a"), bench.submit("bbb", "cc"))
    assert bench.engine.batches == [["a", "bbb", "cc"]]
    assert answers[0][:, 0].tolist() == [1]
    assert answers[1][:, 0].tolist() == [3, 2]


@virtual
async def test_a_lone_request_takes_the_delay_and_its_own_time(bench):
    started = asyncio.get_running_loop().time()
    await bench.submit("a")
    assert asyncio.get_running_loop().time() - started == pytest.approx(1.1, abs=0.01)


@virtual
async def test_a_request_larger_than_a_batch_is_put_together_again(bench):
    names = [c * (i + 1) for i, c in enumerate("abcdefg")]
    scores = await bench.submit(*names)
    assert [len(batch) for batch in bench.engine.batches] == [4, 3]
    assert scores[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]


@virtual
async def test_a_request_larger_than_the_queue_can_never_be_taken(bench):
    with pytest.raises(TooLargeError, match="9 inputs in one request, at most 8"):
        await bench.submit(*"abcdefghi")


@virtual
async def test_a_full_queue_refuses_with_a_time(bench):
    running = bench.submit(*"abcd")
    await asyncio.sleep(0.01)
    waiting = bench.submit(*"efghijkl")
    await asyncio.sleep(0.01)
    with pytest.raises(OverloadedError, match="8 of 8") as refused:
        await bench.submit("m")
    assert refused.value.retry_after_seconds >= 1
    await asyncio.gather(running, waiting)
    assert len(await bench.submit("m")) == 1


@virtual
async def test_a_late_request_is_told_and_not_computed(bench):
    running = bench.submit(*"abcd")
    await asyncio.sleep(0.01)
    with pytest.raises(DeadlineExceededError, match="timeoutSeconds"):
        await bench.submit("late", timeout=0.5)
    assert bench.dispatcher.waiting == 0
    await running
    await bench.submit("next")
    assert ["next"] in bench.engine.batches
    assert not any("late" in batch for batch in bench.engine.batches)
    assert bench.metrics.registry.get_sample_value("datahall_server_expired_instances_total") == 1


@virtual
async def test_a_request_late_while_it_is_computed_does_not_harm_its_batch(bench):
    with_it = bench.submit("a")
    with pytest.raises(DeadlineExceededError):
        await bench.submit("late", timeout=0.5)
    assert len(await with_it) == 1


@virtual
async def test_a_client_that_hangs_up_takes_its_work_along(bench):
    running = bench.submit(*"abcd")
    await asyncio.sleep(0.01)
    with pytest.raises(ClientGoneError):
        await bench.submit("gone", gone=lambda: asyncio.sleep(0.2))
    assert bench.dispatcher.waiting == 0
    await running


@virtual
async def test_a_cancelled_request_leaves_the_queue(bench):
    running = bench.submit(*"abcd")
    await asyncio.sleep(0.01)
    task = bench.submit("x", "y")
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert bench.dispatcher.waiting == 0
    await running


@virtual
async def test_one_bad_instance_fails_its_request_alone(bench):
    good, bad, failed = bench.submit("a"), bench.submit("b", "bad"), bench.submit("nan")
    await asyncio.wait([good, bad, failed])
    assert len(good.result()) == 1
    assert isinstance(bad.exception(), InvalidInputError)
    assert bad.exception().param == "inputs[1]"
    assert isinstance(failed.exception(), ModelFailedError)


@virtual
async def test_the_rest_of_a_failed_request_is_not_computed(bench):
    with pytest.raises(InvalidInputError):
        await bench.submit("bad", *"bcdefgh")
    await asyncio.sleep(5)
    assert len(bench.engine.batches) == 1


@virtual
async def test_a_dead_engine_answers_all_that_is_held_and_all_that_comes(bench):
    computing = bench.submit("die", "b", "c", "d")
    await asyncio.sleep(0.01)
    queued = bench.submit("e")
    await asyncio.wait([computing, queued, bench.feeding])
    for task in (computing, queued):
        assert isinstance(task.exception(), EngineDiedError)
        assert "SIGKILL" in str(task.exception())
    with pytest.raises(EngineDiedError):
        await bench.submit("f")
