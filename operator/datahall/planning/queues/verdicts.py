"""What the quota tree answers. Facts and numbers alone: `messages` turns them into sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class RefusalReason(StrEnum):
    """Why the tree refuses an amount."""

    QUEUE_NOT_FOUND = "QueueNotFound"
    """There is no queue of that name."""
    NOT_GRANTED = "NotGranted"
    """Neither the queue nor any above it has an entry for the resource, or the queue names others alone."""
    QUOTA_IN_USE = "QuotaInUse"
    """The queue stands at the top, and its whole quota is too little for what is used and asked."""
    BORROWING_LIMIT = "BorrowingLimit"
    """The queue, or one above it, may not borrow that much."""
    NOTHING_TO_BORROW = "NothingToBorrow"
    """The pool at the top has too little left of what nobody is entitled to."""
    LENT_AWAY = "LentAway"
    """The amount is within the queue's own nominal quota, and others have borrowed it."""


@dataclass(frozen=True, slots=True)
class Fits:
    """The amounts are within quota.

    Attributes:
        borrowed: How much of each amount is beyond the queue's own nominal quota, by resource as it was asked;
            resources within it, and those without a limit, are left out.
    """

    borrowed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """The amounts are not within quota; this is the first resource, by name, that is not.

    Attributes:
        reason: Why.
        queue: The queue that was asked.
        where: The queue at which it failed, nearest first: itself or one above it.
        resource: The resource as it was asked.
        entry: The entry of `queue` that it is accounted in, such as "gpu:Any" for "gpu:H100".
        asked: The amount.
        room: The largest amount that would fit now; negative where limits were lowered below use.
        most: The largest amount that would fit if nothing at all was used.
        nominal: The queue's own nominal quota in that entry.
        own: What is charged to the queue itself in that entry.
        quota_there: Quota at `where`: its own and what is lent to it from below.
        used_there: Use at `where`: its own and what those beneath use beyond what they keep.
        borrowing_limit_there: The most that `where` may use beyond its quota; None for no limit.
    """

    reason: RefusalReason
    queue: str
    where: str
    resource: str
    entry: str
    asked: int
    room: int = 0
    most: int = 0
    nominal: int = 0
    own: int = 0
    quota_there: int = 0
    used_there: int = 0
    borrowing_limit_there: int | None = None

    @property
    def ever(self) -> bool:
        """Whether it could fit if nothing at all was used."""
        return self.asked <= self.most


Verdict = Fits | Refused


@dataclass(frozen=True, slots=True)
class Account:
    """One entry of one queue, for tables and status.

    Attributes:
        nominal: Its own quota.
        own: Charged to the queue itself.
        quota: Nominal and what is lent to it from below.
        used: Own and what those beneath use beyond what they keep.
        lent: Part of the quota that is in the parent's pool.
        overflow: Part of the use that is in the parent's pool.
        room: The largest amount that fits now; None for no limit.
    """

    nominal: int
    own: int
    quota: int
    used: int
    lent: int
    overflow: int
    room: int | None


@dataclass(frozen=True, slots=True)
class MissingParent:
    """A queue names a parent that does not exist: until it does, it stands alone, as a root.

    Attributes:
        queue: The queue.
        parent: The name that it gives.
    """

    queue: str
    parent: str


@dataclass(frozen=True, slots=True)
class ParentsInCircle:
    """Queues are each other's ancestors: each of them stands alone, as a root, until one names another parent.

    Attributes:
        queues: The circle, each followed by its parent, beginning with the first by name.
    """

    queues: tuple[str, ...]


Trouble = MissingParent | ParentsInCircle
