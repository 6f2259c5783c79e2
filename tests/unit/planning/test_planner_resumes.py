"""What queues used outlives a planner: whose turn it is and the joules of the day go on with the next one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning import Limits, Placement, QueueUse, WaitReason
from tests.unit.planning.planners import decide, gang, hall, node, queue, reasons

HOUR = 3600.0
DAY = 24 * HOUR
WEEK = 7 * DAY
START = 1000 * DAY + 600.0


def fresh(**of_queue):
    return hall(node("a", watts=700), **of_queue)


def ran(planner, seconds, *, gpus=8, since=START):
    """One gang runs for so long, seen each minute."""
    decide(planner, gang("j", gpus=gpus), at=since)
    at = since
    while at < since + seconds:
        at += 60.0
        planner.cycle(at)
    return planner


def taken_over(before, at, *, seen=None, held=(), **of_queue):
    """The planner of the next leader, which begins `at` with what the last one put down when it was `seen`."""
    after = fresh(**of_queue)
    after.resume("team-a", before.use("team-a", at if seen is None else seen), at)
    for key, gpus in held:
        after.hold(gang(key, gpus=gpus), (Placement(0, "a", "H100"),))
    after.cycle(at)
    return after


def numbers(use):
    return use.gpu_seconds, use.joules


def test_use_and_the_joules_of_the_day_go_on_with_the_next_planner():
    before = ran(fresh(), 2 * HOUR)
    at = START + 2 * HOUR
    after = taken_over(before, at)
    assert numbers(after.use("team-a", at)) == pytest.approx(numbers(before.use("team-a", at)))
    assert after.use("team-a", at).joules_by_hour == before.use("team-a", at).joules_by_hour
    assert after.use("team-a", at).gpu_seconds == pytest.approx(8 * 2 * HOUR, rel=0.01)
    now = at + HOUR
    told, same = after.queue_report("team-a", now), before.queue_report("team-a", now)
    assert told.joules.used == same.joules.used == 8 * 700 * 2 * HOUR


def test_what_was_put_down_does_not_change_by_being_read():
    before = ran(fresh(), HOUR)
    at = START + HOUR
    twice = taken_over(taken_over(before, at), at)
    assert numbers(twice.use("team-a", at)) == pytest.approx(numbers(before.use("team-a", at)))
    assert twice.use("team-a", at).joules_by_hour == before.use("team-a", at).joules_by_hour


def test_what_is_put_down_is_of_the_time_that_it_names():
    """Between two counts nothing is added, and what fades meanwhile is not lost."""
    planner = ran(fresh(), HOUR)
    now = planner.use("team-a", START + HOUR)
    later = planner.use("team-a", START + HOUR + 50.0)
    assert now.as_of_seconds == later.as_of_seconds == START + HOUR
    assert numbers(later) == pytest.approx(numbers(now))


def test_across_a_gap_use_decays_and_hours_age():
    before = ran(fresh(), 1.5 * HOUR)
    seen = START + 1.5 * HOUR
    kept = before.use("team-a", seen)
    after = taken_over(before, seen + WEEK, seen=seen)
    use = after.use("team-a", seen + WEEK)
    assert numbers(use) == pytest.approx([amount / 2 for amount in numbers(kept)])
    assert use.joules_by_hour == ()
    half_a_day = taken_over(before, seen + DAY - HOUR, seen=seen)
    assert sum(half_a_day.use("team-a", seen + DAY - HOUR).joules_by_hour) == sum(kept.joules_by_hour)


def test_what_ran_on_while_nobody_led_is_counted():
    before = ran(fresh(), HOUR)
    seen = START + HOUR
    for away in (45.0, 3 * HOUR):
        at = seen + away
        after = taken_over(before, at, seen=seen, held=[("j", 8)])
        grown = after.use("team-a", at).gpu_seconds - before.use("team-a", seen).gpu_seconds
        assert grown == pytest.approx(8 * away, rel=0.02)
        assert sum(after.use("team-a", at).joules_by_hour) == pytest.approx(8 * 700 * (HOUR + away), abs=10)


def test_no_more_than_a_day_is_counted_that_nobody_saw():
    """The next leader's clock may be years ahead: what was used is forgotten then, and no more harm is done."""
    before = ran(fresh(), HOUR)
    at = START + 1000 * DAY
    after = taken_over(before, at, seen=START + HOUR, held=[("j", 8)])
    use = after.use("team-a", at)
    assert use.gpu_seconds == pytest.approx(8 * DAY)
    assert sum(use.joules_by_hour) == pytest.approx(8 * 700 * DAY, abs=30)


