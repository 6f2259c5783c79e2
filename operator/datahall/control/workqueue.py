"""A keyed work queue: each key at most once in the queue, never in two workers, fair among namespaces.

The same promises as client-go's: a key added while it is being worked on is worked on again afterwards, so no change
is missed and no two reconciles of one object run at once. What it adds is fairness: namespaces take turns, so one
team's ten thousand jobs do not keep another team's one job waiting. Delayed keys wait in a heap with a single timer.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from typing import NamedTuple

BACK_OFF_FIRST_SECONDS = 0.2
BACK_OFF_LONGEST_SECONDS = 60.0
_DOUBLINGS = 16  # past the longest delay; a power that grows for ever overflows


class Key(NamedTuple):
    """What to reconcile: a kind, and the name of one object of it ("" as namespace where there is none)."""

    kind: str
    namespace: str
    name: str


class WorkQueue:
    """Not thread-safe: lives on one event loop."""

    def __init__(self) -> None:
        self._turns: deque[str] = deque()
        self._ready: dict[str, deque[Key]] = {}
        self._since: dict[Key, float] = {}
        self._dirty: set[Key] = set()
        self._working: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._delayed: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Keys ready to be worked on, those in work and those delayed not included."""
        return sum(len(keys) for keys in self._ready.values())

    @property
    def working(self) -> int:
        """Keys being worked on."""
        return len(self._working)

    @property
    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._due)

    def oldest_seconds(self) -> float:
        """How long the oldest ready key has waited; 0 where none waits."""
        if not self._since:
            return 0.0
        return asyncio.get_running_loop().time() - min(self._since.values())

    def add(self, key: Key) -> None:
        """Work on `key` soon. Nothing happens if it is queued already."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        self._since.setdefault(key, asyncio.get_running_loop().time())
        if key not in self._working:
            self._push(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on `key` once `seconds` have passed; of two delays the shorter one counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = asyncio.get_running_loop().time() + seconds
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        heapq.heappush(self._delayed, (due, key))
        self._arm()

    def retry(self, key: Key, *, at_least: float = 0.0) -> float:
        """Work on `key` again after a failure, later each time. Returns the delay in seconds.

        Args:
            key: what failed.
            at_least: what the API server asks to wait, in seconds.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = min(failures + 1, _DOUBLINGS)
        seconds: float = min(max(BACK_OFF_FIRST_SECONDS * 2.0**failures, at_least), BACK_OFF_LONGEST_SECONDS)
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: Key) -> None:
        """The last work on `key` went well: its next failure starts from the shortest delay."""
        self._failures.pop(key, None)

    async def get(self) -> tuple[Key, float]:
        """Wait for the next key; with the loop time at which it was first added. Call `done` afterwards."""
        while not self._turns:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if self._turns and not waiter.cancelled():
                    self._wake()  # this one was woken for a key that it will not take
                raise
        namespace = self._turns.popleft()
        keys = self._ready[namespace]
        key = keys.popleft()
        if keys:
            self._turns.append(namespace)
        else:
            del self._ready[namespace]
        self._dirty.discard(key)
        self._working.add(key)
        return key, self._since.pop(key)

    def done(self, key: Key) -> None:
        """The work on `key` ended; if it was added meanwhile it is queued again."""
        self._working.discard(key)
        if key in self._dirty:
            self._push(key)

    def _push(self, key: Key) -> None:
        keys = self._ready.get(key.namespace)
        if keys is None:
            keys = self._ready[key.namespace] = deque()
            self._turns.append(key.namespace)
        keys.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._delayed:
            self._timer = asyncio.get_running_loop().call_at(self._delayed[0][0], self._release)

    def _release(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._delayed and self._delayed[0][0] <= now:
            due, key = heapq.heappop(self._delayed)
            if self._due.get(key) == due:  # else a shorter delay took its place
                del self._due[key]
                self.add(key)
        self._arm()
