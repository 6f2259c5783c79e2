"""The mix of pods, learned from those that came: what nobody can tell the planner in advance.

Each arrival counts one, and half as much once `half_life_arrivals` more have come. The rule is made anew when the
number of arrivals has grown fourfold, and later once per half-life: a new rule has to score all states again, so it
pays only when there is something new to say.
"""

from __future__ import annotations

import numpy as np

from datahall.planning.packing.baselines import BestFit
from datahall.planning.packing.demand import Mix, PodClass
from datahall.planning.packing.packer import Packer, Place
from datahall.planning.packing.slots import SlotValue
from datahall.planning.packing.states import NodeStates
from datahall.planning.packing.watts import WattModel

_FIRST_ARRIVALS = 100
_GROWTH = 4


class Learner:
    """How often each class of pods has come lately."""

    def __init__(self, *, half_life_arrivals: float = 10_000) -> None:
        """Start knowing nothing."""
        self._half_life = half_life_arrivals
        self._arrivals = 0
        # Counts grow in weight instead of all others shrinking: one addition per arrival.
        self._counts: dict[PodClass, float] = {}
        self._learned = 0

    def observe(self, pod: PodClass) -> None:
        """A pod came."""
        weight = 2.0 ** (self._arrivals / self._half_life)
        self._counts[pod] = self._counts.get(pod, 0.0) + weight
        self._arrivals += 1
        if weight > 1e6:
            self._rebase(weight)

    @property
    def due(self) -> bool:
        """Whether so many came since the mix was last asked for that it is worth asking again."""
        if self._arrivals < _FIRST_ARRIVALS:
            return False
        return self._arrivals >= min(_GROWTH * self._learned, self._learned + self._half_life)

    def mix(self) -> Mix:
        """The mix now; classes that have all but faded are forgotten."""
        self._learned = self._arrivals
        total = sum(self._counts.values())
        self._counts = {pod: count for pod, count in self._counts.items() if count > 1e-6 * total}
        ordered = sorted(self._counts, key=lambda pod: -self._counts[pod])
        return Mix(
            tuple(ordered), np.array([self._counts[pod] for pod in ordered]) / sum(self._counts.values())
        )

    def _rebase(self, weight: float) -> None:
        self._counts = {pod: count / weight for pod, count in self._counts.items()}
        self._learned -= self._arrivals
        self._arrivals = 0


class LearningPacker:
    """Places pods by best fit until it has seen enough of them, then by slots for the mix that it has seen."""

    def __init__(self, states: NodeStates, *, watts: WattModel | None = None) -> None:
        """Start knowing nothing of what will come."""
        self._states = states
        self._watts = watts
        self._learner = Learner()
        self._packer = Packer(states, BestFit())

    def place(self, pod: PodClass) -> Place | None:
        """Place a pod on the best node; None if it fits nowhere."""
        self._learner.observe(pod)
        if self._learner.due:
            rule = SlotValue(self._learner.mix(), self._states.kinds, watts=self._watts)
            self._packer = Packer(self._states, rule)
        return self._packer.place(pod)
