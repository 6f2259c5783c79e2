"""The tree of blocks, racks and hosts: what is near what, whatever nodes come, go and change their labels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datahall.planning.topology import NOWHERE, Domain, Level, Topology, whole_domain_penalty

RACKED = [Level.HOST, Level.RACK, Level.BLOCK]


def tree(*nodes):
    """A topology of (name, rack, block), in columns from 0."""
    topology = Topology()
    for column, (name, rack, block) in enumerate(nodes):
        topology.put(column, name, rack=rack, block=block)
    return topology


def path(name, rack, block):
    """What a node is in, by level: equal for two nodes if and only if they share the domain."""
    in_rack = ("rack", block, rack) if rack else ("host", name)
    in_block = ("block", block) if block else in_rack
    return {Level.HOST: ("host", name), Level.RACK: in_rack, Level.BLOCK: in_block, Level.HALL: "hall"}


labelled = st.tuples(
    st.sampled_from("pqrstu"), st.sampled_from([None, "", "1", "2"]), st.sampled_from([None, "a", "b"])
)
changes = st.lists(st.tuples(st.integers(0, 5), st.none() | labelled), max_size=30)


@given(changes)
def test_after_any_changes_the_tree_is_that_of_the_labels(events):
    topology, truth = Topology(), {}
    for column, node in events:
        assert (topology.rank(6) == len(truth)).sum() == 6 - len(truth), "asked for at every step: it is kept"
        if node is None:
            assert topology.remove(column) == (column in truth)
            truth.pop(column, None)
            continue
        name, rack, block = node
        expected = (name, rack or None, block)
        truth = {c: n for c, n in truth.items() if c == column or n[0] != name}
        assert topology.put(column, name, rack=rack, block=block) == (truth.get(column) != expected)
        truth[column] = expected
    for level in Level:
        numbers = topology.numbers(level, 8)
        assert len(numbers) == 8
        paths = {column: path(*node)[level] for column, node in truth.items()}
        for column in range(8):
            assert (numbers[column] == NOWHERE) == (column not in truth)
            assert numbers[column] < topology.bound(level, 8)
        for column in truth:
            for other in truth:
                assert (numbers[column] == numbers[other]) == (paths[column] == paths[other])
            domain = topology.domain(level, int(numbers[column]))
            assert topology.find(domain) == numbers[column]
        assert topology.count(level) == (1 if level is Level.HALL else len(set(paths.values())))
    line = sorted(truth, key=lambda c: (truth[c][2] or "", truth[c][1] or "", truth[c][0]))
    rank = topology.rank(8)
    assert sorted(truth, key=lambda c: rank[c]) == line
    assert all(rank[c] == len(truth) for c in range(8) if c not in truth)


def test_hosts_without_labels_are_never_neighbours():
    topology = tree(
        ("a", None, None), ("b", None, None), ("c", None, "x"), ("d", None, "x"), ("e", "1", None)
    )
    assert len(set(topology.numbers(Level.RACK, 5))) == 5
    blocks = topology.numbers(Level.BLOCK, 5)
    assert blocks[2] == blocks[3]
    assert len(set(blocks)) == 4


def test_racks_of_the_same_name_in_two_blocks_are_two():
    topology = tree(("a", "1", "x"), ("b", "1", "y"), ("c", "1", None), ("d", "1", None))
    racks = topology.numbers(Level.RACK, 4)
    assert len(set(racks)) == 3
    assert racks[2] == racks[3]


def test_a_number_that_is_reused_is_not_taken_for_the_domain_that_had_it():
    topology = tree(("a", "1", "x"))
    number = int(topology.numbers(Level.RACK, 1)[0])
    before = topology.domain(Level.RACK, number)
    topology.put(0, "b", rack="2", block="x")
    assert topology.numbers(Level.RACK, 1)[0] == number, "otherwise this test is about nothing"
    assert topology.find(before) is None
    assert topology.domain(Level.RACK, number) == Domain(Level.RACK, "x", "2")
    topology.put(7, "a", rack="1", block="x")
    assert topology.find(before) == topology.numbers(Level.RACK, 8)[7]


def test_a_node_that_comes_back_in_another_column_is_one_node():
    topology = tree(("a", "1", "x"), ("b", "1", "x"))
    topology.put(5, "a", rack="1", block="x")
    assert topology.count(Level.HOST) == 2
    assert topology.find(Domain(Level.HOST, host="a")) == 5
    assert not topology.remove(0)


def test_penalty_is_for_breaking_into_whole_racks_and_blocks():
    topology = tree(
        ("a1", "1", "a"), ("a2", "1", "a"), ("a3", "2", "a"), ("a4", "2", "a"),
        ("b1", "1", "b"), ("b2", "1", "b"), ("b3", "2", "b"),
        ("c1", "1", "c"), ("c2", "1", "c"),
        ("d", None, None),
    )  # fmt: skip
    busy = np.zeros(11, dtype=bool)
    busy[1] = True
    #                      in use, its block in use, untouched block, one-node rack, block of one rack, alone, no node
    assert whole_domain_penalty(topology, busy).tolist() == [0, 0, 1, 1, 2, 2, 0, 1, 1, 0, 0]
