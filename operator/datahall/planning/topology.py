"""The hall's tree: hosts stand in racks, racks in blocks; kept by deltas, as arrays over the planner's columns.

A label that is missing is never guessed, and the tree stays a tree all the same: what runs on one host is on one rack
whatever its labels say, so a host without a rack label is a rack of its own, and a rack without a block label is a
block of its own. Two such hosts are never taken for neighbours. Racks of the same name in two blocks are two racks.

Numbers of racks and blocks are reused once the last node has left. They are good for one decision: what is to be
remembered longer is a `Domain`, which goes by names.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datahall.planning.state import BoolArray, IntArray
from datahall.planning.types import Level

FloatArray = npt.NDArray[np.float64]

Neighbours = tuple[IntArray, IntArray, IntArray, BoolArray, BoolArray]
"""See `Topology.neighbours`."""

NOWHERE = -1
"""The number of no domain: columns without a known node."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A part of the hall, by names, which outlive numbers.

    Attributes:
        level: Its level.
        block: Label of the block, if there is one.
        rack: Label of the rack, if there is one.
        host: The node's name, for a host or for a rack or block that a node is on its own for lack of labels.
    """

    level: Level
    block: str | None = None
    rack: str | None = None
    host: str | None = None


class _Numbers:
    """Small numbers for domains while they have nodes."""

    def __init__(self) -> None:
        self._number_of: dict[Hashable, int] = {}
        self._domains: list[Domain | None] = []
        self._nodes: list[int] = []
        self._unused: list[int] = []

    def __len__(self) -> int:
        """One more than the highest number ever in use."""
        return len(self._domains)

    def join(self, domain: Domain) -> int:
        number = self._number_of.get(domain)
        if number is None:
            if self._unused:
                number = self._unused.pop()
            else:
                number = len(self._domains)
                self._domains.append(None)
                self._nodes.append(0)
            self._number_of[domain] = number
            self._domains[number] = domain
        self._nodes[number] += 1
        return number

    def leave(self, number: int) -> None:
        self._nodes[number] -= 1
        if self._nodes[number] == 0:
            del self._number_of[self.domain(number)]
            self._domains[number] = None
            self._unused.append(number)

    def domain(self, number: int) -> Domain:
        domain = self._domains[number]
        assert domain is not None, f"domain {number} has no nodes"
        return domain

    def find(self, domain: Domain) -> int | None:
        return self._number_of.get(domain)

    def in_use(self) -> int:
        return len(self._number_of)


class Topology:
    """The tree over columns. Arrays it gives are views or are kept: they must not be written to."""

    def __init__(self) -> None:
        self._racks = _Numbers()
        self._blocks = _Numbers()
        self._rack: IntArray = np.full(0, NOWHERE, dtype=np.int64)
        self._block: IntArray = np.full(0, NOWHERE, dtype=np.int64)
        self._host: IntArray = np.full(0, NOWHERE, dtype=np.int64)
        self._labels: dict[int, tuple[str, str | None, str | None]] = {}
        self._column_of: dict[str, int] = {}
        self._line: list[tuple[str, str, str, int]] = []
        self._rank: IntArray | None = None
        self._neighbours: tuple[int, Neighbours] | None = None

    # ---- deltas

    def put(self, column: int, name: str, *, rack: str | None, block: str | None) -> bool:
        """Take in a node, or its labels as they are now; return whether anything changed.

        Args:
            column: The node's column.
            name: The node's name. A node of that name in another column is forgotten.
            rack: Label of its rack, if it has one; an empty label is none.
            block: Label of its block, if it has one.
        """
        rack, block = rack or None, block or None
        if self._labels.get(column) == (name, rack, block):
            return False
        self.remove(column)
        elsewhere = self._column_of.get(name)
        if elsewhere is not None:
            self.remove(elsewhere)
        self._reserve(column + 1)
        own = None if rack else name
        self._rack[column] = self._racks.join(Domain(Level.RACK, block, rack, own))
        if block:
            self._block[column] = self._blocks.join(Domain(Level.BLOCK, block))
        else:
            self._block[column] = self._blocks.join(Domain(Level.BLOCK, None, rack, own))
        self._host[column] = column
        self._labels[column] = (name, rack, block)
        self._column_of[name] = column
        insort(self._line, (block or "", rack or "", name, column))
        self._rank = self._neighbours = None
        return True

    def remove(self, column: int) -> bool:
        """Forget the node of a column; return whether there was one."""
        found = self._labels.pop(column, None)
        if found is None:
            return False
        name, rack, block = found
        self._racks.leave(int(self._rack[column]))
        self._blocks.leave(int(self._block[column]))
        self._rack[column] = self._block[column] = self._host[column] = NOWHERE
        del self._column_of[name]
        del self._line[bisect_left(self._line, (block or "", rack or "", name, column))]
        self._rank = self._neighbours = None
        return True

    # ---- views

    def numbers(self, level: Level, columns: int) -> IntArray:
        """The domain of each column at a level, [columns]; NOWHERE where there is no node.

        Hosts have their column for a number; the hall is number 0.
        """
        self._reserve(columns)
        match level:
            case Level.HOST:
                return self._host[:columns]
            case Level.RACK:
                return self._rack[:columns]
            case Level.BLOCK:
                return self._block[:columns]
            case Level.HALL:
                return np.minimum(self._host[:columns], 0)

    def bound(self, level: Level, columns: int) -> int:
        """One more than the highest number of a level."""
        return {
            Level.HOST: columns,
            Level.RACK: len(self._racks),
            Level.BLOCK: len(self._blocks),
            Level.HALL: 1,
        }[level]

    def count(self, level: Level) -> int:
        """How many domains of a level there are."""
        nodes = len(self._labels)
        return {
            Level.HOST: nodes,
            Level.RACK: self._racks.in_use(),
            Level.BLOCK: self._blocks.in_use(),
            Level.HALL: 1,
        }[level]

    def rank(self, columns: int) -> IntArray:
        """Place of each column in the line of all nodes by block, rack and name, [columns].

        Columns without a node come last. Neighbours in this line are neighbours in the tree.
        """
        if self._rank is None or len(self._rank) < columns:
            rank = np.full(max(columns, len(self._rack)), len(self._line), dtype=np.int64)
            rank[[entry[3] for entry in self._line]] = np.arange(len(self._line))
            self._rank = rank
        return self._rank[:columns]

    def neighbours(self, columns: int) -> Neighbours:
        """Who stands beside whom, kept until nodes come or go.

        Returns:
            Columns with a node, [k]; their racks and blocks, both [k]; which racks have more than one node, [rack]; and
            whether there are other racks in the block of each column, [k].
        """
        if self._neighbours is None or self._neighbours[0] != columns:
            racks, blocks = self.numbers(Level.RACK, columns), self.numbers(Level.BLOCK, columns)
            here = np.flatnonzero(racks >= 0)
            rack, block = racks[here], blocks[here]
            in_rack = np.bincount(rack, minlength=self.bound(Level.RACK, columns))
            in_block = np.bincount(block, minlength=self.bound(Level.BLOCK, columns))
            found = here, rack, block, in_rack > 1, in_block[block] > in_rack[rack]
            self._neighbours = columns, found
        return self._neighbours[1]

    def domain(self, level: Level, number: int) -> Domain:
        """The domain that has a number now."""
        match level:
            case Level.HOST:
                name, rack, block = self._labels[number]
                return Domain(Level.HOST, block, rack, name)
            case Level.RACK:
                return self._racks.domain(number)
            case Level.BLOCK:
                return self._blocks.domain(number)
            case Level.HALL:
                return Domain(Level.HALL)

    def find(self, domain: Domain) -> int | None:
        """The number that a domain has now; None once it has no nodes. A host is known by its name alone."""
        match domain.level:
            case Level.HOST:
                return None if domain.host is None else self._column_of.get(domain.host)
            case Level.RACK:
                return self._racks.find(domain)
            case Level.BLOCK:
                return self._blocks.find(domain)
            case Level.HALL:
                return 0

    def _reserve(self, columns: int) -> None:
        more = max(64, columns, 2 * len(self._rack)) - len(self._rack)
        if columns > len(self._rack):
            self._rack, self._block, self._host = (
                np.pad(array, (0, more), constant_values=NOWHERE)
                for array in (self._rack, self._block, self._host)
            )


def whole_domain_penalty(topology: Topology, busy: BoolArray) -> FloatArray:
    """What it costs big gangs if something small goes to a column: steps by which whole domains are broken into.

    To be added to a packing cost (times a weight), or to be compared before it: small work then fills the racks that
    are in use before it breaks into the next. One-GPU services that ignore this end up on every rack of a hall and
    leave none whole (kubernetes-sigs/kueue, pull request 10406). A rack of one node and a block of one rack are not
    counted: what an empty node is worth is for the packing to say.

    Args:
        topology: The tree.
        busy: Columns where something runs that big gangs would have to wait for, [column].

    Returns:
        0 for racks in use, 1 for an untouched rack in a block that is in use, 2 where the block is untouched too,
        [column].
    """
    penalty: FloatArray = np.zeros(len(busy))
    here, rack, block, several, beside_others = topology.neighbours(len(busy))
    used = busy[here]
    whole_rack, whole_block = several.copy(), np.ones(topology.bound(Level.BLOCK, len(busy)), dtype=np.bool_)
    whole_rack[rack[used]] = False
    if whole_rack.any():
        whole_block[block[used]] = False
        penalty[here] = whole_rack[rack] * (1.0 + (whole_block[block] & beside_others))
    return penalty
