"""Where in the hall's tree a gang goes: the tightest domain that holds it, and in it as few hosts as possible.

The rules, each in one sentence:

* All or nothing at `least`; up to `most` where they fit.
* Required: one domain of the asked level, or nothing. Preferred: one domain of that level; else one of the next level
  up, over as few domains of the level below as possible; else anywhere, over as few blocks as possible and as few
  racks as those allow. Fewer racks of more blocks would cross more of the slowest links, and take the best racks of
  every block.
* Of several domains that hold it: one that it fills exactly, then one in use with the least left over, then an
  untouched one, so that whole racks stay whole for big gangs.
* Elastic and Preferred: a wider level is worth it only if it brings a quarter more workers (`widen_gain`). Every link
  out of a domain slows all workers of the gang, while workers add up: a few more are not worth it, many are.
* A gang of one, and one that asks for no level, is for the packing to place: by cost, but untouched racks come last.

The result is in the order of the tree, so that neighbours in rank, and so in the rings of an all-reduce, are
neighbours in the hall. To say "no" to Required costs one sum per domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datahall.planning.filling import Filling, best_of
from datahall.planning.state import BoolArray, IntArray
from datahall.planning.topology import Domain, FloatArray, Topology
from datahall.planning.types import Level

_WIDEN_GAIN = 1.25

_BELOW = {
    Level.HOST: (Level.HOST,),
    Level.RACK: (Level.HOST,),
    Level.BLOCK: (Level.RACK, Level.HOST),
    Level.HALL: (Level.BLOCK, Level.RACK, Level.HOST),
}
"""The levels by whose domains a domain is filled, widest first."""


@dataclass(frozen=True, slots=True)
class Demand:
    """How many workers are to be placed, and how near to each other.

    Attributes:
        least: Workers without which nothing is placed.
        most: Workers that can be used.
        level: The level of which one domain is asked for, if any.
        required: Whether more than one domain of that level will not do.
    """

    least: int
    most: int
    level: Level | None = None
    required: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"least {self.least}, most {self.most}: it must be 1 <= least <= most")
        if self.required and self.level is None:
            raise ValueError("required: no level is named of which one domain is required")


@dataclass(frozen=True, slots=True)
class Placing:
    """Where workers go, in the order of the tree.

    Attributes:
        columns: The nodes' columns, [k].
        workers: Workers on each, at least 1, [k].
        level: The tightest level at which one domain holds the whole gang.
        racks: How many racks the whole gang is on.
        blocks: How many blocks the whole gang is on.
    """

    columns: IntArray
    workers: IntArray
    level: Level
    racks: int
    blocks: int

    @property
    def total(self) -> int:
        """How many workers are placed."""
        return int(self.workers.sum())


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Why nothing is placed, in numbers.

    Attributes:
        level: Where it had to fit: one domain of the level that is required, or the hall.
        needed: Workers that had to fit.
        best: The domain of that level with the most room; None if none has any.
        best_has: Workers that fit there.
        hall_has: Workers that fit in the whole hall.
        domains: How many domains of that level there are.
        spread: Over how many domains of that level the workers are that it has already; 0 if it has none, or none
            that bind it. More than 1 where one is required is a no whatever has room: a label has changed.
    """

    level: Level
    needed: int
    best: Domain | None
    best_has: int
    hall_has: int
    domains: int
    spread: int = 0


def holds(topology: Topology, slots: IntArray, demand: Demand) -> bool:
    """Whether `place` would find a place. More slots never turn a yes into a no.

    Args:
        topology: The tree.
        slots: Workers of the gang's shape that fit each column, [column].
        demand: How many workers, how near.
    """
    level = demand.level if demand.required and demand.level is not None else Level.HALL
    rooms = Filling(topology, slots, cost=None, busy=None).rooms(level)
    return int(rooms.max(initial=0)) >= demand.least


