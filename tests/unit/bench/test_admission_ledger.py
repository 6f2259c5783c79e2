"""The ledger: times to admission, and the integral of the quota that was held."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.admission_ledger import Ledger, utilisation_percent

A, B = ("team", "a"), ("team", "b")


def ledger() -> Ledger:
    made = Ledger()
    made.create(A, kind="small", gpus=1, workers=1, at=0.0)
    made.create(B, kind="large", gpus=20, workers=2, at=1.0)
    return made


def test_a_job_counts_from_its_admission_to_its_end() -> None:
    of = ledger()
    of.hold(A, 2.0)
    of.hold(B, 3.0)
    of.finish(A, 5.0)
    assert of.held_gpu_seconds(until=4.0 + 1.0) == 3.0 + 20 * 2.0
    of.finish(B, 6.0)
    assert of.held_gpu_seconds(until=100.0) == 3.0 + 20 * 3.0
    assert of.mean_seconds("admitted") == {"small": 2.0, "large": 2.0}
    assert of.last("finished") == 6.0
    assert of.last("finished", [A]) == 5.0


def test_what_is_said_twice_counts_once() -> None:
    of = ledger()
    for _ in range(2):
        of.hold(A, 2.0)
        of.bind(A, 2.5)
    of.hold(A, 4.0)
    of.bind(A, 4.0)
    of.finish(A, 5.0)
    of.finish(A, 7.0)
    of.hold(A, 8.0)
    assert (of.admitted, of.finished) == (1, 1)
    assert of.held_gpu_seconds(until=10.0) == 3.0
    assert of.mean_seconds("bound") == {"small": 2.5}


def test_a_job_that_was_put_out_counts_each_time_and_is_admitted_once() -> None:
    of = ledger()
    of.hold(B, 2.0)
    of.release(B, 3.0)
    of.release(B, 3.5)
    of.hold(B, 6.0)
    of.finish(B, 7.0)
    assert of.evictions == 1
    assert of.admitted == 1
    assert of.held_gpu_seconds(until=9.0) == 20 * 2.0
    assert of.mean_seconds("admitted") == {"large": 1.0}


def test_a_job_that_waits_was_not_put_out() -> None:
    of = ledger()
    of.release(A, 1.0)
    assert of.evictions == 0
    assert of.held_gpu_seconds(until=9.0) == 0.0


def test_an_admission_that_nobody_saw_counts_as_admitted_at_the_end() -> None:
    of = ledger()
    of.finish(A, 4.0)
    assert of.mean_seconds("admitted") == {"small": 4.0}
    assert of.held_gpu_seconds(until=4.0) == 0.0


@given(
    st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from(["hold", "release", "finish"])), max_size=30)
)
def test_never_more_is_held_than_all_jobs_ask_for_all_the_time(
    happenings: list[tuple[tuple[str, str], str]],
) -> None:
    of = ledger()
    for at, (key, what) in enumerate(happenings, start=2):
        getattr(of, what)(key, float(at))
    end = len(happenings) + 2.0
    assert 0 <= of.held_gpu_seconds(until=end) <= 21 * end
    assert of.finished <= of.admitted <= 2


@pytest.mark.parametrize(
    ("gpu_seconds", "gpus", "seconds", "percent"),
    [(300.0, 600, 1.0, 50.0), (0.0, 600, 10.0, 0.0), (5.0, 0, 10.0, 0.0), (5.0, 10, 0.0, 0.0)],
)
def test_utilisation_is_the_share_of_quota_times_time(
    gpu_seconds: float, gpus: int, seconds: float, percent: float
) -> None:
    assert utilisation_percent(gpu_seconds, gpus=gpus, seconds=seconds) == percent
