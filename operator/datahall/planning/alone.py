"""One victim that is enough: most of those who wait need no search.

A choice of several costs at least what the two cheapest candidates cost. So where one gang alone makes room, and costs
no more than these two, it is the best choice, and proved to be: the first in the order of candidates, which is that of
`offers.Key` for single gangs. Thousands of small jobs that take back what was borrowed are answered here, one by one.
"""

from __future__ import annotations

import numpy as np

from datahall.planning.candidates import Candidates
from datahall.planning.offers import slots_on
from datahall.planning.state import BoolArray, IntArray

TRIES = 16
"""How many of the cheapest are tried: beyond those, a search over arrays is faster."""


def cheapest_alone(
    candidates: Candidates,
    may_end: BoolArray,
    *,
    base: IntArray,
    ask: IntArray,
    most: IntArray,
    slots: IntArray,
    domains: IntArray,
    missing: IntArray,
    short: IntArray,
    gives: IntArray,
) -> tuple[int, int] | None:
    """The best choice of victims if it is one gang, and that is seen at once.

    Args:
        candidates: The gangs that run.
        may_end: Those that may be ended, [gang].
        base: What is free once everything that is leaving is gone, [resource, column].
        ask: What one worker takes, [resource].
        most: The most workers of each column, [column].
        slots: Workers that fit now, [column].
        domains: The domain of each column, [column].
        missing: Workers that do not fit yet, [domain].
        short: What is missing of each pool, [pool].
        gives: What each gang gives back to each pool, [gang, pool].

    Returns:
        The gang, and the domain where the workers go; None if it takes a search.
    """
    order = candidates.order[may_end[candidates.order]]
    cost = candidates.cost_gpu_seconds
    # The cost of any two: with one candidate alone there is no other choice.
    two = int(cost[order[:2]].sum()) if len(order) > 1 else None
    for gang in order[:TRIES].tolist():
        if two is not None and cost[gang] > two:
            return None
        if (short > gives[gang]).any():
            continue
        entries = candidates.entries_of(gang)
        column = candidates.column[entries]
        then = slots_on(base[:, column] + candidates.amounts[:, entries], ask, most[column])
        gained = np.bincount(domains[column], weights=then - slots[column], minlength=len(missing))
        enough = np.flatnonzero(gained >= missing)
        if len(enough):
            return gang, int(enough[0])
    return None
