"""The power tree: watts as a resource of admission.

A node hangs under a power domain, a domain under its parent, up to the site. Starting work reserves the watts of its
caps, not of its data sheets, on the node and on each domain above, and an admission needs headroom in all of them.

Nothing ends here. A budget lowered below what is reserved makes headroom negative, and new admissions are refused until
enough has been released. What is not known limits too: a domain whose parent does not exist, a cycle, a node under a
domain that is not there, a node that two domains claim all have no headroom, with a text that says what to mend,
because the feed behind them may be full. A node that no domain claims has no limit.

Watts can be held for a gang that starts once others have ended: nobody else gets them, and they count beside what those
others still reserve.

Only what gangs reserve counts: what nodes draw beside their GPUs, and what foreign pods draw, is for the budget or its
margin to leave.

All watts are whole numbers, so that sums are exact after any history: callers round what is reserved up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from datahall.planning.packing.demand import Floats
from datahall.planning.packing.states import CPU, FREE, KIND, WHOLE, Rows
from datahall.planning.packing.watts import WattModel
from datahall.planning.power_shape import Claim, PowerDomainSpec, PowerShape, power_shape
from datahall.planning.promises import Entries, Promises
from datahall.planning.state import IntArray

UNLIMITED_WATTS = 1 << 50
"""Headroom of a node without a domain: more than any hall draws, and small enough to add up."""


@dataclass(frozen=True, slots=True)
class Refused:
    """There are not enough watts.

    Attributes:
        domain: The domain that lacks the most.
        budget_watts: Its budget.
        limit_watts: What of it may be reserved; less than the budget by its margin.
        reserved_watts: What is reserved below it.
        asked_watts: What is asked for below it.
        held_watts: What is held below it for others, that start soon.
        problem: What is wrong with the tree there; "" if it is only full.
    """

    domain: str
    budget_watts: int
    limit_watts: int
    reserved_watts: int
    asked_watts: int
    held_watts: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PowerReport:
    """Where a power domain stands.

    Attributes:
        limit_watts: What may be reserved below it: its budget without its margin.
        reserved_watts: What is reserved below it.
        available_watts: What may still be reserved below it, by its own limit and those above; never negative.
        nodes: Nodes below it.
        problem: What is wrong with its place in the tree, so that nothing starts below it; "" for nothing.
        in_circle: Whether the problem is that parents go in a circle, rather than that one does not exist.
        shared: Nodes that another domain claims as well, with the names of those domains, so that nothing starts there.
    """

    limit_watts: int
    reserved_watts: int
    available_watts: int
    nodes: int
    problem: str = ""
    in_circle: bool = False
    shared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class PowerTree:
    """The power domains, which nodes hang under them, and what is reserved."""

    def __init__(self) -> None:
        self._specs: dict[str, PowerDomainSpec] = {}
        self._claims: dict[str, Claim] = {}
        self._reserved: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._promises: Promises | None = None
        self._compiled: PowerShape | None = None
        self._below: IntArray = np.zeros(0, dtype=np.int64)
        self._held_below: IntArray = np.zeros(0, dtype=np.int64)
        self._nodes_below: IntArray = np.zeros(0, dtype=np.int64)
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

    def assign(self, node: str, *domains: str) -> bool:
        """Hang a node, with what is reserved on it, under the domains that claim it; whether anything changed.

        Args:
            node: The node.
            domains: Those that claim it, in any order: one, or several of which one is below all others. None at all
                for a node without a limit.
        """
        claim = tuple(sorted(set(domains)))
        if self._claims.get(node, ()) == claim:
            return False
        if claim:
            self._claims[node] = claim
        else:
            del self._claims[node]
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

    def hold(self, node_watts: Mapping[str, int], sign: int = 1) -> None:
        """Keep watts on nodes, known or not, from everyone; give them back with -1. Nothing is checked."""
        for node, watts in node_watts.items():
            held = self._held.get(node, 0) + sign * watts
            if held < 0:
                raise ValueError(
                    f"node {node}: {watts} watts cannot be given back of {held - sign * watts} held"
                )
            if held:
                self._held[node] = held
            else:
                self._held.pop(node, None)
        if self._compiled is not None and node_watts:
            self._held_below += sign * self._sum_up(self._compiled, node_watts)

    def count_held(self, promises: Promises | None) -> None:
        """Count of what is held only what is lacking beside what leaving gangs give back, by domain; all, with None.

        That is for gangs that watts are held for. Where two end for two, the first starts when one has gone, though
        watts are held for the second: it gets those of the other. It ends when the shape of the tree changes.
        """
        self._promises = promises

    # ---- questions

    def below(self, node_watts: Mapping[str, int]) -> IntArray:
        """What so many watts on nodes come to below each domain, [domain]; it holds until `version` changes."""
        return self._sum_up(self._shape(), node_watts)

    def entries(self, gangs: Iterable[tuple[int, Mapping[str, int]]]) -> Entries:
        """Watts of gangs on nodes, in each of the domains above them; domains hold until `version` changes.

        Args:
            gangs: Their numbers, and the watts of each on its nodes.
        """
        shape, claims = self._shape(), self._claims
        found = [
            (domain, watts, gang)
            for gang, node_watts in gangs
            for node, watts in node_watts.items()
            if node in claims
            for domain in shape.path_without_repeats[shape.feeding[claims[node]]]
        ]
        domains, amounts, numbers = np.array(found, dtype=np.int64).reshape(-1, 3).T
        return Entries(domains, amounts[None, :], numbers)

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

    def report(self, domain: str) -> PowerReport | None:
        """Where a domain stands; None for one that does not exist."""
        spec = self._specs.get(domain)
        if spec is None:
            return None
        shape = self._shape()
        number = shape.number[domain]
        return PowerReport(
            limit_watts=spec.limit_watts,
            reserved_watts=int(self._below[number]),
            available_watts=max(0, self.headroom_watts(domain)),
            nodes=int(self._nodes_below[number]),
            problem=shape.problem[number],
            in_circle=number in shape.in_circle,
            shared=self._shared(shape, domain),
        )

    def problems(self) -> dict[str, str]:
        """What is wrong with the tree, by domain, with the way out."""
        shape = self._shape()
        return {name: text for name, text in zip(shape.names, shape.problem, strict=True) if text}

    def places(self, nodes: Iterable[str]) -> IntArray:
        """The number of each node's domain, [node]; -1 for a node without one. They hold until `version` changes."""
        feeding, claims = self._shape().feeding, self._claims
        return np.array([feeding.get(claims.get(node, ()), -1) for node in nodes], dtype=np.int64)

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
        asked = shape.sum_up(own)
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
            held_watts=int(self._held_for_others()[worst]),
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
        released: IntArray | None = None,
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
            released: What others would have given back by then, [domain]; see `below`.
        """
        shape = self._shape()
        if watts_per_worker <= 0 or not shape.names:
            return slots.copy()
        ranks = np.arange(len(slots)) if order is None else order
        groups = np.zeros(len(slots), dtype=np.int64) if group_of is None else group_of
        headroom = self._headroom(shape) if released is None else self._headroom(shape) + released
        workers_left = np.maximum(headroom, 0) // watts_per_worker
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
        self._promises = None
        self.version += 1

    def _change(self, node: str, watts: int) -> None:
        reserved = self._reserved.get(node, 0) + watts
        if reserved:
            self._reserved[node] = reserved
        else:
            self._reserved.pop(node, None)
        claim = self._claims.get(node)
        if self._compiled is not None and claim is not None:
            path = self._compiled.path_without_repeats[self._compiled.feeding[claim]]
            self._below[list(path)] += watts

    def _headroom(self, shape: PowerShape) -> IntArray:
        """What each domain has left by its own limit, [domain]; at most 0 for one with a problem."""
        headroom: IntArray = shape.limit - self._below - self._held_for_others()
        return headroom

    def _held_for_others(self) -> IntArray:
        """What is held below each domain for others than the one who asks, [domain]."""
        if self._promises is None:
            return self._held_below
        lacking: IntArray = self._promises.lacking(np.arange(len(self._held_below)))[0]
        return lacking

    def _shared(self, shape: PowerShape, domain: str) -> dict[str, tuple[str, ...]]:
        """Nodes that a domain claims and does not have for itself, with the names of the others that claim them."""
        stand_ins = {number for number, rivals in shape.rivals.items() if domain in rivals}
        if not stand_ins:
            return {}
        return {
            node: tuple(rival for rival in shape.rivals[number] if rival != domain)
            for node, claim in sorted(self._claims.items())
            if (number := shape.feeding[claim]) in stand_ins
        }

    def _shape(self) -> PowerShape:
        if self._compiled is None:
            shape = self._compiled = power_shape(self._specs, self._claims.values())
            self._below = self._sum_up(shape, self._reserved)
            self._held_below = self._sum_up(shape, self._held)
            self._nodes_below = self._sum_up(shape, dict.fromkeys(self._claims, 1))
        return self._compiled

    def _sum_up(self, shape: PowerShape, of_nodes: Mapping[str, int]) -> IntArray:
        """The sum over all nodes below each domain, [domain]."""
        own = np.zeros(len(shape.names), dtype=np.int64)
        for node, amount in of_nodes.items():
            claim = self._claims.get(node)
            if claim is not None:
                own[shape.feeding[claim]] += amount
        return shape.sum_up(own)


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
    left = refused.limit_watts - refused.reserved_watts - refused.held_watts
    margin = refused.budget_watts - refused.limit_watts
    kept = f", {margin} W kept as margin" if margin else ""
    kept += f", {refused.held_watts} W held for others" if refused.held_watts else ""
    short = f", {refused.asked_watts - left} W too few"
    above = refused.reserved_watts - refused.limit_watts
    over = f"is {above} W above its limit" if above > 0 else f"has {max(left, 0)} W left"
    return (
        f"needs {refused.asked_watts} W under power domain {refused.domain}, which {over}{short} "
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