def test_with_a_clock_that_is_behind_nothing_fades_and_nothing_is_counted_twice():
    before = ran(fresh(), 2 * HOUR)
    kept = before.use("team-a", START + 2 * HOUR)
    after = taken_over(before, START - DAY, seen=START + 2 * HOUR, held=[("j", 8)])
    use = after.use("team-a", START - DAY)
    assert numbers(use) == pytest.approx(numbers(kept))
    assert use.joules_by_hour == (sum(kept.joules_by_hour),), "of the future: spent now"


def test_what_is_told_a_second_time_is_ignored():
    after = fresh()
    kept = QueueUse(START, 1000.0, 0.0, (7,))
    for _ in range(2):
        after.resume("team-a", kept, START)
    after.cycle(START)
    assert after.use("team-a", START) == kept
    decide(after, gang("j", gpus=8), at=START)
    after.cycle(START + 60.0)
    after.resume("team-a", kept, START + 61.0)
    assert after.use("team-a", START + 61.0).gpu_seconds == pytest.approx(1000.0 + 480.0, rel=1e-3)


def test_a_queue_that_spent_its_joules_starts_nothing_under_the_next_leader():
    budget = Limits(8 * 700 * 3600)
    before = ran(fresh(joules_per_day=budget), HOUR)
    at = START + HOUR
    before.withdraw("j")
    after = taken_over(before, at, joules_per_day=budget)
    assert reasons(decide(after, gang("next", gpus=8), at=at)) == {"next": WaitReason.ENERGY_BUDGET}
    assert reasons(decide(after, at=at + DAY + HOUR)) == {"next": "admitted"}


def test_who_took_much_under_the_last_leader_stands_behind_under_the_next():
    def pool():
        return hall(
            node("a"), queues=[queue("top", 8), queue("team-b", 0, parent="top")], quota=0, parent="top"
        )

    before = ran(pool(), HOUR)
    at = START + HOUR
    after = pool()
    for name in ("team-a", "team-b"):
        after.resume(name, before.use(name, at), at)
    found = decide(after, gang("a", gpus=8), gang("b", gpus=8, queue="team-b", created=9), at=at)
    assert reasons(found)["b"] == "admitted"


@settings(max_examples=30)
@given(st.lists(st.floats(1.0, 600.0), min_size=1, max_size=8), st.integers(1, 8))
def test_however_often_the_lead_changes_use_is_that_of_one_leader(terms, gpus):
    """One gang runs all the time; leaders come and go, and each looks once a minute."""
    planner, at = fresh(), START
    decide(planner, gang("j", gpus=gpus), at=at)
    for term in terms:
        end = at + term
        while at + 60.0 <= end:
            at += 60.0
            planner.cycle(at)
        kept = planner.use("team-a", end)
        planner, at = fresh(), end
        planner.resume("team-a", kept, at)
        planner.hold(gang("j", gpus=gpus), (Placement(0, "a", "H100"),))
        planner.cycle(at)
    use = planner.use("team-a", at)
    ran_seconds = at - START
    assert use.gpu_seconds <= gpus * ran_seconds + 1e-6
    assert use.gpu_seconds == pytest.approx(gpus * ran_seconds, rel=0.02)
    assert sum(use.joules_by_hour) == pytest.approx(gpus * 700 * ran_seconds, abs=len(terms) * 30)
