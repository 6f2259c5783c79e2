"""Which waiting instances go to the engine together, and when. Pure bookkeeping: no clock, no I/O, no asyncio.

Time comes in as a number, so a test plays a whole day in a millisecond. The rule has three parts:

1. The engine computes one batch at a time. While it is busy the queue fills, which is what makes batches under load.
2. A free engine takes a batch as soon as there are `max_batch_size` instances, or the oldest has waited
   `max_delay_seconds`.
3. First come, first served, by instance: a request of many inputs may be spread over several batches. It can
   delay those behind it by its own computing time, no more.

What it does not do: reorder by length or priority, or guess that a deadline will be missed. An instance is
dropped uncomputed only once its deadline has passed or its request was withdrawn.
"""

import math
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """The three numbers of `spec.batching`, delay in seconds."""

    max_batch_size: int
    max_delay_seconds: float
    max_queue: int


@dataclass(frozen=True, slots=True)
class Entry(Generic[Item]):
    """One waiting instance.

    Attributes:
        owner: The request it belongs to; all of an owner's entries are withdrawn together.
        deadline: From this moment on, computing it would be work for nobody.
    """

    owner: Hashable
    item: Item
    arrived: float
    deadline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[Item]):
    """What to do now.

    Attributes:
        batch: Compute these together; empty: nothing yet.
        expired: Their deadline passed while they waited; they are out of the queue.
        wake_after_seconds: Ask again then even if nothing arrives; None: only an arrival can change the answer.
    """

    batch: list[Entry[Item]] = field(default_factory=list)
    expired: list[Entry[Item]] = field(default_factory=list)
    wake_after_seconds: float | None = None


class BatchQueue(Generic[Item]):
    """The waiting instances, oldest first."""

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self._waiting: deque[Entry[Item]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, owner: Hashable, items: Iterable[Item], *, now: float, deadline: float) -> bool:
        """Take all of a request's instances, or none.

        Returns:
            False when they do not all fit: no room is an answer, not an exception.
        """
        entries = [Entry(owner, item, now, deadline) for item in items]
        if len(self._waiting) + len(entries) > self.limits.max_queue:
            return False
        self._waiting.extend(entries)
        return True

    def withdraw(self, owner: Hashable) -> int:
        """Forget a request's instances that are not yet with the engine. Returns how many that were."""
        kept = deque(entry for entry in self._waiting if entry.owner is not owner)
        dropped = len(self._waiting) - len(kept)
        self._waiting = kept
        return dropped

    def clear(self) -> list[Entry[Item]]:
        """Empty the queue and return what was in it."""
        entries = list(self._waiting)
        self._waiting.clear()
        return entries

    def decide(self, now: float) -> Decision[Item]:
        """What a free engine should do at `now`."""
        expired = [entry for entry in self._waiting if entry.deadline <= now]
        if expired:
            self._waiting = deque(entry for entry in self._waiting if entry.deadline > now)
        if not self._waiting:
            return Decision(expired=expired)
        full = len(self._waiting) >= self.limits.max_batch_size
        due = self._waiting[0].arrived + self.limits.max_delay_seconds
        if not full and now < due:
            next_deadline = min(entry.deadline for entry in self._waiting)
            return Decision(expired=expired, wake_after_seconds=min(due, next_deadline) - now)
        size = min(len(self._waiting), self.limits.max_batch_size)
        batch = [self._waiting.popleft() for _ in range(size)]
        assert 0 < len(batch) <= self.limits.max_batch_size
        return Decision(batch=batch, expired=expired)


class RateMeter:
    """How fast the engine is, from the batches it computed: an exponential average over about the last ten of them."""

    SMOOTHING = 0.1

    def __init__(self) -> None:
        self._seconds_per_instance: float | None = None

    def record(self, *, instances: int, seconds: float) -> None:
        """Note one computed batch."""
        sample = seconds / max(1, instances)
        if self._seconds_per_instance is None:
            self._seconds_per_instance = sample
        else:
            self._seconds_per_instance += self.SMOOTHING * (sample - self._seconds_per_instance)

    def retry_after_seconds(self, waiting: int) -> int:
        """When a queue of `waiting` instances will be worked off: whole seconds, 1 to 60, for Retry-After."""
        estimate = waiting * (self._seconds_per_instance or 0.0)
        return min(60, max(1, math.ceil(estimate)))
