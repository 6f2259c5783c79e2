"""A thread with an event loop of its own, through which synchronous code calls asynchronous code.

It works where a loop is running already (a notebook), which `asyncio.run` does not.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Portal:
    """One background thread; made at once, ended by `close`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="datahall-sdk", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; Ctrl-C here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call_with_callback(
        self,
        start: Callable[[Callable[[U], object]], Coroutine[Any, Any, T]],
        callback: Callable[[U], object],
    ) -> T:
        """Run a coroutine that reports back, and call `callback` here, in the caller's thread, for each report."""
        reports: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        future: Future[T] = asyncio.run_coroutine_threadsafe(
            start(lambda report: reports.put((True, report))), self._loop
        )
        future.add_done_callback(lambda _: reports.put((False, None)))
        try:
            while True:
                more, report = reports.get()
                if not more:
                    return future.result()
                callback(report)
        except BaseException:
            future.cancel()
            raise

    def iterate(self, stream: AsyncIterator[T]) -> Iterator[T]:
        """Iterate over an asynchronous generator; leaving the loop early closes it."""
        try:
            while True:
                try:
                    item = self.call(_next(stream))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            closing = getattr(stream, "aclose", None)
            if closing is not None and self._thread.is_alive():
                self.call(closing())

    @property
    def is_here(self) -> bool:
        """Whether this very thread is the portal's: then it cannot be waited for."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Cancel what runs, end the loop and the thread. A second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run_loop(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel_all())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            # What these closed is told so in the next turns of the loop.
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.run_until_complete(asyncio.sleep(0))
        finally:
            self._loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _next(stream: AsyncIterator[T]) -> T:
    return await anext(stream)
