"""The power tree: watts as a resource of admission.

A node hangs under a power domain, a domain under its parent, up to the site. Starting work reserves the watts of its
caps, not of its data sheets, on the node and on each domain above, and an admission needs headroom in all of them.

Nothing ends here. A budget lowered below what is reserved makes headroom negative, and new admissions are refused until
enough has been released. What is not known limits too: a domain whose parent does not exist, a cycle, a node under a
domain that is not there all have no headroom, with a text that says what to mend, because the feed behind them may be
full. A node that names no domain has no limit.

All watts are whole numbers, so that sums are exact after any history: callers round what is reserved up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from datahall.planning.packing.demand import Floats
from datahall.planning.packing.states import CPU, FREE, KIND, WHOLE, Rows
from datahall.planning.packing.watts import WattModel
from datahall.planning.state import IntArray

UNLIMITED_WATTS = 1 << 50
"""Headroom of a node without a domain: more than any hall draws, and small enough to add up."""


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
class Refused:
    """There are not enough watts.

    Attributes:
        domain: The domain that lacks the most.
        budget_watts: Its budget.
        limit_watts: What of it may be reserved; less than the budget by its margin.
        reserved_watts: What is reserved below it.
        asked_watts: What is asked for below it.
        problem: What is wrong with the tree there; "" if it is only full.
    """

    domain: str
    budget_watts: int
    limit_watts: int
    reserved_watts: int
    asked_watts: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The tree as arrays, made when its shape has changed.

    Attributes:
        names: Domains, those that are only named by nodes or parents included, [domain].
        number: The place of each in `names`.
        path: Each domain and those above it, nearest first, filled up with the last, [domain, level].
        depth: How many domains are above each, [domain].
        limit: What may be reserved, [domain]; 0 for a domain with a problem.
        problem: What is wrong with each, or with one above it, [domain].
        path_without_repeats: As `path`, as plain numbers, [domain].
    """

    names: tuple[str, ...]
    number: dict[str, int]
    path: IntArray
    depth: IntArray
    limit: IntArray
    problem: tuple[str, ...]
    path_without_repeats: tuple[tuple[int, ...], ...]