def place(
    topology: Topology,
    slots: IntArray,
    demand: Demand,
    *,
    cost: FloatArray | None = None,
    busy: BoolArray | None = None,
    stay: Domain | None = None,
    widen_gain: float = _WIDEN_GAIN,
) -> Placing | NoPlace:
    """Choose nodes for a gang.

    Args:
        topology: The tree.
        slots: Workers of the gang's shape that fit each column now, [column].
        demand: How many workers, how near.
        cost: What one worker takes from the rest of the hall, in the packing's own unit, [column]; None for the
            fewest slots left.
        busy: Columns where something runs, [column]; None if nobody cares which domains are untouched.
        stay: The domain that was cleared for this gang, such as by preemption: while it holds `least` it is chosen
            though another fits better by now. Work evicted there would else have been evicted for nothing.
        widen_gain: How many times as many workers a wider level must hold to be preferred to a tighter one.
    """
    filling = Filling(topology, slots, cost=cost, busy=busy)
    if demand.level is None or demand.most == 1:
        need = min(demand.most, int(slots[filling.columns].sum()))
        if need < demand.least:
            return _refusal(topology, filling, demand)
        return _told(topology, filling, *filling.by_packing(need))
    chosen = _cleared(topology, filling, demand, stay) or _fitting(filling, demand, widen_gain)
    if chosen is None:
        return _refusal(topology, filling, demand)
    level, number, workers = chosen
    columns = filling.columns[filling.numbers(level)[filling.columns] == number]
    return _told(topology, filling, *filling.fill(columns, workers, _BELOW[level]))


def place_beside(
    topology: Topology,
    slots: IntArray,
    demand: Demand,
    beside: IntArray,
    *,
    cost: FloatArray | None = None,
    busy: BoolArray | None = None,
    widen_gain: float = _WIDEN_GAIN,
) -> Placing | NoPlace:
    """Choose nodes for more workers of a gang that has some: to grow it, or to complete it after a node was lost.

    They go to the domain of the workers it has; there to their hosts first, then their racks, then their blocks.

    Args:
        topology: The tree.
        slots: Further workers that fit each column now, [column].
        demand: How many further workers; how near all of them, old and new.
        beside: Columns of the workers it has, one entry for each; those whose node is gone are ignored.
        cost: As for `place`.
        busy: As for `place`.
        widen_gain: As for `place`, over all workers, old and new.

    Returns:
        Where the further workers go; level, racks and blocks tell of all workers.
    """
    filling = Filling(topology, slots, cost=cost, busy=busy)
    there = beside[filling.numbers(Level.HOST)[beside] >= 0]
    if demand.level is None or len(there) == 0:
        found = place(topology, slots, demand, cost=cost, busy=busy, widen_gain=widen_gain)
        if isinstance(found, NoPlace):
            return found
        return _told(topology, filling, found.columns, found.workers, there)
    chosen: tuple[Level, int, IntArray] | None = None
    for level in _upward(demand):
        numbers = filling.numbers(level)
        homes = np.unique(numbers[there])
        inside = filling.columns[numbers[filling.columns] == homes[0]]
        workers = min(demand.most, int(slots[inside].sum()))
        fits = len(homes) == 1 and workers >= demand.least
        if fits and (chosen is None or len(there) + workers >= widen_gain * (len(there) + chosen[1])):
            chosen = level, workers, inside
        elif demand.required:
            return _refusal(topology, filling, demand, homes=homes)
        if fits and workers == demand.most:
            break
    if chosen is None:
        return _refusal(topology, filling, demand)
    level, workers, inside = chosen
    taken = np.zeros(len(slots), dtype=np.int64)
    for near in (Level.HOST, Level.RACK, Level.BLOCK):
        if near >= level:
            break
        numbers = filling.numbers(near)
        close = np.isin(numbers[inside], numbers[there])
        room = int(slots[inside[close]].sum())
        if room >= workers:
            level, inside = near, inside[close]
            break
        taken[inside[close]] = slots[inside[close]]
        workers -= room
        inside = inside[~close]
    columns, counts = filling.fill(inside, workers, _BELOW[level])
    taken[columns] += counts
    columns = np.flatnonzero(taken)
    return _told(topology, filling, columns, taken[columns], there)


