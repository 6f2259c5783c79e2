"""The mix learned from arrivals: shares converge, the past fades, and a new rule is made only when it pays."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.packing.demand import PodClass
from datahall.planning.packing.learning import Learner, LearningPacker
from datahall.planning.packing.states import NodeStates

from .conftest import KINDS, pods
from .reference import Books

A, B = PodClass(1000, 0, 1, 500), PodClass(1000, 0, 1, 1000)


def share(learner: Learner, pod: PodClass) -> float:
    mix = learner.mix()
    return float(dict(zip(mix.classes, mix.shares, strict=True)).get(pod, 0.0))


def test_shares_are_those_of_the_arrivals() -> None:
    learner = Learner()
    for _ in range(300):
        learner.observe(A)
        learner.observe(A)
        learner.observe(B)
    assert share(learner, A) == pytest.approx(2 / 3, abs=0.01)


def test_after_one_half_life_of_something_else_the_past_counts_half() -> None:
    learner = Learner(half_life_arrivals=1000)
    for _ in range(20_000):
        learner.observe(A)
    for _ in range(1000):
        learner.observe(B)
    assert share(learner, A) == pytest.approx(0.5, abs=0.01)


def test_a_class_that_no_longer_comes_is_forgotten_and_numbers_stay_finite() -> None:
    learner = Learner(half_life_arrivals=10)
    learner.observe(A)
    for _ in range(5000):
        learner.observe(B)
    mix = learner.mix()
    assert mix.classes == (B,)
    assert mix.shares.tolist() == [1.0]


def test_it_is_asked_again_when_arrivals_grew_fourfold_and_then_once_per_half_life() -> None:
    learner = Learner(half_life_arrivals=1000)
    asked = []
    for arrival in range(1, 6001):
        learner.observe(random.Random(arrival).choice([A, B]))
        if learner.due:
            learner.mix()
            asked.append(arrival)
    assert asked == [100, 400, 1400, 2400, 3400, 4400, 5400]


@given(st.lists(pods, min_size=1, max_size=150))
@settings(max_examples=20)
def test_books_stay_right_across_a_change_of_rule(arriving: list[PodClass]) -> None:
    nodes = [0, 1, 2, 1, 0]
    packer, books = LearningPacker(NodeStates(KINDS, nodes)), Books([KINDS[kind] for kind in nodes])
    for pod in [*arriving, *[PodClass(0, 0, 0, 0)] * 100, *arriving]:
        place = packer.place(pod)
        if place is None:
            assert not any(node.fits(pod) for node in books.nodes)
        else:
            books.enter(pod, place)
