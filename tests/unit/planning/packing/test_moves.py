"""One pod steps aside for another: books stay right, the budget holds, and a hall that is full gets fuller."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.packing.demand import Mix, PodClass
from datahall.planning.packing.moves import Move, Mover, Seat
from datahall.planning.packing.packer import Packer
from datahall.planning.packing.slots import SlotValue
from datahall.planning.packing.states import FREE, NodeKind, NodeStates

from .conftest import KINDS, pods
from .reference import Node

NODES = [0, 1, 2, 1, 0]


def take(node: Node, pod: PodClass, gpus: tuple[int, ...], sign: int) -> None:
    assert len(gpus) == pod.gpus
    node.cpu_milli -= sign * pod.cpu_milli
    node.memory_mib -= sign * pod.memory_mib
    for gpu in gpus:
        node.free[gpu] -= sign * pod.gpu_milli
    assert min(node.cpu_milli, node.memory_mib, *node.free, 0) == 0


@given(st.lists(pods, min_size=1, max_size=60), st.sampled_from([0.1, 1.0]))
@settings(max_examples=60)
def test_books_stay_right_and_moves_stay_within_the_budget(
    arriving: list[PodClass], per_arrival: float
) -> None:
    states = NodeStates(KINDS, NODES)
    mover = Mover(Packer(states, SlotValue(Mix.of(arriving), KINDS)), per_arrival=per_arrival)
    nodes = [Node.empty(KINDS[kind]) for kind in NODES]
    seats: list[tuple[PodClass, Seat]] = []
    moves = 0
    for pod in arriving:
        fitted = any(node.fits(pod) for node in nodes)
        seat, move = mover.place(pod)
        if move is not None:
            assert not fitted
            moves += 1
            other, old = seats[move.pod]
            take(nodes[old.node], other, old.gpus, -1)
            take(nodes[move.to.node], other, move.to.gpus, 1)
            seats[move.pod] = (other, move.to)
        assert seat is not None or not fitted
        if seat is not None:
            take(nodes[seat.node], pod, seat.gpus, 1)
            seats.append((pod, seat))
    assert moves <= per_arrival * len(arriving)
    for number, node in enumerate(nodes):
        free = states.rows[states.of_node[number], FREE : FREE + node.kind.gpus]
        assert sorted(free.tolist()) == sorted(node.free)


@pytest.mark.parametrize("per_arrival", [0.0, 0.4, 0.5])
def test_a_pod_that_could_be_elsewhere_steps_aside_once_the_budget_allows_it(per_arrival: float) -> None:
    kinds = (NodeKind("H100", 1, 10_000, 1000), NodeKind("T4", 1, 10_000, 1000))
    anywhere, picky = PodClass(1000, 0, 1, 500), PodClass(1000, 0, 1, 1000, frozenset({"H100"}))
    # A rule that was not told of picky pods takes the first of two equal nodes.
    mover = Mover(
        Packer(NodeStates(kinds, [0, 1]), SlotValue(Mix.of([anywhere]), kinds)), per_arrival=per_arrival
    )
    assert mover.place(anywhere) == (Seat(0, (0,)), None)
    moved = (Seat(0, (0,)), Move(0, Seat(1, (0,))))
    assert mover.place(picky) == (moved if per_arrival == 0.5 else (None, None))
    if per_arrival == 0.4:
        assert mover.place(picky) == moved


def test_nothing_is_moved_for_a_pod_that_would_not_fit_then_either() -> None:
    kinds = (NodeKind("H100", 1, 10_000, 1000),)
    large, whole = PodClass(1000, 0, 1, 600), PodClass(1000, 0, 1, 1000)
    states = NodeStates(kinds, [0, 0])
    mover = Mover(Packer(states, SlotValue(Mix.of([large]), kinds)), per_arrival=1.0)
    for pod in (large, large):
        assert mover.place(pod)[0] is not None
    before = states.of_node.tolist()
    assert mover.place(whole) == (None, None)
    assert states.of_node.tolist() == before
