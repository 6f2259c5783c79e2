"""Mixes of pods."""

from __future__ import annotations

import pytest

from datahall.planning.packing.demand import Mix, PodClass

SMALL, LARGE, RARE = (PodClass(1000, 100, 1, 500), PodClass(1000, 200, 8, 1000), PodClass(1000, 300, 1, 500))


def test_shares_are_counts_and_the_most_frequent_comes_first() -> None:
    mix = Mix.of([LARGE, SMALL, SMALL, SMALL])
    assert mix.classes == (SMALL, LARGE)
    assert mix.shares.tolist() == [0.75, 0.25]


@pytest.mark.parametrize(("part", "kept"), [(0.5, 1), (0.6, 1), (0.61, 2), (0.9, 2), (0.91, 3), (1.0, 3)])
def test_covering_keeps_as_few_classes_as_make_up_the_part(part: float, kept: int) -> None:
    mix = Mix.of([SMALL] * 6 + [LARGE] * 3 + [RARE]).covering(part)
    assert len(mix.classes) == kept
    assert mix.shares.sum() == pytest.approx(1)


def test_without_memory_classes_that_differ_in_it_alone_are_one_with_its_mean() -> None:
    mix = Mix.of([SMALL] * 3 + [RARE] + [LARGE]).without_memory()
    assert mix.classes == (PodClass(1000, 150, 1, 500), LARGE)
    assert mix.shares.tolist() == pytest.approx([0.8, 0.2])
