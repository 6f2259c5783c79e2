"""Whose turn it is: shares of the hall over time, by half-life-decayed GPU-seconds and joules, down the quota tree.

What a queue has used fades: `U(t) = U * 0.5 ** (dt / half_life) + new`. A queue that runs at a steady rate for long
comes to `rate * half_life / ln 2`; divided by that time, U is a mean rate, in GPUs and in watts, that looks back about
one half-life, and can be held against the hall's capacity and against a nominal quota.

At each queue of the tree, with everything beneath it:

    dominant = max(mean GPUs / GPUs of the hall, mean watts / watts of the hall)
    share    = (dominant - nominal GPUs beneath it / GPUs of the hall, but at least 0) / weight

The smaller share goes first; among those within their nominal the smaller dominant / weight; then who was served longer
ago, so that queues whose gangs ask for no GPUs take turns, too; then the name. Nominal quota is everyone's own and what
is beyond it is divided by weight, as in Kueue's fair sharing, but over time: a queue that took much yesterday stands
behind today, and not for ever.

Two traps shaped this. Use is known only when a meter is read: until then a gang just admitted would weigh nothing, and
a queue with many small gangs would have them all go first. So an admission is charged one accounting interval in
advance, and readings are set off against advances before they add anything. And clocks jump: a step
forward fades use, which nothing can mend, and a step back stops nothing for good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from datahall.planning.queues.spec import gpus as gpus_of
from datahall.planning.queues.tree import QueueTree
from datahall.planning.queues.turns import Key, Turns

_NEGLIGIBLE = 1e-6
"""GPU-seconds or joules below which what a removed queue has used is forgotten."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the hall has, in the same terms as use.

    Attributes:
        gpus: GPUs of the hall; 0 leaves GPU-seconds out of the shares.
        watts: What the hall may draw; 0 leaves joules out of them.
    """

    gpus: float
    watts: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """Where a queue stands, with everything beneath it.

    Attributes:
        mean_gpus: GPUs it has used on average over about the last half-life, advances included.
        mean_watts: Watts, likewise.
        nominal_gpus: GPUs of nominal quota.
        beyond: Its dominant share of the hall beyond nominal, divided by its weight: what decides first.
        total: Its dominant share of the hall, divided by its weight: what decides next.
    """

    mean_gpus: float
    mean_watts: float
    nominal_gpus: float
    beyond: float
    total: float


@dataclass(slots=True)
class _Used:
    """Decayed use of one queue itself, as of `at`; `ahead` is advanced and not yet seen by a meter."""

    gpu_seconds: float = 0.0
    joules: float = 0.0
    ahead_gpu_seconds: float = 0.0
    ahead_joules: float = 0.0
    at: float = 0.0


@dataclass(slots=True)
class _Sum:
    """The same of a queue with everything beneath it, advances included, and what they are entitled to."""

    gpu_seconds: float = 0.0
    joules: float = 0.0
    nominal_gpus: float = 0.0
    at: float = 0.0


class Fairness:
    """What all queues have used, and whose turn it is. The tree tells who is beneath whom."""

    def __init__(
        self,
        tree: QueueTree,
        *,
        capacity: Capacity,
        half_life_seconds: float = 7 * 86_400.0,
        interval_seconds: float = 60.0,
    ) -> None:
        """Begin with nothing used.

        Args:
            tree: The queues; changes of it are noticed.
            capacity: What the hall has. Assign `capacity` when it changes.
            half_life_seconds: After how long use counts half.
            interval_seconds: How often `record` is called for running work: an admission is charged this long ahead.

        Raises:
            ValueError: A time is not positive.
        """
        if not (half_life_seconds > 0 and interval_seconds > 0):
            raise ValueError("half_life_seconds and interval_seconds must be greater than 0")
        self.capacity = capacity
        self._tree = tree
        self._half_life_seconds = half_life_seconds
        self._interval_seconds = interval_seconds
        self._used: dict[str, _Used] = {}
        self._sums: dict[str, _Sum] = {}
        self._own_nominal_gpus: dict[str, float] = {}
        # When a queue had its last admission, itself and with everything beneath it: a count of admissions.
        self._served: dict[str, int] = {}
        self._served_beneath: dict[str, int] = {}
        self._admissions = 0
        self._sums_version = -1
        self._told_seconds: float | None = None
        self._time = 0.0

    # ---- what was used

    def record(self, queue: str, gpu_seconds: float, joules: float, now_seconds: float) -> None:
        """Account what a meter saw since the last reading, set off against advances.

        Args:
            queue: The queue that used it; it need not exist.
            gpu_seconds: GPU-seconds used.
            joules: Joules used.
            now_seconds: The time of the reading, in seconds since the epoch.

        Raises:
            ValueError: An amount is negative or not a number.
        """
        if not (0 <= gpu_seconds < math.inf and 0 <= joules < math.inf):
            raise ValueError(f"queue {queue}: {gpu_seconds} GPU-seconds and {joules} J cannot have been used")
        self._advance(now_seconds)
        used = self._own(queue)
        used.gpu_seconds += gpu_seconds
        used.joules += joules
        seen_gpu_seconds = min(used.ahead_gpu_seconds, gpu_seconds)
        seen_joules = min(used.ahead_joules, joules)
        used.ahead_gpu_seconds -= seen_gpu_seconds
        used.ahead_joules -= seen_joules
        self._add_above(queue, gpu_seconds - seen_gpu_seconds, joules - seen_joules)

    def admit(self, queue: str, gpus: float, watts: float, now_seconds: float) -> None:
        """Charge a gang that starts now one accounting interval in advance.

        Raises:
            ValueError: An amount is negative or not a number.
        """
        self._advance(now_seconds)
        self._ahead(queue, gpus, watts)

    def _ahead(self, queue: str, gpus: float, watts: float) -> None:
        if not (0 <= gpus < math.inf and 0 <= watts < math.inf):
            raise ValueError(f"queue {queue}: {gpus} GPUs and {watts} W cannot be admitted")
        used = self._own(queue)
        gpu_seconds, joules = gpus * self._interval_seconds, watts * self._interval_seconds
        used.ahead_gpu_seconds += gpu_seconds
        used.ahead_joules += joules
        self._add_above(queue, gpu_seconds, joules)
        self._admissions += 1
        self._served[queue] = self._admissions
        here: str | None = queue
        while here is not None:
            self._served_beneath[here] = self._admissions
            here = self._tree.parent(here)

    def take_back(self, queue: str, gpus: float, watts: float, now_seconds: float) -> None:
        """Take back the advance of a gang that did not start after all, as far as no reading has been set off."""
        self._advance(now_seconds)
        used = self._own(queue)
        gpu_seconds = min(used.ahead_gpu_seconds, max(0.0, gpus) * self._interval_seconds)
        joules = min(used.ahead_joules, max(0.0, watts) * self._interval_seconds)
        used.ahead_gpu_seconds -= gpu_seconds
        used.ahead_joules -= joules
        self._add_above(queue, -gpu_seconds, -joules)

    def used(self, queue: str, now_seconds: float) -> tuple[float, float]:
        """GPU-seconds and joules of a queue itself as they count now, without advances."""
        self._advance(now_seconds)
        used = self._used.get(queue)
        if used is None:
            return 0.0, 0.0
        left = self._left(used.at)
        return used.gpu_seconds * left, used.joules * left

    def decayed(self, now_seconds: float) -> dict[str, tuple[float, float]]:
        """`used` of all queues by name: `record` them after a restart."""
        return {queue: self.used(queue, now_seconds) for queue in sorted(self._used)}

    def faded(self, seconds: float) -> float:
        """The part that counts of what was used so many seconds ago; all of it for what is yet to come."""
        left: float = 0.5 ** (max(0.0, seconds) / self._half_life_seconds)
        return left

    # ---- whose turn it is

    def share(self, queue: str, now_seconds: float) -> Share:
        """Where a queue stands now; nothing used and nothing owned if it does not exist."""
        self._advance(now_seconds)
        self._sum_up()
        return self._standing(queue)

    def turns(self, waiting: Iterable[str], now_seconds: float) -> Turns:
        """Who goes next among queues with waiting work, for one pass of decisions at one point in time.

        Args:
            waiting: Queues with waiting work; those that do not exist are left out.
            now_seconds: The time, in seconds since the epoch.
        """
        self._advance(now_seconds)
        self._sum_up()
        return Turns(
            self._tree,
            waiting,
            key=self._key,
            own_key=self._own_key,
            admit=self._ahead,
        )

    def _standing(self, queue: str) -> Share:
        """Where a queue stands, with everything beneath it."""
        total = self._sums.get(queue)
        spec = self._tree.spec(queue)
        if total is None or spec is None:
            return Share(0.0, 0.0, 0.0, 0.0, 0.0)
        left = self._left(total.at)
        return self._share(total.gpu_seconds * left, total.joules * left, total.nominal_gpus, spec.weight)

    def _key(self, queue: str) -> Key:
        """What decides about a queue with everything beneath it."""
        total, spec = self._sums.get(queue), self._tree.spec(queue)
        if total is None or spec is None:
            return 0.0, 0.0, 0, queue
        left = self._left(total.at)
        beyond, dominant = self._shares(
            total.gpu_seconds * left, total.joules * left, total.nominal_gpus, spec.weight
        )
        return beyond, dominant, self._served_beneath.get(queue, 0), queue

    def _own_key(self, queue: str) -> Key:
        """What decides about a queue itself among those beneath it: without them, and with weight 1."""
        used, nominal_gpus = self._used.get(queue), self._own_nominal_gpus.get(queue)
        if used is None or nominal_gpus is None:
            return 0.0, 0.0, 0, queue
        left = self._left(used.at)
        beyond, dominant = self._shares(
            (used.gpu_seconds + used.ahead_gpu_seconds) * left,
            (used.joules + used.ahead_joules) * left,
            nominal_gpus,
            1.0,
        )
        return beyond, dominant, self._served.get(queue, 0), queue

    def _share(self, gpu_seconds: float, joules: float, nominal_gpus: float, weight: float) -> Share:
        window_seconds = self._half_life_seconds / math.log(2)
        beyond, total = self._shares(gpu_seconds, joules, nominal_gpus, weight)
        return Share(gpu_seconds / window_seconds, joules / window_seconds, nominal_gpus, beyond, total)

    def _shares(
        self, gpu_seconds: float, joules: float, nominal_gpus: float, weight: float
    ) -> tuple[float, float]:
        """Dominant share beyond nominal, and the whole of it, by weight."""
        window_seconds = self._half_life_seconds / math.log(2)
        gpus, watts = self.capacity.gpus, self.capacity.watts
        dominant = entitled = 0.0
        if gpus > 0:
            dominant, entitled = gpu_seconds / window_seconds / gpus, nominal_gpus / gpus
        if watts > 0:
            dominant = max(dominant, joules / window_seconds / watts)
        return max(0.0, dominant - entitled) / weight, dominant / weight

    # ---- time, and sums over subtrees

    def _advance(self, now_seconds: float) -> None:
        """Let time pass. News that comes late is no jump of the clock; a step back by a half-life or more is one."""
        told = self._told_seconds
        if told is None or now_seconds <= told - self._half_life_seconds:
            self._told_seconds = now_seconds
        elif now_seconds > told:
            self._time += now_seconds - told
            self._told_seconds = now_seconds

    def _left(self, since: float) -> float:
        """The part that is left of what was used at a time of ours."""
        elapsed = self._time - since
        return 1.0 if elapsed <= 0 else 0.5 ** (elapsed / self._half_life_seconds)

    def _own(self, queue: str) -> _Used:
        """A queue's own use, brought up to now."""
        used = self._used.get(queue)
        if used is None:
            used = self._used[queue] = _Used(at=self._time)
        left = self._left(used.at)
        if left != 1.0:
            used.gpu_seconds *= left
            used.joules *= left
            used.ahead_gpu_seconds *= left
            used.ahead_joules *= left
        used.at = self._time
        return used

    def _add_above(self, queue: str, gpu_seconds: float, joules: float) -> None:
        """Add to the sums of a queue and of those above it, as long as they are right at all."""
        if self._sums_version != self._tree.version:
            return
        here: str | None = queue if queue in self._sums else None
        while here is not None:
            total = self._sums[here]
            left = self._left(total.at)
            total.gpu_seconds = max(0.0, total.gpu_seconds * left + gpu_seconds)
            total.joules = max(0.0, total.joules * left + joules)
            total.at = self._time
            here = self._tree.parent(here)

    def _sum_up(self) -> None:
        """Sum over subtrees anew, if the tree has changed since."""
        if self._sums_version == self._tree.version:
            return
        self._sums_version = self._tree.version
        self._sums = {name: _Sum(at=self._time) for name in self._tree.names()}
        for served in (self._served, self._served_beneath):
            for gone in served.keys() - self._sums.keys():
                del served[gone]
        self._own_nominal_gpus = {}
        for queue in [name for name in self._used if name not in self._sums]:
            used, left = self._used[queue], self._left(self._used[queue].at)
            if (
                max(used.gpu_seconds, used.joules, used.ahead_gpu_seconds, used.ahead_joules) * left
                < _NEGLIGIBLE
            ):
                del self._used[queue]
        for name in self._sums:
            spec = self._tree.spec(name)
            assert spec is not None, "names are those of queues that exist"
            nominal = sum(gpus_of(resource, limits.nominal) for resource, limits in spec.limits.items())
            self._own_nominal_gpus[name] = nominal
            used = self._used.get(name, _Used())
            left = self._left(used.at)
            here: str | None = name
            while here is not None:
                total = self._sums[here]
                total.gpu_seconds += (used.gpu_seconds + used.ahead_gpu_seconds) * left
                total.joules += (used.joules + used.ahead_joules) * left
                total.nominal_gpus += nominal
                here = self._tree.parent(here)
