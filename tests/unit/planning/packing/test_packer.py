"""Pod by pod: every rule keeps the books right, refuses only what fits nowhere, and takes what it scores best."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.packing.baselines import (
    BestFit,
    DotProduct,
    Fragmentation,
    FragmentationGradientDescent,
    GpuClustering,
    GpuPacking,
    PowerAndFragmentation,
    RandomFit,
)
from datahall.planning.packing.demand import Mix, PodClass
from datahall.planning.packing.packer import Packer, Rule
from datahall.planning.packing.slots import Slots, SlotValue
from datahall.planning.packing.states import FREE, NodeStates
from datahall.planning.packing.watts import WattModel, WattPoints

from .conftest import KINDS, pods, shared
from .reference import Books, Node

NODES = [0, 1, 2, 1, 0]
GPU_WATTS = [(10, 70), (50, 400), (0, 0)]
SOCKET = (20, 165, 48_000)
WATTS = WattModel(KINDS, [WattPoints(*gpu, *SOCKET) for gpu in GPU_WATTS])

RULES: dict[str, Callable[[Mix], Rule]] = {
    "random": lambda mix: RandomFit(1),
    "dotprod": lambda mix: DotProduct(),
    "gpuclustering": lambda mix: GpuClustering(),
    "gpupacking": lambda mix: GpuPacking(KINDS),
    "bestfit": lambda mix: BestFit(),
    "fgd": lambda mix: FragmentationGradientDescent(mix, KINDS),
    "pwr+fgd": lambda mix: PowerAndFragmentation(mix, KINDS, WATTS),
    "slots": lambda mix: SlotValue(mix, KINDS),
    "slots and watts": lambda mix: SlotValue(mix, KINDS, watts=WATTS),
}
arriving = st.lists(pods, min_size=1, max_size=40)


@pytest.mark.parametrize("name", RULES)
@given(arriving=arriving)
@settings(max_examples=25)
def test_books_stay_right_and_only_what_fits_nowhere_is_refused(name: str, arriving: list[PodClass]) -> None:
    rule = RULES[name](Mix.of(arriving))
    states = NodeStates(KINDS, NODES, interchangeable=rule.interchangeable)
    packer, books = Packer(states, rule), Books([KINDS[kind] for kind in NODES])
    for pod in arriving:
        place = packer.place(pod)
        if place is None:
            assert not any(node.fits(pod) for node in books.nodes)
        else:
            books.enter(pod, place)
    for number, node in enumerate(books.nodes):
        free = states.rows[states.of_node[number], FREE : FREE + node.kind.gpus]
        assert sorted(free.tolist()) == sorted(node.free)


@given(arriving=arriving)
def test_best_fit_takes_the_way_that_leaves_least(arriving: list[PodClass]) -> None:
    packer, books = (
        Packer(NodeStates(KINDS, NODES, interchangeable=False), BestFit()),
        Books([KINDS[k] for k in NODES]),
    )

    def left(node: Node) -> int:
        return math.trunc(100 * (1 - (node.cpu_milli / 128_000 * 0.5 + sum(node.free) / 8000 * 0.5)))

    for pod in arriving:
        ways = books.ways(pod)
        place = packer.place(pod)
        if place is None:
            assert not ways
            continue
        best = max(left(after) for _, _, after in ways)
        first = min(number for number, _, after in ways if left(after) == best)
        tightest = min(piece for number, piece, _ in ways if number == first)
        assert (place.node, place.piece) == (first, tightest)
        books.enter(pod, place)


@given(arriving=arriving)
def test_fgd_takes_the_way_that_fragments_least(arriving: list[PodClass]) -> None:
    mix = Mix.of(arriving)
    rule = FragmentationGradientDescent(mix, KINDS)
    packer, books = (
        Packer(NodeStates(KINDS, NODES, interchangeable=False), rule),
        Books([KINDS[k] for k in NODES]),
    )
    for pod in arriving:
        scores = {
            (number, piece): math.trunc(
                100
                / (1 + math.exp(-(books.nodes[number].fragmentation(mix) - after.fragmentation(mix)) / 1000))
            )
            for number, piece, after in books.ways(pod)
        }
        place = packer.place(pod)
        if place is None:
            assert not scores
            continue
        # Sums in another order may fall on either side of a whole number.
        assert scores[place.node, place.piece] >= max(scores.values()) - 1
        books.enter(pod, place)


@given(arriving=arriving)
def test_slots_and_fragmentation_of_a_state_are_those_of_a_node(arriving: list[PodClass]) -> None:
    mix = Mix.of(arriving)
    using = [pod for pod in mix.classes if pod.gpus]
    states = NodeStates(KINDS, NODES)
    packer, books = Packer(states, BestFit()), Books([KINDS[k] for k in NODES])
    for pod in arriving:
        if (place := packer.place(pod)) is not None:
            books.enter(pod, place)
    rows = states.rows[states.of_node]
    assert Fragmentation(mix, KINDS).of(rows) == pytest.approx(
        [node.fragmentation(mix) for node in books.nodes]
    )
    assert WATTS.of(rows) == pytest.approx(
        [node.watts(GPU_WATTS[k], SOCKET) for node, k in zip(books.nodes, NODES, strict=True)]
    )
    if using:
        slots = Slots(using, KINDS).of(rows)
        assert slots.tolist() == [[node.slots(pod) for pod in using] for node in books.nodes]


@given(arriving=st.lists(shared, min_size=5, max_size=40), data=st.data())
def test_slot_value_takes_the_way_that_loses_least_value(
    arriving: list[PodClass], data: st.DataObject
) -> None:
    mix = Mix.of(arriving).without_memory()  # as the rule sees it
    packer = Packer(NodeStates(KINDS, NODES), SlotValue(Mix.of(arriving), KINDS, priced=False))
    books = Books([KINDS[k] for k in NODES])
    # All of them come before weights are set anew, so the weights of the empty hall hold throughout.
    left = [sum(node.slots(pod) for node in books.nodes) for pod in mix.classes]
    weights = mix.shares / (1 + np.array(left))
    weights /= weights.sum()

    def value(node: Node) -> float:
        return float(sum(w * math.sqrt(node.slots(pod)) for w, pod in zip(weights, mix.classes, strict=True)))

    for pod in arriving:
        gains = {
            (number, piece): value(after) - value(books.nodes[number])
            for number, piece, after in books.ways(pod)
        }
        place = packer.place(pod)
        if place is None:
            assert not gains
            continue
        assert gains[place.node, place.piece] == pytest.approx(max(gains.values()), abs=1e-5)
        books.enter(pod, place)


def test_random_fit_draws_nodes_and_then_gpus_evenly() -> None:
    drawn = np.zeros(3)
    for seed in range(600):
        packer = Packer(NodeStates(KINDS, [0, 1, 1], interchangeable=False), RandomFit(seed))
        place = packer.place(PodClass(1000, 0, 1, 500))
        assert place is not None
        drawn[0 if place.node == 0 else 1] += 1
    assert drawn[1] / 600 == pytest.approx(2 / 3, abs=0.07)
