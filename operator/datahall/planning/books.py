"""Everything the planner knows, in one place: the hall, the quota tree, who holds what, and what was used over time."""

from __future__ import annotations

from datahall.planning.hall import Hall
from datahall.planning.holdings import GPU_FAMILY, Holdings, gpu_resource
from datahall.planning.packing.hall_cost import HallCost
from datahall.planning.queues.fairness import Capacity, Fairness
from datahall.planning.queues.rolling import RollingDay
from datahall.planning.queues.spec import JOULES_PER_DAY, WATTS, QueueSpec
from datahall.planning.queues.tree import QueueTree
from datahall.planning.state import GPU
from datahall.planning.types import Limits, QueueState, QueueUse

ACCOUNT_EVERY_SECONDS = 60.0
"""How often what is held is counted as used; admissions are charged this long ahead."""

MOST_ACCOUNTED_SECONDS = 3600.0
"""The most that is counted at once: a longer time since the last look is a jump of the clock."""

MOST_UNSEEN_SECONDS = 86_400.0
"""What is held when a planner begins is counted as used since the last one counted, but no longer than this."""


class Books:
    """The planner's memory."""

    def __init__(self, *, half_life_seconds: float = 7 * 86_400.0) -> None:
        """Begin with an empty hall.

        Args:
            half_life_seconds: After how long past use counts half when queues take turns.
        """
        self.hall = Hall()
        self.tree = QueueTree()
        self.holdings = Holdings(self.hall, self.tree)
        self.cost = HallCost()
        self.queues: dict[str, QueueState] = {}
        self.minimum_run_seconds: dict[str, float] = {}
        self.day = RollingDay(self.tree)
        self.fairness = Fairness(
            self.tree,
            capacity=Capacity(0.0),
            half_life_seconds=half_life_seconds,
            interval_seconds=ACCOUNT_EVERY_SECONDS,
        )
        self._capacity_version = -1
        self._accounted_seconds: float | None = None
        self._resumed: dict[str, float] = {}

    def upsert_queue(self, queue: QueueState) -> bool:
        """Take in a queue as it is now; return whether anything changed."""
        if self.queues.get(queue.name) == queue:
            return False
        self.queues[queue.name] = queue
        self.minimum_run_seconds[queue.name] = queue.minimum_run_seconds
        self.tree.upsert(_spec(queue))
        return True

    def remove_queue(self, name: str) -> bool:
        """Forget a queue; what its gangs hold stays charged to its name. Return whether it was known."""
        self.minimum_run_seconds.pop(name, None)
        return self.queues.pop(name, None) is not None and self.tree.remove(name)

    def account(self, now_seconds: float) -> bool:
        """Count what is held as used, once per interval; return whether a day's spending has aged out.

        What is counted is what was reserved: GPUs held, and watts at their caps. The clock may jump: a step back counts
        nothing, a step forward no more than an hour.
        """
        nodes = self.hall.nodes
        if self._capacity_version != nodes.version:
            self._capacity_version = nodes.version
            gpus = int(nodes.total[GPU].sum())
            watts = int((nodes.total[GPU] * nodes.gpu_watts).sum())
            self.fairness.capacity = Capacity(float(gpus), float(watts))
        aged = self.day.age(now_seconds)
        before = self._accounted_seconds
        if before is None:
            self._accounted_seconds = now_seconds
            self._account_unseen(now_seconds)
        elif now_seconds < before:
            self._accounted_seconds = now_seconds
        elif now_seconds - before >= ACCOUNT_EVERY_SECONDS:
            self._accounted_seconds = now_seconds
            elapsed = min(now_seconds - before, MOST_ACCOUNTED_SECONDS)
            for queue, (gpus_held, watts_held) in self.holdings.rates().items():
                self.fairness.record(queue, gpus_held * elapsed, watts_held * elapsed, now_seconds)
                self.day.spend(queue, round(watts_held * elapsed), now_seconds)
        return aged

    def use(self, queue: str, now_seconds: float) -> QueueUse:
        """What a queue has used, as of when that was last counted."""
        counted = now_seconds
        if self._accounted_seconds is not None:
            # After a jump of the clock, no longer ago than what will be counted.
            counted = min(now_seconds, max(self._accounted_seconds, now_seconds - MOST_ACCOUNTED_SECONDS))
        # Fairness knows use as of now: what has faded since it was counted is put back.
        faded = self.fairness.faded(now_seconds - counted)
        gpu_seconds, joules = self.fairness.used(queue, now_seconds)
        return QueueUse(counted, gpu_seconds / faded, joules / faded, self.day.by_hour(queue, counted))

    def resume(self, queue: str, use: QueueUse, now_seconds: float) -> None:
        """Take in what a queue used before these books were kept; once, whatever is said later.

        What its gangs held meanwhile follows with the first `account`, when it is known what they hold.
        """
        if queue in self._resumed:
            return
        self._resumed[queue] = use.as_of_seconds
        left = self.fairness.faded(now_seconds - use.as_of_seconds)
        self.fairness.record(queue, use.gpu_seconds * left, use.joules * left, now_seconds)
        self.day.put_back(queue, use.joules_by_hour, use.as_of_seconds, now_seconds)

    def _account_unseen(self, now_seconds: float) -> None:
        """Count what is held as used since the last planner counted: what runs did not stop while none looked."""
        rates = self.holdings.rates()
        for queue, as_of in self._resumed.items():
            gpus_held, watts_held = rates.get(queue, (0.0, 0))
            elapsed = min(now_seconds - as_of, MOST_UNSEEN_SECONDS)
            if elapsed > 0 and gpus_held:
                self.fairness.record(queue, gpus_held * elapsed, watts_held * elapsed, now_seconds)
                self.day.spend_evenly(queue, watts_held, now_seconds - elapsed, now_seconds)


def _spec(queue: QueueState) -> QueueSpec:
    """A queue for the quota tree, which counts GPUs in thousandths."""
    limits = {gpu_resource(model): _milli(limit) for model, limit in queue.gpus.items()}
    if queue.watts is not None:
        limits[WATTS] = queue.watts
    if queue.joules_per_day is not None:
        limits[JOULES_PER_DAY] = queue.joules_per_day
    return QueueSpec(queue.name, queue.parent, queue.weight, limits, queue.namespaces)


def _milli(limits: Limits) -> Limits:
    def times(amount: int | None) -> int | None:
        return None if amount is None else amount * 1000

    return Limits(limits.nominal * 1000, times(limits.borrowing_limit), times(limits.lending_limit))


__all__ = ["ACCOUNT_EVERY_SECONDS", "GPU_FAMILY", "Books", "gpu_resource"]
