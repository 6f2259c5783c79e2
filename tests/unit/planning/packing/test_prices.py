"""Prices of pieces: pairs that fill a GPU are free, scraps are dear, and scarce CPU costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.packing.demand import Mix, PodClass
from datahall.planning.packing.packer import Packer
from datahall.planning.packing.prices import PriceModel, Prices
from datahall.planning.packing.slots import SlotValue
from datahall.planning.packing.states import FREE, KIND, NodeKind, NodeStates

from .conftest import KINDS, pods

PLENTY = NodeKind("H100", 4, 256_000, 1_000_000)


def solved(mix: Mix, kinds: tuple[NodeKind, ...], nodes: list[int], demand: float = 1.05) -> Prices:
    states = NodeStates(kinds, nodes)
    occupied = states.occupied()
    return PriceModel(mix, kinds).solve(states.rows[occupied], states.count[occupied], demand)


def share(milli: int, cpu: int = 1000) -> PodClass:
    return PodClass(cpu, 0, 1, milli)


def test_what_fills_a_gpu_together_costs_what_it_takes() -> None:
    prices = solved(Mix.of([share(600), share(400)]), (PLENTY,), [0, 0])
    gain = prices.gain(share(600), np.array([0]), np.array([1000]))
    assert gain == pytest.approx([-0.6], abs=1e-6)
    assert prices.piece[0, 1000] == pytest.approx(1.0)


def test_a_piece_that_nothing_fits_is_worth_nothing() -> None:
    prices = solved(Mix.of([share(600), share(400)]), (PLENTY,), [0, 0])
    assert prices.piece[0, 399] == 0
    assert prices.piece[0, 400] > 0


def test_cpu_has_a_price_where_it_runs_out_first() -> None:
    poor, rich = NodeKind("A", 8, 8_000, 10**6), NodeKind("B", 8, 800_000, 10**6)
    prices = solved(Mix.of([PodClass(4_000, 0, 1, 1000)]), (poor, rich), [0, 1])
    assert prices.cpu[0] > 0
    assert prices.cpu[1] == 0


@given(st.lists(pods, min_size=1, max_size=12), st.lists(st.integers(0, 2), min_size=1, max_size=6))
@settings(max_examples=30)
def test_worth_rises_with_size_and_is_never_negative(sample: list[PodClass], nodes: list[int]) -> None:
    prices = solved(Mix.of(sample), KINDS, nodes)
    assert (np.diff(prices.piece, axis=1) >= -1e-9).all()
    assert (prices.cpu >= 0).all()
    assert (prices.memory >= 0).all()


def test_solving_again_for_another_hall_is_solving_it_anew() -> None:
    mix = Mix.of([share(600), share(470), share(160), PodClass(8000, 0, 1, 1000)])
    states = NodeStates((PLENTY,), [0] * 5)
    model = PriceModel(mix, (PLENTY,))
    occupied = states.occupied()
    model.solve(states.rows[occupied], states.count[occupied], 1.05)
    packer = Packer(states, SlotValue(mix, (PLENTY,)))
    for pod in mix.classes * 4:
        packer.place(pod)
    occupied = states.occupied()
    again = model.solve(states.rows[occupied], states.count[occupied], 1.05)
    anew = PriceModel(mix, (PLENTY,)).solve(states.rows[occupied], states.count[occupied], 1.05)
    # Dual prices need not be unique; what they make of the hall is.
    rows, count = states.rows[occupied], states.count[occupied]

    def all_pieces(prices: Prices) -> float:
        return sum(float(count @ prices.piece[rows[:, KIND], rows[:, g]]) for g in range(FREE, rows.shape[1]))

    worth = all_pieces(again), all_pieces(anew)
    assert worth[0] == pytest.approx(worth[1], rel=0.05)