class PowerTree:
    """The power domains, which nodes hang under them, and what is reserved."""

    def __init__(self) -> None:
        self._specs: dict[str, PowerDomainSpec] = {}
        self._domain_of: dict[str, str] = {}
        self._reserved: dict[str, int] = {}
        self._compiled: _Compiled | None = None
        self._below: IntArray = np.zeros(0, dtype=np.int64)
        self.version = 0
        """Grows when `places` that were given no longer hold."""

    # ---- deltas

    def upsert(self, spec: PowerDomainSpec) -> bool:
        """Take in a domain as it is now; whether anything changed."""
        if self._specs.get(spec.name) == spec:
            return False
        self._specs[spec.name] = spec
        self._forget_shape()
        return True

    def remove(self, name: str) -> bool:
        """Forget a domain; nodes and domains that name it keep naming it. Whether it was known."""
        if self._specs.pop(name, None) is None:
            return False
        self._forget_shape()
        return True

    def assign(self, node: str, domain: str | None) -> bool:
        """Hang a node, with what is reserved on it, under a domain, or under none; whether anything changed."""
        if self._domain_of.get(node) == domain:
            return False
        if domain is None:
            del self._domain_of[node]
        else:
            self._domain_of[node] = domain
        self._forget_shape()
        return True

    def reserve(self, node: str, watts: int) -> None:
        """Reserve watts on a node, known or not. Nothing is checked: ask `allows` first, or accept what is so."""
        if watts < 0:
            raise ValueError(f"node {node}: {watts} watts cannot be reserved; release is a call of its own")
        self._change(node, watts)

    def release(self, node: str, watts: int) -> None:
        """Give back what was reserved."""
        reserved = self._reserved.get(node, 0)
        if not 0 <= watts <= reserved:
            raise ValueError(f"node {node}: {watts} watts cannot be released of {reserved} reserved")
        self._change(node, -watts)

    # ---- questions

    def reserved_watts(self, domain: str) -> int:
        """What is reserved on all nodes below a domain, known or not."""
        shape = self._shape()
        number = shape.number.get(domain)
        return 0 if number is None else int(self._below[number])

    def headroom_watts(self, domain: str) -> int:
        """What may still be reserved below a domain: the least of its own headroom and of those above.

        Negative where a budget was lowered below what is reserved. At most 0 for a domain with a problem.
        """
        shape = self._shape()
        number = shape.number.get(domain)
        return 0 if number is None else int(self._headroom(shape)[shape.path[number]].min())

    def problems(self) -> dict[str, str]:
        """What is wrong with the tree, by domain, with the way out."""
        shape = self._shape()
        return {name: text for name, text in zip(shape.names, shape.problem, strict=True) if text}

    def places(self, nodes: Iterable[str]) -> IntArray:
        """The number of each node's domain, [node]; -1 for a node without one. They hold until `version` changes."""
        number, domain_of = self._shape().number, self._domain_of
        return np.array([number.get(domain_of.get(node, ""), -1) for node in nodes], dtype=np.int64)

    def room(self, places: IntArray) -> IntArray:
        """Watts that each node could get if no other got any, [node].

        Args:
            places: The nodes' domains, [node]; see `places`.
        """
        shape = self._shape()
        if not shape.names:
            return np.full(len(places), UNLIMITED_WATTS)
        least = self._headroom(shape)[shape.path].min(axis=1)
        return np.where(places >= 0, least[places], UNLIMITED_WATTS)

    def allows(self, places: IntArray, watts: IntArray) -> Refused | None:
        """Whether watts may be reserved, all of them at once.

        Args:
            places: The nodes' domains, [node]; see `places`.
            watts: What is asked for on each node, [node]; nodes with 0 do not matter.
        """
        shape = self._shape()
        asking = (watts > 0) & (places >= 0)
        if not asking.any():
            return None
        own = np.zeros(len(shape.names), dtype=np.int64)
        np.add.at(own, places[asking], watts[asking])
        asked = _sum_up(own, shape)
        lacking = np.where(asked > 0, asked - self._headroom(shape), 0)
        if not (lacking > 0).any():
            return None
        # The one that lacks the most; among equals the one nearest to the nodes, which names the smallest place.
        worst = int(np.lexsort((-shape.depth, -lacking))[0])
        spec = self._specs.get(shape.names[worst])
        return Refused(
            domain=shape.names[worst],
            budget_watts=0 if spec is None else spec.budget_watts,
            limit_watts=int(shape.limit[worst]),
            reserved_watts=int(self._below[worst]),
            asked_watts=int(asked[worst]),
            problem=shape.problem[worst],
        )

    def limit_slots(
        self,
        places: IntArray,
        slots: IntArray,
        watts_per_worker: int,
        *,
        order: IntArray | None = None,
        group_of: IntArray | None = None,
    ) -> IntArray:
        """Fewer slots, such that workers on all of them stay within every budget, [node].

        Nodes get watts in order, each as much as the domains above it have left.

        Args:
            places: The nodes' domains, [node]; see `places`.
            slots: How many workers fit each node otherwise, [node].
            watts_per_worker: What one worker reserves.
            order: Nodes that come first, as ranks, [node]; without it, as they stand.
            group_of: If all workers go into one group, such as a rack: the group of each node, [node]. Each group is
                then limited as if it were alone, and only one may be used.
        """
        shape = self._shape()
        if watts_per_worker <= 0 or not shape.names:
            return slots.copy()
        ranks = np.arange(len(slots)) if order is None else order
        groups = np.zeros(len(slots), dtype=np.int64) if group_of is None else group_of
        workers_left = np.maximum(self._headroom(shape), 0) // watts_per_worker
        limited = slots.copy()
        depth = np.where(places >= 0, shape.depth[places], -1)
        for level in range(int(shape.depth.max()), -1, -1):
            below = np.flatnonzero((depth >= level) & (limited > 0))
            if len(below) == 0:
                continue
            # The domain above each node at this level; what a deeper one has cut stays cut.
            domain = shape.path[places[below], depth[below] - level]
            by_order = np.lexsort((ranks[below], groups[below], domain))
            below, domain = below[by_order], domain[by_order]
            new = (np.diff(domain, prepend=-1) != 0) | (np.diff(groups[below], prepend=groups[below[0]]) != 0)
            first = np.flatnonzero(new)
            taken = limited[below].cumsum() - limited[below]
            taken -= np.repeat(taken[first], np.diff(first, append=len(below)))
            limited[below] = np.clip(workers_left[domain] - taken, 0, limited[below])
        return limited

    # ---- inside

    def _forget_shape(self) -> None:
        self._compiled = None
        self.version += 1

    def _change(self, node: str, watts: int) -> None:
        reserved = self._reserved.get(node, 0) + watts
        if reserved:
            self._reserved[node] = reserved
        else:
            self._reserved.pop(node, None)
        domain = self._domain_of.get(node)
        if self._compiled is not None and domain is not None:
            path = self._compiled.path_without_repeats[self._compiled.number[domain]]
            self._below[list(path)] += watts

    def _headroom(self, shape: _Compiled) -> IntArray:
        """What each domain has left by its own limit, [domain]; at most 0 for one with a problem."""
        headroom: IntArray = shape.limit - self._below
        return headroom

    def _shape(self) -> _Compiled:
        if self._compiled is None:
            shape = self._compiled = _compile(self._specs, set(self._domain_of.values()))
            own = np.zeros(len(shape.names), dtype=np.int64)
            for node, watts in self._reserved.items():
                domain = self._domain_of.get(node)
                if domain is not None:
                    own[shape.number[domain]] += watts
            self._below = _sum_up(own, shape)
        return self._compiled


