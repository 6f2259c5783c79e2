"""The batching decision, in virtual time: `now` is just a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahall_server.batching import BatchLimits, BatchQueue, RateMeter

NEVER = 1e9


def queue(size: int = 4, delay: float = 0.010, room: int = 100) -> BatchQueue[str]:
    return BatchQueue(BatchLimits(max_batch_size=size, max_delay_seconds=delay, max_queue=room))


def items(batch: list) -> list[str]:
    return [entry.item for entry in batch]


def test_an_empty_queue_asks_for_nothing():
    decision = queue().decide(0.0)
    assert not decision.batch
    assert decision.wake_after_seconds is None


def test_the_first_waits_for_company_but_not_longer_than_the_delay():
    waiting = queue(delay=0.010)
    waiting.offer("r", ["a"], now=1.0, deadline=NEVER)
    assert waiting.decide(1.004).wake_after_seconds == pytest.approx(0.006)
    waiting.offer("s", ["b"], now=1.009, deadline=NEVER)
    assert not waiting.decide(1.0099).batch
    assert items(waiting.decide(1.0100001).batch) == ["a", "b"]
    assert len(waiting) == 0


def test_a_full_batch_goes_at_once():
    waiting = queue(size=2)
    waiting.offer("r", ["a", "b", "c"], now=1.0, deadline=NEVER)
    assert items(waiting.decide(1.0).batch) == ["a", "b"]
    assert not waiting.decide(1.0).batch


def test_without_a_delay_nothing_waits():
    waiting = queue(delay=0.0)
    waiting.offer("r", ["a"], now=1.0, deadline=NEVER)
    assert items(waiting.decide(1.0).batch) == ["a"]


def test_what_waited_while_the_engine_was_busy_goes_at_once():
    waiting = queue(size=8)
    for number in range(5):
        waiting.offer(number, [str(number)], now=1.0 + number / 1000, deadline=NEVER)
    assert items(waiting.decide(1.5).batch) == ["0", "1", "2", "3", "4"]


def test_a_request_enters_whole_or_not_at_all():
    waiting = queue(room=3)
    assert waiting.offer("r", ["a", "b"], now=0, deadline=NEVER)
    assert not waiting.offer("s", ["c", "d"], now=0, deadline=NEVER)
    assert len(waiting) == 2
    assert waiting.offer("t", ["e"], now=0, deadline=NEVER)


def test_what_is_past_its_deadline_is_not_computed():
    waiting = queue(delay=0.010)
    waiting.offer("late", ["a"], now=1.0, deadline=1.005)
    waiting.offer("early", ["b"], now=1.0, deadline=2.0)
    assert waiting.decide(1.0).wake_after_seconds == pytest.approx(0.005)
    decision = waiting.decide(1.005)
    assert items(decision.expired) == ["a"]
    assert items(waiting.decide(1.02).batch) == ["b"]


def test_a_withdrawn_request_leaves_the_others():
    waiting = queue()
    mine, other = object(), object()
    waiting.offer(mine, ["a", "b"], now=0, deadline=NEVER)
    waiting.offer(other, ["c"], now=0, deadline=NEVER)
    assert waiting.withdraw(mine) == 2
    assert items(waiting.decide(1).batch) == ["c"]


def test_retry_after_follows_the_measured_rate():
    meter = RateMeter()
    assert meter.retry_after_seconds(1000) == 1
    for _ in range(50):
        meter.record(instances=10, seconds=0.2)
    assert meter.retry_after_seconds(1000) == 20
    assert meter.retry_after_seconds(10) == 1
    assert meter.retry_after_seconds(10**6) == 60


_arrivals = st.lists(
    st.tuples(st.floats(0, 0.05), st.integers(1, 6), st.floats(0.001, 0.2)), min_size=1, max_size=30
)


@given(arrivals=_arrivals, size=st.integers(1, 8), delay=st.floats(0, 0.05), service=st.floats(0.0001, 0.05))
def test_every_instance_is_computed_once_in_order_or_expires(arrivals, size, delay, service):
    """A whole day of one engine: limits hold, nothing is lost, doubled or overtaken, nobody waits without cause."""
    waiting: BatchQueue[int] = BatchQueue(
        BatchLimits(max_batch_size=size, max_delay_seconds=delay, max_queue=40)
    )
    now, free_at, number = 0.0, 0.0, 0
    computed, expired, taken = [], [], []
    pending = list(arrivals)
    while pending or len(waiting):
        if pending:
            gap, count, patience = pending.pop(0)
            now += gap
            numbers = list(range(number, number + count))
            if waiting.offer(object(), numbers, now=now, deadline=now + patience):
                taken += numbers
                number += count
        else:
            now = max(now, free_at) + delay + 1e-6
        while now >= free_at:
            decision = waiting.decide(now)
            expired += [entry.item for entry in decision.expired]
            assert all(entry.deadline <= now for entry in decision.expired)
            assert len(decision.batch) <= size
            if not decision.batch:
                assert len(waiting) < size
                break
            assert all(entry.deadline > now for entry in decision.batch)
            computed += [entry.item for entry in decision.batch]
            free_at = now + service
    assert computed == sorted(computed)
    assert sorted(computed + expired) == taken
