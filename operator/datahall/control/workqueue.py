"""A keyed work queue: each key at most once in a lane, never in two workers, fair among namespaces.

The same promises as client-go's: a key added while it is being worked on is worked on again afterwards, so no change
is missed and no two reconciles of one object run at once. Two things are added. Namespaces take turns, so one team's
ten thousand jobs do not keep another team's one job waiting. And there are three lanes, each with workers of its own:
looking at a thousand jobs never waits behind making their pods, the pods do not wait for ever behind looks, and neither
waits behind telling ten thousand others that they wait. Delayed keys wait in a heap with a single timer.
"""

from __future__ import annotations

import asyncio
import enum
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


class Lane(enum.StrEnum):
    """What a key is in the queue for."""

    LOOK = "look"
    """Something changed: look, and write the status."""

    MAKE = "make"
    """A look found children to be made."""

    TELL = "tell"
    """Why it waits is to be told: look, like any other time, when those whose GPUs stand still have been looked at."""


class WorkQueue:
    """Not thread-safe: lives on one event loop."""

    def __init__(self) -> None:
        self._lines = {lane: _Line() for lane in Lane}
        self._working: dict[Key, float] = {}
        self._asked: dict[Key, float] = {}
        self._failures: dict[tuple[Key, Lane], int] = {}
        self._delayed: list[tuple[float, Key, Lane]] = []
        self._due: dict[tuple[Key, Lane], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Keys ready to be worked on in either lane, those in work and those delayed not included."""
        return sum(len(line) for line in self._lines.values())

    def ready(self, lane: Lane = Lane.LOOK) -> frozenset[Key]:
        """The keys of one lane that are ready to be worked on."""
        return self._lines[lane].ready()

    def depth(self, lane: Lane) -> int:
        """How many keys of one lane are ready to be worked on."""
        return len(self._lines[lane])

    @property
    def working(self) -> int:
        """Keys being worked on."""
        return len(self._working)

    @property
    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._due)

    def oldest_seconds(self, lane: Lane = Lane.LOOK) -> float:
        """How long the oldest key of a lane has waited; 0 where none waits."""
        since = self._lines[lane].since
        return asyncio.get_running_loop().time() - min(since.values()) if since else 0.0

    def add(self, key: Key, lane: Lane = Lane.LOOK) -> None:
        """Work on `key` soon. Nothing happens if it is queued in that lane already."""
        line = self._lines[lane]
        if key in line.since:
            return
        line.since[key] = asyncio.get_running_loop().time()
        if key in self._working:
            line.parked[key] = False
        else:
            line.push(key)

    def add_after(self, key: Key, seconds: float, lane: Lane = Lane.LOOK) -> None:
        """Work on `key` once `seconds` have passed; of two delays the shorter one counts."""
        if seconds <= 0:
            self.add(key, lane)
            return
        due = asyncio.get_running_loop().time() + seconds
        if due >= self._due.get((key, lane), float("inf")):
            return
        self._due[key, lane] = due
        heapq.heappush(self._delayed, (due, key, lane))
        self._arm()

    def retry(self, key: Key, lane: Lane = Lane.LOOK, *, at_least: float = 0.0) -> float:
        """Work on `key` again after a failure, later each time. Returns the delay in seconds.

        Args:
            key: what failed.
            lane: where it failed. Each lane counts for itself: looks that go well must not hasten what fails.
            at_least: what the API server asks to wait, in seconds.
        """
        failures = self._failures.get((key, lane), 0)
        self._failures[key, lane] = min(failures + 1, _DOUBLINGS)
        seconds: float = min(max(BACK_OFF_FIRST_SECONDS * 2.0**failures, at_least), BACK_OFF_LONGEST_SECONDS)
        self.add_after(key, seconds, lane)
        return seconds

    def forget(self, key: Key, lane: Lane = Lane.LOOK) -> None:
        """The last work on `key` went well: its next failure starts from the shortest delay."""
        self._failures.pop((key, lane), None)

    async def get(self, lane: Lane = Lane.LOOK) -> tuple[Key, float]:
        """Wait for the next key; with the loop time at which it was first added. Call `done` afterwards."""
        line = self._lines[lane]
        key = await line.pop()
        while key in self._working:
            line.parked[key] = True  # the other lane has it
            key = await line.pop()
        since = line.since.pop(key)
        if lane is not Lane.MAKE:
            since = self._asked.pop(key, since)
        self._working[key] = since
        return key, since

    def unanswered(self, key: Key) -> None:
        """What brought `key` into work is not answered by this look but by its next: its age counts on until then."""
        self._asked[key] = self._working[key]

    def done(self, key: Key) -> None:
        """The work on `key` ended; if it was added meanwhile it is queued again."""
        self._working.pop(key, None)
        for line in self._lines.values():
            line.unpark(key)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._delayed:
            self._timer = asyncio.get_running_loop().call_at(self._delayed[0][0], self._release)

    def _release(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._delayed and self._delayed[0][0] <= now:
            due, key, lane = heapq.heappop(self._delayed)
            if self._due.get((key, lane)) == due:  # else a shorter delay took its place
                del self._due[key, lane]
                self.add(key, lane)
        self._arm()


class _Line:
    """The keys of one lane, namespaces in turn, and the workers that wait for one.

    Attributes:
        since: every key that is wanted here, with the time at which it was first added.
        parked: those of them that are in work just now, and whether their turn had come when they were found so.
    """

    def __init__(self) -> None:
        self.since: dict[Key, float] = {}
        self.parked: dict[Key, bool] = {}
        self._turns: deque[str] = deque()
        self._ready: dict[str, deque[Key]] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._ready.values())

    def ready(self) -> frozenset[Key]:
        return frozenset(key for keys in self._ready.values() for key in keys)

    def push(self, key: Key, *, first: bool = False) -> None:
        keys = self._ready.get(key.namespace)
        if keys is None:
            keys = self._ready[key.namespace] = deque()
            self._turns.append(key.namespace)
        if first:
            keys.appendleft(key)
        else:
            keys.append(key)
        self._wake()

    def unpark(self, key: Key) -> None:
        turn = self.parked.pop(key, None)
        if turn is not None:
            self.push(key, first=turn)

    async def pop(self) -> Key:
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
        return key

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break