def added_watts(
    model: WattModel, kind: IntArray, free: IntArray, amounts: tuple[int, int], workers: IntArray
) -> Floats:
    """Watts that workers would add to each node by the two-point model, [node]: a tie-break for packing.

    Args:
        model: What nodes draw.
        kind: The kind of each node in the model, [node].
        free: Free whole GPUs and free CPU thousandths, [2, node].
        amounts: GPUs and CPU thousandths of one worker.
        workers: How many workers would come, [node]; they must fit.
    """
    taken: IntArray = np.array(amounts, dtype=np.int64)[:, None] * workers[None, :]
    watts: Floats = model.of(_rows(kind, free - taken)) - model.of(_rows(kind, free))
    return watts


def refused_text(refused: Refused) -> str:
    """Why there are not enough watts, for people."""
    if refused.problem:
        return f"needs {refused.asked_watts} W; {refused.problem}"
    left = refused.limit_watts - refused.reserved_watts
    margin = refused.budget_watts - refused.limit_watts
    kept = f", {margin} W kept as margin" if margin else ""
    over = f"is {-left} W above its limit" if left < 0 else f"has {left} W left"
    return (
        f"needs {refused.asked_watts} W under power domain {refused.domain}, which {over} "
        f"({refused.reserved_watts} of {refused.budget_watts} W reserved{kept})"
    )


def _rows(kind: IntArray, free: IntArray) -> Rows:
    """States of nodes with whole GPUs free, [node, column]."""
    gpus = int(max(free[0].max(initial=0), 0))
    rows: Rows = np.zeros((len(kind), FREE + gpus), dtype=np.int32)
    rows[:, KIND] = kind
    rows[:, CPU] = free[1]
    rows[:, FREE:] = np.where(np.arange(gpus)[None, :] < free[0][:, None], WHOLE, 0)
    return rows


def _sum_up(own: IntArray, shape: _Compiled) -> IntArray:
    """Sums over each domain and all below it, [domain].

    Args:
        own: What nodes directly under each domain have, [domain].
        shape: The tree.
    """
    total = np.zeros_like(own)
    for number in np.flatnonzero(own).tolist():
        total[list(shape.path_without_repeats[number])] += own[number]
    return total


def _compile(specs: dict[str, PowerDomainSpec], named_by_nodes: set[str]) -> _Compiled:
    """The tree as arrays; whatever is wrong with it costs its nodes their headroom, and has a text."""
    missing = named_by_nodes | {spec.parent for spec in specs.values() if spec.parent is not None}
    names = tuple(sorted(specs.keys() | missing))
    number = {name: i for i, name in enumerate(names)}
    paths: list[tuple[int, ...]] = []
    problems: list[str] = []
    for name in names:
        path = [name]
        above = specs[name].parent if name in specs else None
        while above is not None and above not in path:
            path.append(above)
            above = specs[above].parent if above in specs else None
        problems.append(_problem(path, above, specs))
        paths.append(tuple(number[domain] for domain in path))
    levels = max(map(len, paths), default=1)
    path_array = np.array([p + p[-1:] * (levels - len(p)) for p in paths], dtype=np.int64).reshape(-1, levels)
    limits = [0 if text else specs[name].limit_watts for name, text in zip(names, problems, strict=True)]
    return _Compiled(
        names=names,
        number=number,
        path=path_array,
        depth=np.array([len(path) - 1 for path in paths], dtype=np.int64),
        limit=np.array(limits, dtype=np.int64),
        problem=tuple(problems),
        path_without_repeats=tuple(paths),
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
