"""How many pods fit: exact counts, however large the amounts, and the same whether worked out before or not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datahall.planning.packing.demand import Mix, PodClass
from datahall.planning.packing.packer import ways_to_place
from datahall.planning.packing.slots import Slots, SlotValue
from datahall.planning.packing.states import CPU, FREE, KIND, MEMORY, NodeKind, NodeStates

from .conftest import KINDS, pods

BIG = NodeKind("H100", 8, 2_000_000, 4_000_000)
amounts = st.integers(1, 2_000_000)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=8), st.integers(0, 2**31 - 1), amounts)
def test_counts_are_exact_for_any_amounts(asked: list[tuple[int, int]], cpu: int, memory: int) -> None:
    classes = [PodClass(c, m, 1, 1) for c, m in asked]
    row = np.zeros((1, FREE + BIG.gpus), dtype=np.int32)
    row[0, CPU], row[0, MEMORY] = cpu, memory
    row[0, FREE:] = 1000
    slots = Slots(classes, [BIG]).of(row)[0].tolist()
    assert slots == [min(4096, 8000, cpu // c, memory // m) for c, m in asked]


@given(st.integers(1, 10_000), st.integers(1, 200_000))
def test_what_divides_without_rest_counts_whole(times: int, asked: int) -> None:
    row = np.zeros((2, FREE + BIG.gpus), dtype=np.int32)
    row[:, CPU] = times * asked, times * asked - 1
    row[:, FREE:] = 1000
    slots = Slots([PodClass(asked, 0, 1, 1)], [BIG]).of(row)[:, 0].tolist()
    assert slots == [min(4096, times), min(4096, times - 1)]


@given(
    st.lists(pods, min_size=1, max_size=12), st.lists(st.integers(0, 2), min_size=1, max_size=8), st.data()
)
def test_a_state_that_was_met_before_is_judged_as_if_it_were_new(
    mix: list[PodClass], nodes: list[int], data: st.DataObject
) -> None:
    states = NodeStates(KINDS, nodes)
    rule = SlotValue(Mix.of(mix), KINDS, priced=False)
    rule.arrived(states)
    for pod in mix:
        numbers = np.array(data.draw(st.permutations(states.occupied().tolist())), dtype=np.int64)
        rows, allowed = states.rows[numbers], pod.allowed(KINDS)
        by_number = rule.features(pod, ways_to_place(pod, rows, allowed, numbers=numbers))
        assert (by_number == rule.features(pod, ways_to_place(pod, rows, allowed))).all()
        row = states.rows[states.of_node[0]].copy()
        row[CPU] = max(0, row[CPU] - 1000)
        assert row[KIND] == nodes[0]
        states.move(0, row)
