"""Nodes by equal state: the groups always say what the nodes say."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datahall.planning.packing.states import CPU, FREE, NodeStates

from .conftest import KINDS

moves = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.permutations([0, 300, 1000, 1000])))


@given(moves, st.booleans())
def test_groups_say_what_the_nodes_say(
    moves: list[tuple[int, int, list[int]]], interchangeable: bool
) -> None:
    nodes = [0, 1, 1, 1, 2, 0]
    states = NodeStates(KINDS, nodes, interchangeable=interchangeable)
    for node, cpu, free in moves:
        row = states.rows[states.of_node[node]].copy()
        row[CPU] = cpu
        row[FREE : FREE + 4] = free
        states.move(node, row)
    for state in range(states.known):
        members = [node for node in range(len(nodes)) if states.of_node[node] == state]
        assert states.count[state] == len(members)
        if members:
            assert states.first[state] == members[0]
    assert sorted(set(states.of_node.tolist())) == states.occupied().tolist()
    assert len({row.tobytes() for row in states.rows[: states.known]}) == states.known


def test_a_state_is_logged_each_time_it_gets_its_first_node() -> None:
    states = NodeStates(KINDS, [0, 0])
    empty, other = states.rows[0].copy(), states.rows[0].copy()
    other[CPU] = 7
    changed = states.move(0, other)
    states.move(1, other)
    states.move(0, empty)
    assert states.log == [0, changed, 0]


def test_renumbered_gpus_are_one_state_unless_numbers_matter() -> None:
    for interchangeable in (True, False):
        states = NodeStates(KINDS, [1, 1], interchangeable=interchangeable)
        for node, free in ((0, [200, 1000, 1000, 1000]), (1, [1000, 1000, 200, 1000])):
            row = states.rows[states.of_node[node]].copy()
            row[FREE : FREE + 4] = free
            states.move(node, row)
        assert (states.of_node[0] == states.of_node[1]) == interchangeable
        assert np.sort(states.rows[states.of_node[1], FREE:]).tolist() == [200, 1000, 1000, 1000]
