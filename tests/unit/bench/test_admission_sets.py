"""The published sets: as many jobs of each shape as the peers have, in the order of their schedule."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.admission_sets import (
    CONTROL,
    HALL_SETS,
    KUEUE_BASELINE,
    KUEUE_LARGE_SCALE,
    KUEUE_TAS,
    MOST_GPUS,
    NAMES,
    QUEUE_SETS,
    QueueSet,
    arrivals,
    gang,
)


@pytest.mark.parametrize(
    ("of", "workloads", "gpu_seconds"),
    [
        (KUEUE_BASELINE, 15_000, 30 * (350 * 0.2 + 100 * 5 * 0.5 + 50 * 20)),
        (KUEUE_TAS, 15_000, 4 * 30 * (350 * 0.2 + 100 * 5 * 0.5 + 50 * 20)),
        (KUEUE_LARGE_SCALE, 50_000, 1000 * (35 * 0.15 + 11 * 5 * 0.35 + 4 * 20 * 0.7)),
    ],
)
def test_a_set_has_the_published_number_of_jobs_and_amount_of_work(
    of: QueueSet, workloads: int, gpu_seconds: float
) -> None:
    assert of.workloads == workloads
    assert of.gpu_seconds == pytest.approx(gpu_seconds)


def test_the_baseline_needs_66_seconds_at_the_least_as_published() -> None:
    assert KUEUE_BASELINE.gpu_seconds / KUEUE_BASELINE.nominal_gpus == pytest.approx(66)


@pytest.mark.parametrize("of", QUEUE_SETS.values(), ids=lambda of: of.name)
def test_every_job_fits_the_quota_and_the_hall_is_no_limit(of: QueueSet) -> None:
    for one in of.classes:
        assert one.units <= of.nominal
        assert one.gpus <= min(MOST_GPUS, of.nodes.gpus)
    assert of.nodes.count * of.nodes.gpus >= 1.2 * of.nominal_gpus


def test_jobs_of_a_class_come_one_interval_apart_from_the_first_interval_on() -> None:
    of = arrivals(KUEUE_BASELINE)
    times = [a.due_seconds for a in of if a.queue == "cohort-3-queue-5" and a.job.name == "medium"]
    assert times[:3] == pytest.approx([0.5, 1.0, 1.5])
    assert len(times) == 100


def test_arrivals_come_in_order_and_under_names_of_their_own() -> None:
    of = arrivals(KUEUE_TAS)
    assert [a.due_seconds for a in of] == sorted(a.due_seconds for a in of)
    assert len({(a.queue, a.name) for a in of}) == len(of) == 15_000


def test_topology_modes_share_a_class_as_published() -> None:
    counts = Counter(a.job.name for a in arrivals(KUEUE_TAS))
    assert counts["small-required"] == 30 * 120
    assert counts["medium-balanced"] == 30 * 33
    assert counts["large-preferred"] == 30 * 17


@given(st.floats(0.001, 1))
def test_a_smaller_run_keeps_every_class_and_every_cohort(scale: float) -> None:
    for of in QUEUE_SETS.values():
        small = of.at(scale)
        assert small.cohorts == of.cohorts
        assert {one.name for one in small.classes} == {one.name for one in of.classes}
        assert 0 < small.workloads <= of.workloads


@given(st.floats(0.001, 1))
def test_a_smaller_hall_still_holds_a_gang_of_ten_nodes(scale: float) -> None:
    for of in HALL_SETS.values():
        assert 10 <= of.at(scale).nodes.count <= of.nodes.count


@given(st.integers(1, 200))
def test_units_become_the_fewest_equal_workers_that_the_api_allows(units: int) -> None:
    workers, gpus = gang(units)
    assert workers * gpus == units
    assert gpus <= MOST_GPUS
    assert not any(units % fewer == 0 and units // fewer <= MOST_GPUS for fewer in range(1, workers))


def test_each_set_names_what_its_peer_has_published() -> None:
    for of in (*QUEUE_SETS.values(), *HALL_SETS.values()):
        assert of.published
        assert all("seconds" in published.figures for published in of.published)
    assert set(CONTROL) <= set(NAMES)
