"""Whom to end where power domains lack watts: tried, not reckoned.

`preemption.plan` takes it as given how many workers each node may power. Where that is too few, those who end give
watts back to every domain above their nodes, and what that lets start where depends on all of them together. So choices
are tried on the power tree: the cheapest gangs that are enough, and then without each of them, the dearest first. What
is left is enough, and nobody in it is superfluous.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from datahall.planning.candidates import Candidates
from datahall.planning.fitting import limited_by_power
from datahall.planning.hall import Hall
from datahall.planning.offers import slots_on
from datahall.planning.preemption import Plan, Pools, Preemptor, make_plan
from datahall.planning.shape import Shape
from datahall.planning.state import BoolArray, IntArray
from datahall.planning.victims import Choice

MOST_TRIALS = 200
"""How many choices are tried before nobody ends: a count and not a time, so that the answer is the same anywhere."""


@dataclass(slots=True)
class WattsTrial:
    """What a choice of gangs would let start.

    Attributes:
        hall: The hall.
        shape: The gang that waits, with only the workers that it cannot do without.
        preemptor: The same for `preemption`.
        candidates: The gangs that run.
        base: What is free once everything that is leaving is gone, [resource, column].
        node_watts: What each candidate has reserved on each node, [gang].
        leaving_watts: What those who are leaving have.
        pools: What is missing beside room and watts.
        trials: How many choices were tried.
        at_most: How many workers would start if all ended who may, where that is found to be too few.
    """

    hall: Hall
    shape: Shape
    preemptor: Preemptor
    candidates: Candidates
    base: IntArray
    node_watts: Sequence[Mapping[str, int]]
    leaving_watts: Mapping[str, int]
    pools: Pools
    trials: int = 0
    at_most: int | None = None
    _gives: dict[int, IntArray] = field(default_factory=dict)

    def plan(self, allowed: BoolArray) -> Plan | None:
        """The cheapest gangs found, of those that may be ended; None if all of them are not enough.

        Args:
            allowed: Who may be ended, [gang].
        """
        may_end = allowed & ~self.candidates.leaving
        gives_quota = np.any(self.pools.gives[:, self._short() > 0] > 0, axis=1)
        here = np.zeros(len(self.candidates), dtype=np.bool_)
        here[self.candidates.gang[self.preemptor.usable()[self.candidates.column]]] = True
        order = [
            gang
            for gang in self.candidates.order.tolist()
            if may_end[gang] and (self.node_watts[gang] or here[gang] or gives_quota[gang])
        ]
        if not self.enough(order):
            self.at_most = int(self._in_domains(self._workers(order)).max(initial=0))
            return None
        chosen = self._needed(_shortest(order, self.enough))
        return None if self.trials >= MOST_TRIALS else self._of(chosen)

    def trim(self, answer: Plan) -> Plan:
        """A plan without those of its victims who are superfluous; where that takes too long, with some of them.

        `preemption.plan` takes some of the nodes that share too few watts, in the order of their ranks. On others fewer
        may have to end.
        """
        number = {key: gang for gang, key in enumerate(self.candidates.keys)}
        victims = sorted((number[key] for key in answer.victims), key=self.candidates.rank.__getitem__)
        needed = self._needed(victims)
        return answer if needed == victims else self._of(needed)

    def enough(self, gangs: Sequence[int]) -> bool:
        """Whether the gang starts once these have ended."""
        self.trials += 1
        if (self._short() > self.pools.gives[list(gangs)].sum(axis=0)).any():
            return False
        return int(self._in_domains(self._workers(gangs)).max(initial=0)) >= self.preemptor.workers

    def _of(self, chosen: list[int]) -> Plan:
        """The plan of a choice that is enough."""
        limits = self._workers(chosen)
        domain = int(self._in_domains(limits).argmax())
        within = replace(self.preemptor, most_workers=limits)
        found = make_plan(self.base, within, self.candidates, Choice(tuple(chosen), False), domain)
        if self._in_domains(self._workers(chosen, leaving=False))[domain] >= self.preemptor.workers:
            return found
        leaving = (key for key, out in zip(self.candidates.keys, self.candidates.leaving, strict=True) if out)
        waits_for = tuple(sorted({*found.waits_for, *leaving}))
        return replace(found, waits_for=waits_for, needs_leaving_watts=True)

    def _needed(self, gangs: list[int]) -> list[int]:
        """Gangs of which none can be spared, the last first: many at once, then fewer, at last each alone.

        Once there were too many trials, all that are left stay.
        """
        size = max(1, len(gangs) // 2)
        while True:
            end = len(gangs)
            while end > 0:
                start = max(0, end - size)
                rest = gangs[:start] + gangs[end:]
                if self.trials < MOST_TRIALS and self.enough(rest):
                    gangs = rest
                end = start
            if size == 1:
                return gangs
            size //= 2

    def _short(self) -> IntArray:
        short: IntArray = self.pools.short - self.pools.gives[self.candidates.leaving].sum(axis=0)
        return short

    def _in_domains(self, workers: IntArray) -> IntArray:
        return np.bincount(self.preemptor.domains(), weights=workers).astype(np.int64)

    def _workers(self, gangs: Sequence[int], *, leaving: bool = True) -> IntArray:
        """How many workers could start on each node, all of them at once in each domain, [column]."""
        gone = np.zeros(len(self.candidates), dtype=np.bool_)
        gone[list(gangs)] = True
        preemptor = self.preemptor
        free = self.base + self.candidates.freed_by(gone, self.base.shape[1])
        most = np.where(preemptor.usable(), preemptor.workers, 0).astype(np.int64)
        power = self.hall.power
        released = power.below(self.leaving_watts if leaving else {})
        for gang in gangs:
            if gang not in self._gives:
                self._gives[gang] = power.below(self.node_watts[gang])
            released = released + self._gives[gang]
        return limited_by_power(
            self.hall,
            self.shape,
            slots_on(free, preemptor.amounts, most),
            preemptor.watts,
            group_of=preemptor.domain_of,
            released=released,
        )


def _shortest(gangs: list[int], enough: Callable[[Sequence[int]], bool]) -> list[int]:
    """The first gangs that are enough; all of them are."""
    low, high = 0, len(gangs)
    while low < high:
        middle = (low + high) // 2
        if enough(gangs[:middle]):
            high = middle
        else:
            low = middle + 1
    return gangs[:high]
