"""The hall: nodes, their place in the tree of racks and blocks, and the power that feeds them; all by column."""

from __future__ import annotations

import numpy as np

from datahall.planning.power_tree import PowerTree
from datahall.planning.state import IntArray, NodeArrays
from datahall.planning.topology import Topology
from datahall.planning.types import NodeState


class Hall:
    """What there is. The three parts are changed together here, and read one by one."""

    def __init__(self) -> None:
        self.nodes = NodeArrays()
        self.topology = Topology()
        self.power = PowerTree()
        self._fed_by: IntArray | None = None
        self._fed_by_version = (-1, -1)

    def upsert(self, node: NodeState) -> bool:
        """Take in a node as it is now; return whether anything changed."""
        if not self.nodes.upsert(node):
            return False
        column = self.nodes.column(node.name)
        assert column is not None, "it was just taken in"
        self.topology.put(column, node.name, rack=node.rack, block=node.block)
        self.power.assign(node.name, *node.power_domains)
        return True

    def remove(self, name: str) -> bool:
        """Forget a node; what is accounted on it stays accounted. Return whether it was known."""
        column = self.nodes.column(name)
        if not self.nodes.remove(name):
            return False
        assert column is not None, "a known node has a column"
        self.topology.remove(column)
        self.power.assign(name)
        return True

    def fed_by(self) -> IntArray | None:
        """The number of each column's power domain, [column], -1 for none; None if no node has one."""
        version = (self.nodes.version, self.power.version)
        if self._fed_by_version != version:
            nodes = self.nodes
            places = self.power.places(nodes.name(column) for column in range(nodes.columns))
            self._fed_by = places if (places >= 0).any() else None
            self._fed_by_version = (self.nodes.version, self.power.version)
        if self._fed_by is not None and len(self._fed_by) < self.nodes.columns:
            missing = self.nodes.columns - len(self._fed_by)
            self._fed_by = np.pad(self._fed_by, (0, missing), constant_values=-1)
        return self._fed_by
