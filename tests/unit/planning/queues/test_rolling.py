"""Joules per day: what is charged is what was spent in the last 24 hours, and it ages out whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.queues.rolling import RollingDay
from datahall.planning.queues.spec import JOULES_PER_DAY, Limits, QueueSpec
from datahall.planning.queues.tree import QueueTree
from datahall.planning.queues.verdicts import Fits

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def tree():
    made = QueueTree()
    made.upsert(QueueSpec("hall", limits={JOULES_PER_DAY: Limits(0)}))
    made.upsert(QueueSpec("a", "hall", limits={JOULES_PER_DAY: Limits(1000, 0)}))
    made.upsert(QueueSpec("b", "hall", limits={JOULES_PER_DAY: Limits(1000)}))
    return made


def test_a_budget_that_is_spent_refuses_until_it_ages(tree):
    day = RollingDay(tree)
    day.spend("a", 600, 10 * HOUR)
    day.spend("a", 500, 11.5 * HOUR)
    assert tree.room("a", JOULES_PER_DAY) == -100
    assert not isinstance(tree.verdict("a", {JOULES_PER_DAY: 1}), Fits)
    assert day.frees_at(["a"], 101) == 35 * HOUR
    assert not day.age(35 * HOUR - 1)
    assert day.age(35 * HOUR)
    assert tree.room("a", JOULES_PER_DAY) == 500
    assert day.age(36 * HOUR)
    assert tree.charged("a") == {}


def test_the_hour_at_which_enough_comes_free_is_known(tree):
    day = RollingDay(tree)
    for hour in range(5):
        day.spend("a", 100, hour * HOUR)
        day.spend("b", 1, hour * HOUR)
    assert day.frees_at(["a"], 100) == 25 * HOUR
    assert day.frees_at(["a"], 101) == 26 * HOUR
    assert day.frees_at(["a", "b"], 101) == 25 * HOUR
    assert day.frees_at(["a"], 501) is None
    assert day.frees_at(["nobody"], 1) is None


def test_what_was_spent_outlives_a_restart_and_a_removed_queue(tree):
    day = RollingDay(tree)
    day.spend("a", 5, 3 * HOUR)
    day.spend("b", 7, 4 * HOUR + 59)
    after = QueueTree()
    again = RollingDay(after)
    for queue in "ab":
        again.put_back(queue, day.by_hour(queue, 5 * HOUR), 5 * HOUR, 5.5 * HOUR)
    assert again.by_hour("a", 5 * HOUR) == day.by_hour("a", 5 * HOUR) == (0, 0, 5)
    assert again.by_hour("b", 5 * HOUR) == day.by_hour("b", 5 * HOUR) == (0, 7)
    assert after.charged("b") == {JOULES_PER_DAY: 7}
    tree.remove("a")
    day.age(40 * HOUR)
    assert tree.charged("a") == {}


def test_what_has_aged_meanwhile_is_not_put_back(tree):
    day = RollingDay(tree)
    day.put_back("a", (4, 0, 3), 10 * HOUR, 34.5 * HOUR)
    assert tree.charged("a") == {JOULES_PER_DAY: 4}
    day.age(35 * HOUR)
    assert tree.charged("a") == {}


def test_what_was_spent_in_the_future_was_spent_now(tree):
    """The clock of the one that put it down was ahead."""
    day = RollingDay(tree)
    day.put_back("a", (4, 1), 100 * HOUR, 50 * HOUR)
    assert day.by_hour("a", 50 * HOUR) == (5,)
    day.age(75 * HOUR)
    assert tree.charged("a") == {}


@given(st.floats(0, 26 * HOUR), st.floats(26 * HOUR, 49 * HOUR), st.integers(0, 1000))
def test_steady_spending_is_charged_to_the_hours_that_it_was_in(since, now, watts):
    made = QueueTree()
    day = RollingDay(made)
    day.spend_evenly("a", watts, since, now)
    for ago, amount in enumerate(day.by_hour("a", now)):
        begin = (now // HOUR - ago) * HOUR
        seconds = max(0.0, min(begin + HOUR, now) - max(begin, since))
        assert amount == pytest.approx(watts * seconds, abs=1)


def test_a_clock_set_back_keeps_nothing_for_ever(tree):
    day = RollingDay(tree)
    day.spend("a", 5, 1000 * DAY)
    day.spend("a", 2, DAY)
    assert tree.charged("a") == {JOULES_PER_DAY: 7}
    assert day.frees_at(["a"], 7) == 2 * DAY + HOUR
    day.age(2 * DAY + HOUR)
    assert tree.charged("a") == {}


def test_nothing_negative_is_spent(tree):
    with pytest.raises(ValueError, match="queue a: -1 of joules_per_day cannot be spent"):
        RollingDay(tree).spend("a", -1, 0.0)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 50), st.floats(0, 5 * HOUR), st.booleans()),
        max_size=60,
    )
)
def test_nothing_is_given_back_before_24_hours_or_kept_after_25(steps):
    made, now, spent = QueueTree(), 0.0, []
    day = RollingDay(made)
    for queue, amount, after, spends in steps:
        now += after
        if spends:
            day.spend(queue, amount, now)
            spent.append((now, queue, amount))
        else:
            day.age(now)
        for name in "ab":
            held = made.charged(name).get(JOULES_PER_DAY, 0)
            young, not_old = (
                sum(n for at, q, n in spent if q == name and now - at < limit) for limit in (DAY, DAY + HOUR)
            )
            assert young <= held <= not_old
    day.age(now + DAY + HOUR)
    assert made.charged("a") == made.charged("b") == {}
