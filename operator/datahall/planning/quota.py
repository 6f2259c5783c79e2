"""Quota: what each queue may hold per GPU model, and what it holds.

Usage is kept per queue and model as facts, so that a queue can be created, changed or deleted at any time and the
sums stay right; which entry of the quota a model falls under is decided when asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from datahall.planning.state import Holder
from datahall.planning.types import ANY_MODEL, QueueState


class QuotaBook:
    """Limits and usage of all queues, in whole GPUs."""

    def __init__(self) -> None:
        self._queues: dict[str, QueueState] = {}
        self._used: tuple[dict[str, Counter[str]], dict[str, Counter[str]]] = (
            defaultdict(Counter),
            defaultdict(Counter),
        )
        self._users: tuple[dict[str, Counter[str]], dict[str, Counter[str]]] = (
            defaultdict(Counter),
            defaultdict(Counter),
        )

    # ---- deltas

    def upsert(self, queue: QueueState) -> bool:
        """Take in a queue as it is now; return whether anything changed."""
        if self._queues.get(queue.name) == queue:
            return False
        self._queues[queue.name] = queue
        return True

    def remove(self, name: str) -> bool:
        """Forget a queue's limits; what it holds stays accounted. Return whether it was known."""
        return self._queues.pop(name, None) is not None

    def charge(self, queue: str, model: str, holder: Holder, gpus: int, users: int) -> None:
        """Add usage; negative GPUs and users take it away again."""
        for book, amount in ((self._used, gpus), (self._users, users)):
            counter = book[holder][queue]
            counter[model] += amount
            if counter[model] == 0:
                del counter[model]
            if not counter:
                del book[holder][queue]

    # ---- questions

    def queue(self, name: str) -> QueueState | None:
        """A queue's limits, if it exists."""
        return self._queues.get(name)

    def names(self) -> list[str]:
        """Queues that exist, by name."""
        return sorted(self._queues)

    def entry(self, queue: str, model: str) -> str | None:
        """The entry of the queue's quota that a model falls under; None when it has no quota at all."""
        state = self._queues.get(queue)
        if state is None:
            return None
        if model in state.nominal and model != ANY_MODEL:
            return model
        return ANY_MODEL if ANY_MODEL in state.nominal else None

    def nominal(self, queue: str, entry: str) -> int:
        """GPUs an entry grants."""
        state = self._queues.get(queue)
        return 0 if state is None else state.nominal.get(entry, 0)

    def used(self, queue: str, entry: str, *holders: Holder) -> int:
        """GPUs in use under an entry, by the given holders or by all."""
        return self._sum(self._used, queue, entry, holders or tuple(Holder))

    def users(self, queue: str, entry: str, holder: Holder) -> int:
        """How many gangs (or pods) use GPUs under an entry."""
        return self._sum(self._users, queue, entry, (holder,))

    def room(self, queue: str, entry: str) -> int:
        """GPUs left under an entry; negative when the limit was lowered below what is held."""
        return self.nominal(queue, entry) - self.used(queue, entry)

    def usage(self, queue: str) -> dict[str, int]:
        """GPUs held per model, models without any left out."""
        total: Counter[str] = Counter()
        for holder in Holder:
            total.update(self._used[holder].get(queue, {}))
        return {model: gpus for model, gpus in sorted(total.items()) if gpus}

    def accounts(self) -> dict[tuple[str, Holder, str], tuple[int, int]]:
        """Everything held: (queue, holder, model) to (GPUs, users)."""
        return {
            (queue, holder, model): (self._used[holder].get(queue, Counter())[model], users)
            for holder in Holder
            for queue, counter in self._users[holder].items()
            for model, users in counter.items()
        }

    def _sum(
        self, books: tuple[dict[str, Counter[str]], ...], queue: str, entry: str, holders: tuple[Holder, ...]
    ) -> int:
        state = self._queues.get(queue)
        if state is None:
            return 0
        total = 0
        for holder in holders:
            counter = books[holder].get(queue)
            if not counter:
                continue
            if entry != ANY_MODEL:
                total += counter.get(entry, 0)
            else:
                own = state.nominal
                total += sum(n for model, n in counter.items() if model == ANY_MODEL or model not in own)
        return total
