"""The power tree as arrays: who is above whom, which domain feeds a node, and what is wrong with the tree.

A node is fed by the domain that claims it. Of several that claim it, those above others of them say nothing new. Where
two are left and neither is above the other, nobody can tell which one feeds it: the node hangs under a stand-in below
both, so that what is reserved on it counts in both, and the stand-in has no headroom.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from datahall.planning.state import IntArray

Claim = tuple[str, ...]
"""The domains that claim a node, sorted; () for none."""


@dataclass(frozen=True, slots=True)
class PowerDomainSpec:
    """A node of the power tree: a site, a row, a rack.

    Attributes:
        name: Its name, unique.
        parent: The domain that feeds it; None at the top.
        budget_watts: What may be drawn below it.
        margin_percent: The part of the budget that admissions leave alone, 0 to 100.
    """

    name: str
    parent: str | None
    budget_watts: int
    margin_percent: float = 0.0

    def __post_init__(self) -> None:
        if self.budget_watts < 0 or not 0 <= self.margin_percent <= 100:
            raise ValueError(
                f"power domain {self.name}: budget_watts {self.budget_watts} must not be negative and "
                f"margin_percent {self.margin_percent:g} must be from 0 to 100"
            )

    @property
    def limit_watts(self) -> int:
        """What may be reserved: the budget without its margin."""
        # Rounded first: 35.4 % off 500 is 323, and floats make 322.99 of it.
        return int(round(self.budget_watts * (100 - self.margin_percent) / 100, 6))


@dataclass(frozen=True, slots=True)
class PowerShape:
    """The tree as arrays, made when its shape has changed.

    Attributes:
        names: Domains, those that are only named by nodes or parents and stand-ins included, [domain].
        number: The place of each in `names`.
        path: Each domain and those above it, nearest first, filled up with the last, [domain, level].
        depth: How many domains are above each, [domain].
        limit: What may be reserved, [domain]; 0 for a domain with a problem.
        problem: What is wrong with each, or with one above it, [domain].
        path_without_repeats: As `path`, as plain numbers, [domain].
        feeding: The number of the domain that feeds the nodes of each claim.
        rivals: Of each stand-in, by its number: the domains that it stands in for.
        in_circle: Numbers of the domains below which nothing starts because parents go in a circle.
    """

    names: tuple[str, ...]
    number: dict[str, int]
    path: IntArray
    depth: IntArray
    limit: IntArray
    problem: tuple[str, ...]
    path_without_repeats: tuple[tuple[int, ...], ...]
    feeding: dict[Claim, int]
    rivals: dict[int, Claim]
    in_circle: frozenset[int]

    def sum_up(self, own: IntArray) -> IntArray:
        """Sums over each domain and all below it, [domain].

        Args:
            own: What nodes directly under each domain have, [domain].
        """
        total = np.zeros_like(own)
        for number in np.flatnonzero(own).tolist():
            total[list(self.path_without_repeats[number])] += own[number]
        return total


def power_shape(specs: dict[str, PowerDomainSpec], claims: Iterable[Claim]) -> PowerShape:
    """The tree as arrays; whatever is wrong with it costs its nodes their headroom, and has a text."""
    claims = set(claims)
    named = {name for claim in claims for name in claim}
    named |= {spec.parent for spec in specs.values() if spec.parent is not None}
    paths: dict[str, list[str]] = {}
    problems: dict[str, str] = {}
    circles: set[str] = set()
    for name in sorted(specs.keys() | named):
        paths[name], above = _way_up(name, specs)
        problems[name] = _problem(paths[name], above, specs)
        if above is not None:
            circles.add(name)
    feeding, rivals = {}, {}
    for claim in claims:
        if not claim:
            continue
        lowest = _lowest(claim, paths)
        feeding[claim] = name = " and ".join(lowest)
        if len(lowest) > 1:
            rivals[name] = lowest
            paths[name] = list(dict.fromkeys([name, *(above for rival in lowest for above in paths[rival])]))
            troubles = [problems[rival] for rival in lowest if problems[rival]]
            problems[name] = troubles[0] if troubles else _rivalry(lowest)
    names = tuple(paths)
    number = {name: i for i, name in enumerate(names)}
    numbers = tuple(tuple(number[domain] for domain in paths[name]) for name in names)
    levels = max(map(len, numbers), default=1)
    limits = [0 if problems[name] else specs[name].limit_watts for name in names]
    return PowerShape(
        names=names,
        number=number,
        path=np.array([p + p[-1:] * (levels - len(p)) for p in numbers], dtype=np.int64).reshape(-1, levels),
        depth=np.array([len(path) - 1 for path in numbers], dtype=np.int64),
        limit=np.array(limits, dtype=np.int64),
        problem=tuple(problems[name] for name in names),
        path_without_repeats=numbers,
        feeding={claim: number[name] for claim, name in feeding.items()},
        rivals={number[name]: lowest for name, lowest in rivals.items()},
        in_circle=frozenset(number[name] for name in circles),
    )


def _way_up(name: str, specs: dict[str, PowerDomainSpec]) -> tuple[list[str], str | None]:
    """A domain and those above it, as far as it goes; then the one of them that comes again, None if none does."""
    path = [name]
    above = specs[name].parent if name in specs else None
    while above is not None and above not in path:
        path.append(above)
        above = specs[above].parent if above in specs else None
    return path, above


def _lowest(claim: Claim, paths: dict[str, list[str]]) -> Claim:
    """The domains of a claim that are above none of the others; in a circle, where each is above each, all."""
    return tuple(
        domain
        for domain in claim
        if not any(domain in paths[other] and other not in paths[domain] for other in claim)
    )


def _rivalry(rivals: Claim) -> str:
    return (
        f"power domains {' and '.join(rivals)} select the same nodes, and neither feeds the other: "
        "nothing starts on these nodes until spec.nodeSelector or spec.parent of one is changed"
    )


def _problem(path: list[str], above: str | None, specs: dict[str, PowerDomainSpec]) -> str:
    """What is wrong on the way up from a domain, and what to do; "" for nothing.

    Args:
        path: The domain and those above it, as far as it goes.
        above: A domain of the path that comes again; None if the path ends.
        specs: The domains that exist.
    """
    if above is not None:
        circle = " -> ".join([*path[path.index(above) :], above])
        return (
            f"power domains feed each other in a circle ({circle}): "
            "nothing starts below them until spec.parent of one is changed"
        )
    if path[-1] in specs:
        return ""
    if len(path) == 1:
        return (
            f"power domain {path[-1]} does not exist: "
            "nothing starts on its nodes until it is created or they name another"
        )
    return (
        f"power domain {path[-2]} has a parent that does not exist, {path[-1]}: "
        "nothing starts below it until that is created or spec.parent changed"
    )