# ---- which domain


def _upward(demand: Demand) -> Sequence[Level]:
    """Levels of which one domain may hold the gang, tightest first."""
    assert demand.level is not None
    return (demand.level,) if demand.required else tuple(lv for lv in Level if lv >= demand.level)


def _cleared(
    topology: Topology, filling: Filling, demand: Demand, stay: Domain | None
) -> tuple[Level, int, int] | None:
    """The domain that was cleared for the gang, if it will do: level, number, and workers there."""
    number = None if stay is None else topology.find(stay)
    if stay is None or number is None or (demand.required and stay.level > (demand.level or 0)):
        return None
    room = int(filling.rooms(stay.level)[number])
    return (stay.level, number, min(demand.most, room)) if room >= demand.least else None


def _fitting(filling: Filling, demand: Demand, widen_gain: float) -> tuple[Level, int, int] | None:
    """The domain that fits best: level, number, and workers there."""
    chosen: tuple[Level, int, IntArray] | None = None
    for level in _upward(demand):
        rooms = filling.rooms(level)
        workers = min(demand.most, int(rooms.max(initial=0)))
        if workers >= demand.least and (chosen is None or workers >= widen_gain * chosen[1]):
            chosen = level, workers, rooms
        if workers == demand.most:
            break
    if chosen is None:
        return None
    level, workers, rooms = chosen
    return level, _tightest(filling, demand, level, workers, rooms), workers


def _tightest(filling: Filling, demand: Demand, level: Level, need: int, rooms: IntArray) -> int:
    """The domain that is best for `need` workers; one at least holds them.

    Above the level that was asked for the gang is spread anyway: as few domains of the level below come first there.
    """
    if level is Level.HALL:
        return 0
    left = rooms - need
    spread = demand.level is not None and level > demand.level
    parts = filling.parts(level, need) if spread else np.zeros_like(rooms)
    first = filling.first(level, filling.columns)
    return best_of(np.flatnonzero(left >= 0), parts, filling.breaks(level, left), left, first)


# ---- answers


def _told(
    topology: Topology,
    filling: Filling,
    columns: IntArray,
    workers: IntArray,
    beside: IntArray | None = None,
) -> Placing:
    """The answer, in the order of the tree."""
    everyone = columns if beside is None else np.append(columns, beside)
    hosts, racks, blocks = (
        len(np.unique(filling.numbers(level)[everyone])) for level in (Level.HOST, Level.RACK, Level.BLOCK)
    )
    level = Level.HALL
    for candidate, domains in ((Level.BLOCK, blocks), (Level.RACK, racks), (Level.HOST, hosts)):
        if domains == 1:
            level = candidate
    order = np.argsort(topology.rank(len(filling.numbers(Level.HOST)))[columns])
    return Placing(columns[order], workers[order], level, racks, blocks)


def _refusal(
    topology: Topology, filling: Filling, demand: Demand, *, homes: IntArray | None = None
) -> NoPlace:
    """Say no, with numbers; `homes` are the domains of workers that have their place, of which one had to do."""
    level = demand.level if demand.required and demand.level is not None else Level.HALL
    rooms = filling.rooms(level)
    candidates = np.arange(len(rooms)) if homes is None else homes
    best, best_has = None, 0
    if len(candidates):
        number = best_of(candidates, -rooms, filling.first(level, filling.columns))
        best_has = int(rooms[number])
        if best_has or homes is not None:
            best = topology.domain(level, number)
    hall_has = int(filling.rooms(Level.HALL)[0])
    spread = 0 if homes is None else len(homes)
    return NoPlace(level, demand.least, best, best_has, hall_has, topology.count(level), spread)
