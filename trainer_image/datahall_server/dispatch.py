"""Carries out what `batching.py` decides: one task feeds the engine, each request waits for its own instances.

The request side is `submit`: it enters the queue or is refused at once, then waits for its rows, its deadline or
its client's hang-up, whichever is first, and withdraws what nobody waits for any more.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import logs
from .batching import BatchLimits, BatchQueue, Decision, Entry, RateMeter
from .engine.client import BatchResult, Engine
from .engine.protocol import Instance, Problem
from .errors import (
    ClientGoneError,
    DeadlineExceededError,
    EngineDiedError,
    InvalidInputError,
    ModelFailedError,
    OverloadedError,
    ServerError,
    TooLargeError,
)
from .metrics import Metrics

_log = logging.getLogger(__name__)

Scores = npt.NDArray[np.float32]
HangUp = Callable[[], Coroutine[Any, Any, None]]

_PROBLEMS: dict[str, type[ServerError]] = {
    "invalid_input": InvalidInputError,
    "too_large": TooLargeError,
    "model_failed": ModelFailedError,
}


class _Held:
    """A request that waits: its rows come in as batches are computed, in any number of pieces."""

    def __init__(self, size: int, param: str) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows: list[Scores | None] = [None] * size
        self._missing = size
        self._param = param

    def settle(self, index: int, row: Scores, problem: Problem | None) -> None:
        if problem is not None:
            self.fail(_PROBLEMS[problem.kind](problem.message, param=f"{self._param}[{index}]"))
            return
        self._rows[index] = row
        self._missing -= 1
        if self._missing == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: ServerError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    @property
    def complete(self) -> bool:
        return self._missing == 0

    def abandon(self) -> None:
        """Nobody waits any more; a failure that nobody will read is read here, else asyncio logs it as forgotten."""
        if not self.done.cancel() and not self.done.cancelled():
            self.done.exception()

    def scores(self) -> Scores:
        return np.stack([row for row in self._rows if row is not None])


class Dispatcher:
    """The queue with its clock and its engine."""

    def __init__(
        self, *, engine: Engine, limits: BatchLimits, timeout_seconds: float, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self._queue: BatchQueue[tuple[int, Instance]] = BatchQueue(limits)
        self._rate = RateMeter()
        self._changed = asyncio.Event()
        self._dead: EngineDiedError | None = None
        metrics.queue_depth.set_function(lambda: len(self._queue))

    @property
    def waiting(self) -> int:
        """Instances in the queue."""
        return len(self._queue)

    async def submit(
        self,
        instances: Sequence[Instance],
        *,
        param: str,
        deadline: float,
        gone: HangUp | None = None,
    ) -> Scores:
        """Classify a request's instances.

        Args:
            instances: What to classify.
            param: The field they came in, for the error messages.
            deadline: On the loop's clock.
            gone: Starts a wait that completes when the client hangs up.

        Returns:
            float32 [len(instances), classes].
        """
        loop = asyncio.get_running_loop()
        if self._dead is not None:
            raise EngineDiedError(self._dead.message)
        most = self._queue.limits.max_queue
        if len(instances) > most:
            raise TooLargeError(
                f"{len(instances)} inputs in one request, at most {most} are taken", param=param
            )
        held = _Held(len(instances), param)
        if not self._queue.offer(held, enumerate(instances), now=loop.time(), deadline=deadline):
            raise OverloadedError(
                f"the queue is full: {self.waiting} of {most} instances are waiting",
                retry_after_seconds=self._rate.retry_after_seconds(self.waiting),
            )
        self._changed.set()
        try:
            await self._first_of(held, deadline=deadline, gone=gone)
        finally:
            # On every way out, also a cancelled task: what is still queued is now work for nobody.
            if not held.complete:
                self._metrics.expired.inc(self._queue.withdraw(held))
                held.abandon()
        return held.scores()

    async def _first_of(self, held: _Held, *, deadline: float, gone: HangUp | None) -> None:
        loop = asyncio.get_running_loop()
        watch = asyncio.create_task(gone()) if gone is not None else None
        waited_for = {held.done} if watch is None else {held.done, watch}
        try:
            await asyncio.wait(
                waited_for, timeout=max(0.0, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            if held.done.done():
                held.done.result()
            elif watch is not None and watch.done():
                raise ClientGoneError("the client hung up")
            else:
                raise DeadlineExceededError(f"no answer within timeoutSeconds = {self._timeout_seconds:g} s")
        finally:
            if watch is not None:
                watch.cancel()

    async def run(self) -> None:
        """Feed the engine until it dies; ends then, with every held request answered."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._changed.clear()
                decision = self._queue.decide(loop.time())
                self._expire(decision.expired)
                if decision.batch:
                    await self._compute(decision.batch)
                else:
                    await self._wait_for_change(decision)
        except EngineDiedError as error:
            self.fail(error)

    def fail(self, error: EngineDiedError) -> None:
        """The engine is gone: answer what is queued, and refuse whatever still comes."""
        self._dead = error
        for entry in self._queue.clear():
            _owner(entry).fail(EngineDiedError(error.message))

    async def _wait_for_change(self, decision: Decision[tuple[int, Instance]]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(decision.wake_after_seconds):
                await self._changed.wait()

    async def _compute(self, batch: list[Entry[tuple[int, Instance]]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for entry in batch:
            self._metrics.queue_seconds.observe(started - entry.arrived)
        self._metrics.batch_size.observe(len(batch))
        try:
            result = await self._engine.compute([entry.item[1] for entry in batch])
        except EngineDiedError as error:
            for entry in batch:
                _owner(entry).fail(EngineDiedError(error.message))
            raise
        self._rate.record(instances=len(batch), seconds=loop.time() - started)
        self._metrics.engine_seconds.observe(result.seconds)
        self._settle(batch, result)

    def _settle(self, batch: list[Entry[tuple[int, Instance]]], result: BatchResult) -> None:
        assert len(result.scores) == len(result.problems) == len(batch)
        for entry, row, problem in zip(batch, result.scores, result.problems, strict=True):
            _owner(entry).settle(entry.item[0], row, problem)
            if problem is not None:
                # Here and not when its task wakes: the next batch is decided before that.
                self._metrics.expired.inc(self._queue.withdraw(_owner(entry)))
            if problem is not None and problem.kind == "model_failed":
                logs.event(_log, "the model failed on an input", level=logging.ERROR, reason=problem.message)

    def _expire(self, entries: list[Entry[tuple[int, Instance]]]) -> None:
        self._metrics.expired.inc(len(entries))
        for entry in entries:
            _owner(entry).fail(
                DeadlineExceededError(f"no answer within timeoutSeconds = {self._timeout_seconds:g} s")
            )


def _owner(entry: Entry[tuple[int, Instance]]) -> _Held:
    assert isinstance(entry.owner, _Held)
    return entry.owner
