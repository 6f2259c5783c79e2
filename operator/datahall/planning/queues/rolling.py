"""Budgets per day: what was spent in the last 24 hours is charged to the quota tree, and ages out of it.

A rolling window and not a leaky bucket, so that the number shown is one that a meter could show: what the queue drew
since this time yesterday. Spending is kept by the hour. An hour ages out as a whole, 24 hours after its end: nothing is
given back before it is 24 hours old, and nothing is kept longer than 25.
"""

from __future__ import annotations

from collections.abc import Iterable

from datahall.planning.queues.spec import JOULES_PER_DAY
from datahall.planning.queues.tree import QueueTree

HOUR_SECONDS = 3600
WINDOW_HOURS = 24


class RollingDay:
    """What queues spent in the last 24 hours, hour by hour, of one resource of the tree."""

    def __init__(self, tree: QueueTree, *, resource: str = JOULES_PER_DAY) -> None:
        """Begin with nothing spent.

        Args:
            tree: The tree to charge; nobody else may charge this resource.
            resource: The resource to charge.
        """
        self._tree = tree
        self._resource = resource
        self._hours: dict[int, dict[str, int]] = {}

    def spend(self, queue: str, amount: int, now_seconds: float) -> None:
        """Charge an amount that a queue has spent, as a meter said it.

        Raises:
            ValueError: The amount is negative.
        """
        if amount < 0:
            raise ValueError(f"queue {queue}: {amount} of {self._resource} cannot be spent")
        self.age(now_seconds)
        if amount:
            self._tree.charge(queue, {self._resource: amount}, 1)
            _add(self._hours.setdefault(_hour(now_seconds), {}), queue, amount)

    def age(self, now_seconds: float) -> bool:
        """Give back what was spent too long ago; return whether there was any. Costs nothing when there is none.

        Hours in the future (the clock went back) count as the present one, lest they stay for ever.
        """
        present = _hour(now_seconds)
        for hour in [hour for hour in self._hours if hour > present]:
            now_spent = self._hours.setdefault(present, {})
            for queue, amount in self._hours.pop(hour).items():
                _add(now_spent, queue, amount)
        old = [hour for hour in self._hours if hour + WINDOW_HOURS < present]
        for hour in old:
            for queue, amount in self._hours.pop(hour).items():
                self._tree.charge(queue, {self._resource: amount}, -1)
        return bool(old)

    def frees_at(self, queues: Iterable[str], amount: int) -> float | None:
        """When so much of what some queues spent will have aged out, if they spend nothing more.

        Args:
            queues: The queues, such as one and all beneath its parent.
            amount: How much must come free.

        Returns:
            Seconds since the epoch; None if they have not spent that much.
        """
        names = set(queues)
        for hour in sorted(self._hours):
            amount -= sum(spent for queue, spent in self._hours[hour].items() if queue in names)
            if amount <= 0:
                return float((hour + WINDOW_HOURS + 1) * HOUR_SECONDS)
        return None

    def by_hour(self, queue: str, now_seconds: float) -> tuple[int, ...]:
        """What a queue spent in the window, to be kept over a restart.

        Returns:
            The amount of the present hour, then those of the hours before it; nothing after the last that has any.
        """
        self.age(now_seconds)
        present = _hour(now_seconds)
        found = [self._hours.get(present - ago, {}).get(queue, 0) for ago in range(WINDOW_HOURS + 1)]
        while found and not found[-1]:
            found.pop()
        return tuple(found)

    def put_back(self, queue: str, amounts: Iterable[int], as_of_seconds: float, now_seconds: float) -> None:
        """Charge what a queue spent before this window was kept.

        Args:
            queue: The queue.
            amounts: As `by_hour` gave them.
            as_of_seconds: The time of that `by_hour`.
            now_seconds: The present time. What is too old by now is left out.
        """
        present, first = _hour(now_seconds), _hour(as_of_seconds)
        for ago, amount in enumerate(amounts):
            hour = min(first - ago, present)  # of the future: the clock went back
            if amount > 0 and hour + WINDOW_HOURS >= present:
                self._tree.charge(queue, {self._resource: amount}, 1)
                _add(self._hours.setdefault(hour, {}), queue, amount)

    def spend_evenly(self, queue: str, per_second: float, since_seconds: float, now_seconds: float) -> None:
        """Charge what a queue spent at a steady rate from one time until now, each hour its part."""
        present = _hour(now_seconds)
        amounts = []
        for hour in range(present, _hour(since_seconds) - 1, -1):
            begin, end = hour * HOUR_SECONDS, (hour + 1) * HOUR_SECONDS
            amounts.append(round(per_second * (min(end, now_seconds) - max(begin, since_seconds))))
        self.put_back(queue, amounts, now_seconds, now_seconds)


def _hour(seconds: float) -> int:
    return int(seconds // HOUR_SECONDS)


def _add(spent: dict[str, int], queue: str, amount: int) -> None:
    spent[queue] = spent.get(queue, 0) + amount
