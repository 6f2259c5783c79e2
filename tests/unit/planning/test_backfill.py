"""Reservations: when the oldest blocked gang starts, and that nobody who goes ahead of it makes it later."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.backfill import Need, Reservation, RunningGang
from datahall.planning.placing import Demand, NoPlace, Placing, place
from datahall.planning.topology import Domain, Level, Topology
from tests.unit.planning.reservations import NOW, free, need, racks, reserve, running

HOST, RACK, BLOCK, HALL = Level
GPU, CPU = range(2)


def on(columns, workers=None):
    """A job's place."""
    columns = np.array(columns)
    return Placing(columns, np.ones_like(columns) if workers is None else np.array(workers), HALL, 1, 1)


def one(gpus):
    return np.array([gpus, 0])


class TestWhen:
    def test_when_the_last_gang_that_it_needs_ends(self):
        gangs = [running("a", 1100, {0: 8}), running("b", 1500, {1: 8}), running("c", 1300, {2: 8})]
        found = reserve(racks(3), free(0, 0, 0), gangs, need(2, 8, 3), now_seconds=NOW)
        assert (found.at_seconds, found.last, found.columns.tolist()) == (1300, "c", [0, 2])
        assert (found.promised_seconds, found.overdue, found.slips) == (1300, False, 0)

    def test_in_one_rack_though_another_mix_of_hosts_is_free_earlier(self):
        gangs = [running("a", 1100, {0: 8}), running("b", 1500, {1: 8}), running("c", 1300, {2: 8})]
        found = reserve(racks(2, 1), free(0, 0, 0), gangs, need(2, 8, 3, RACK, True), now_seconds=NOW)
        assert (found.at_seconds, found.last, found.columns.tolist()) == (1500, "b", [0, 1])

    def test_now_if_it_fits(self):
        found = reserve(racks(2), free(8, 8), [running("a", 1100, {0: 0})], need(2, 8, 2), now_seconds=NOW)
        assert (found.at_seconds, found.last) == (NOW, None)

    def test_gangs_that_end_together_are_all_gone_then(self):
        gangs = [running("a", 1100, {0: 4}), running("b", 1100, {1: 8}), running("c", 1100, {2: 4})]
        found = reserve(racks(3), free(4, 0, 4), gangs, need(2, 8, 3), now_seconds=NOW)
        assert found.at_seconds == 1100
        assert (found.columns.tolist(), found.spare[GPU].tolist()) == ([0, 1], [0, 0])
        gangs = [running("a", 1100, {0: 4}), running("b", 1100, {0: 4})]
        found = reserve(racks(1), free(0), gangs, need(1, 4, 1), now_seconds=NOW)
        assert found.spare[GPU].tolist() == [4]

    def test_of_equal_hosts_those_that_nobody_could_use_meanwhile(self):
        gangs = [running("a", 1100, {1: 8}), running("b", 1100, {2: 8})]
        found = reserve(racks(3), free(8, 0, 0), gangs, need(2, 8, 3, RACK), now_seconds=NOW)
        assert found.columns.tolist() == [1, 2]

    def test_never_with_the_numbers_if_all_ends_are_not_enough(self):
        gangs = [running("a", 1100, {0: 4}), running("b", None, {2: 8})]
        refusal = reserve(racks(2, 1), free(2, 1, 0), gangs, need(2, 8, 3, RACK, True), now_seconds=NOW)
        assert refusal == NoPlace(RACK, 2, Domain(RACK, "b", "r1"), 1, 1, 2)

    def test_only_where_it_may_run(self):
        gangs = [running("a", 1100, {0: 8}), running("b", 1500, {1: 8})]
        wish = replace(need(1, 8, 2), eligible=np.array([False, True]))
        assert reserve(racks(2), free(0, 0), gangs, wish, now_seconds=NOW).at_seconds == 1500

    def test_every_resource_counts(self):
        gangs = [
            running("a", 1100, {0: 8}),
            replace(running("b", 1500, {0: 0}), amounts=np.array([[0], [50]])),
        ]
        amounts = np.array([[0], [50]])
        wish = replace(need(1, 8, 1), amounts=np.array([8, 60]))
        available = free(0) - amounts
        assert reserve(racks(1), available, gangs, wish, now_seconds=NOW).at_seconds == 1500

    def test_for_the_least_that_an_elastic_gang_starts_with(self):
        gangs = [running("a", 1100, {0: 8}), running("b", 1500, {1: 8})]
        wish = replace(need(1, 8, 2), demand=Demand(1, 2))
        assert reserve(racks(2), free(0, 0), gangs, wish, now_seconds=NOW).at_seconds == 1100


class TestUnknownEnds:
    def test_it_does_not_wait_for_one_if_it_need_not(self):
        gangs = [running("a", None, {0: 8}), running("b", 9000, {1: 8})]
        assert reserve(racks(2), free(0, 0), gangs, need(1, 8, 2), now_seconds=NOW).last == "b"

    def test_no_time_is_told_and_nobody_is_short_enough_to_pass(self):
        gangs = [running("a", None, {0: 8}), running("b", 1100, {1: 4})]
        found = reserve(racks(3), free(0, 4, 6), gangs, need(2, 8, 3), now_seconds=NOW)
        assert (found.at_seconds, found.promised_seconds, found.last) == (None, None, "a")
        assert not found.allows(on([1]), NOW + 1, one(1))
        assert found.allows(on([2]), None, one(6))


class TestOverdue:
    def test_it_is_expected_to_last_as_long_again_as_it_is_overdue(self):
        gangs = [running("a", 900, {0: 8}), running("b", 1101, {1: 8})]
        found = reserve(racks(2), free(0, 0), gangs, need(1, 8, 2), now_seconds=NOW)
        assert (found.at_seconds, found.last, found.overdue) == (1100, "a", True)

    def test_so_one_that_is_stuck_is_not_waited_for(self):
        gangs = [running("a", 900, {0: 8}), running("b", 1099, {1: 8})]
        found = reserve(racks(2), free(0, 0), gangs, need(1, 8, 2), now_seconds=NOW)
        assert (found.at_seconds, found.last, found.overdue) == (1099, "b", False)


class TestGoingAhead:
    def reservation(self):
        gangs = [running("a", 1500, {0: 6, 1: 6}), running("b", 2000, {2: 8})]
        return reserve(racks(3), free(2, 2, 0), gangs, need(2, 6, 3), now_seconds=NOW)

    def test_a_job_that_ends_by_then_may_use_what_is_reserved(self):
        found = self.reservation()
        assert (found.at_seconds, found.columns.tolist()) == (1500, [0, 1])
        assert found.allows(on([0], [2]), 1500, one(1))
        assert found.after(on([0], [2]), 1500, one(1)) is found

    def test_a_longer_one_only_what_is_spare_and_only_once(self):
        found = self.reservation()
        assert not found.allows(on([0], [3]), 1501, one(1))
        assert found.allows(on([0], [2]), 1501, one(1))
        after = found.after(on([0], [2]), None, one(1))
        assert not after.allows(on([0]), None, one(1))
        assert after.allows(on([1, 2], [2, 8]), None, one(1))

    def test_usable_is_what_is_allowed(self):
        found = self.reservation()
        available = free(2, 2, 0)
        assert found.usable(available, 1400) is available
        assert found.after(on([0]), None, one(1)).usable(available, None)[GPU].tolist() == [1, 2, 0]


class TestFromCycleToCycle:
    def gangs(self, a, b):
        return [running("a", a, {0: 8}), running("b", b, {1: 8})]

    def again(self, previous, now, a, b):
        return reserve(
            racks(2), free(0, 0), self.gangs(a, b), need(1, 8, 2), now_seconds=now, previous=previous
        )

    def test_it_stays_where_it_is_when_estimates_waver(self):
        first = self.again(None, NOW, 1500, 1520)
        assert first.columns.tolist() == [0]
        second = self.again(first, 1010, 1530, 1520)
        assert (second.columns.tolist(), second.at_seconds, second.promised_seconds) == ([0], 1530, 1500)
        assert not second.allows(on([0]), 1510, one(1)), "others have to respect the first promise"

    def test_it_moves_to_a_place_that_is_earlier_than_was_ever_promised(self):
        second = self.again(self.again(None, NOW, 1500, 1600), 1010, 1500, 1400)
        assert (second.columns.tolist(), second.promised_seconds, second.slips) == ([1], 1400, 0)

    def test_after_a_slip_it_moves_to_where_the_wait_is_half_as_long(self):
        first = self.again(None, NOW, 1500, 1600)
        second = self.again(first, 1010, 9000, 1600)
        assert (second.columns.tolist(), second.promised_seconds, second.slips) == ([1], 1600, 1)

    def test_once_the_promise_has_passed_it_is_put_off_but_each_time_only_after_twice_the_wait(self):
        found = self.again(None, NOW, 1200, 99_000)
        told = []
        for now in range(1100, 3000, 100):
            before = found.slips
            found = self.again(found, now, now + 50, 99_000)
            if found.slips > before:
                told.append((now, found.promised_seconds))
            assert found.at_seconds == now + 50
            assert found.columns.tolist() == [0]
        assert told == [(1200, 1250), (1400, 1450), (1800, 1850), (2600, 2650)]
        assert (found.since_seconds, found.firm_until_seconds) == (NOW, 4200)
        assert not found.allows(on([0]), 2901, one(1)), "the promise has passed: its columns only empty"

    def test_it_leaves_a_place_that_cannot_hold_it_any_more(self):
        first = self.again(None, NOW, 1500, 1600)
        lost = reserve(
            racks(2),
            free(-8, 0),
            [running("a", 1500, {0: 0}), running("b", 1600, {1: 8})],
            need(1, 8, 2),
            now_seconds=1010,
            previous=first,
        )
        assert (lost.columns.tolist(), lost.promised_seconds) == ([1], 1600)

    def test_an_end_that_becomes_known_gives_a_time(self):
        first = self.again(None, NOW, None, None)
        assert first.promised_seconds is None
        assert self.again(first, 1010, 1500, 1500).promised_seconds == 1500


# ---- every small hall


@dataclass
class Small:
    """A small hall with running gangs, as plain values beside the arrays."""

    labels: list
    free: np.ndarray
    gangs: list
    need: Need
    topology: Topology = field(init=False)

    def __post_init__(self):
        self.topology = Topology()
        for column, rack in enumerate(self.labels):
            self.topology.put(column, f"n{column}", rack=rack, block=None)

    def reserve(self, previous=None):
        return reserve(self.topology, self.free, self.gangs, self.need, now_seconds=NOW, previous=previous)

    def room_at(self, when):
        """Workers that fit each node once everything that ends by then has ended, by counting."""
        room = []
        for column in range(len(self.labels)):
            here = [int(self.free[r, column]) for r in (GPU, CPU)]
            for gang in self.gangs:
                if expected(gang) <= when:
                    for i, other in enumerate(gang.columns.tolist()):
                        if other == column:
                            here = [here[r] + int(gang.amounts[r, i]) for r in (GPU, CPU)]
            fits = min(here[r] // int(a) for r, a in enumerate(self.need.amounts) if a)
            room.append(max(0, fits) if self.need.eligible[column] else 0)
        return room

    def fits(self, room):
        demand = self.need.demand
        if not demand.required:
            return sum(room) >= demand.least
        together = {}
        for column, fit in enumerate(room):
            rack = self.labels[column] or f"n{column}"
            key = column if demand.level is HOST else rack
            together[key] = together.get(key, 0) + fit
        return max(together.values()) >= demand.least

    def earliest(self):
        """The earliest time it fits, by trying each."""
        if self.fits(self._without_ends()):
            return NOW
        return next((w for w in sorted(map(expected, self.gangs)) if self.fits(self.room_at(w))), None)

    def _without_ends(self):
        return replace_gangs(self, []).room_at(NOW)


def expected(gang):
    """When a gang is expected to end: one that is overdue takes as long again."""
    if gang.end_seconds is None:
        return math.inf
    return gang.end_seconds if gang.end_seconds >= NOW else NOW + (NOW - gang.end_seconds)


def replace_gangs(small, gangs):
    return Small(small.labels, small.free, gangs, small.need)


ends = st.none() | st.integers(990, 1030).map(float)


@st.composite
def small_halls(draw):
    labels = draw(st.lists(st.sampled_from(["1", "2", None]), min_size=1, max_size=5))
    n = len(labels)
    available = np.array(
        draw(st.lists(st.lists(st.integers(-1, 4), min_size=n, max_size=n), min_size=2, max_size=2))
    )
    gangs = []
    for i in range(draw(st.integers(0, 6))):
        held = draw(
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, 4), st.integers(0, 3)), max_size=3)
        )
        amounts = np.array([[h[1] for h in held], [h[2] for h in held]], dtype=np.int64).reshape(2, len(held))
        columns = np.array([h[0] for h in held], dtype=np.int64)
        gangs.append(RunningGang(f"g{i}", draw(ends), columns, amounts))
    level = draw(st.sampled_from([None, HOST, RACK]))
    workers = draw(st.integers(1, 5))
    wish = Need(
        Demand(workers, workers, level, level is not None and draw(st.booleans())),
        np.array([draw(st.integers(1, 4)), draw(st.integers(0, 2))]),
        np.array(draw(st.lists(st.sampled_from([True, True, True, False]), min_size=n, max_size=n))),
    )  # fmt: skip
    return Small(labels, available, gangs, wish)


@given(small_halls())
@settings(max_examples=400)
def test_the_time_is_the_earliest(small):
    found = small.reserve()
    earliest = small.earliest()
    if earliest is None:
        assert isinstance(found, NoPlace)
        return
    assert isinstance(found, Reservation)
    assert found.at_seconds == (None if earliest == math.inf else earliest)
    room = small.room_at(earliest)
    assert all(room[c] >= w for c, w in zip(found.columns.tolist(), found.workers.tolist(), strict=True))
    assert found.workers.sum() == small.need.demand.least
    assert small.fits(
        [
            dict(zip(found.columns.tolist(), found.workers.tolist(), strict=True)).get(c, 0)
            for c in range(len(room))
        ]
    )
    assert (found.spare >= 0).all()
    # The one that it names is really waited for: without its end, the gang does not start then.
    if found.last is None:
        assert small.fits(small._without_ends())
    elif earliest < math.inf:
        ends_then = [g for g in small.gangs if expected(g) == earliest]
        assert found.last in [g.name for g in ends_then]
        before = [g for g in small.gangs if g not in ends_then]
        assert not small.fits(replace_gangs(small, before).room_at(earliest))


@given(small_halls(), st.data())
@settings(max_examples=400)
def test_no_sequence_of_allowed_jobs_makes_it_later(small, data):
    first = reservation = small.reserve()
    if isinstance(first, NoPlace):
        return
    for i in range(data.draw(st.integers(1, 5))):
        end = data.draw(ends.filter(lambda e: e is None or e >= NOW))
        amounts = np.array([data.draw(st.integers(0, 3)), data.draw(st.integers(0, 2))])
        wish = Need(Demand(1, data.draw(st.integers(1, 4))), amounts, small.need.eligible)
        usable = reservation.usable(small.free, end)
        placing = place(small.topology, wish.slots(usable), wish.demand)
        if isinstance(placing, NoPlace):
            continue
        assert reservation.allows(placing, end, amounts)
        held = amounts[:, None] * placing.workers
        small.gangs.append(RunningGang(f"new{i}", end, placing.columns, held))
        small.free = small.free.copy()
        small.free[:, placing.columns] -= held
        reservation = reservation.after(placing, end, amounts)
        if data.draw(st.booleans()):
            reservation = small.reserve(previous=reservation)
        anew = small.reserve()
        latest = math.inf if first.at_seconds is None else first.at_seconds
        for each in (reservation, anew):
            assert (math.inf if each.at_seconds is None else each.at_seconds) <= latest
    room = small.room_at(latest if (latest := first.at_seconds) is not None else math.inf)
    for column, workers in zip(reservation.columns.tolist(), reservation.workers.tolist(), strict=True):
        assert room[column] >= workers


@given(small_halls(), st.data())
@settings(max_examples=150)
def test_what_is_not_allowed_could_make_it_later(small, data):
    """The other side: a job is refused only where the reserved workers would not fit beside it."""
    reservation = small.reserve()
    if isinstance(reservation, NoPlace) or reservation.at_seconds is None:
        return
    column = data.draw(st.sampled_from(reservation.columns.tolist()))
    amounts = np.array([data.draw(st.integers(1, 3)), 0])
    end = data.draw(st.none() | st.integers(1000, 1040).map(float))
    if not reservation.allows(on([column]), end, amounts):
        assert end is None or end > reservation.at_seconds
        small.free = small.free.copy()
        small.free[:, column] -= amounts
        mine = reservation.columns.tolist().index(column)
        then = small if reservation.last else replace_gangs(small, [])
        assert then.room_at(reservation.at_seconds)[column] < reservation.workers[mine]


@pytest.mark.parametrize("running_gangs", [0, 1, 7, 400])
def test_the_search_looks_few_times(running_gangs, monkeypatch):
    looks = []
    monkeypatch.setattr(
        "datahall.planning.backfill.holds", lambda *args: looks.append(1) or place(*args).__class__ is Placing
    )
    gangs = [running(f"g{i}", 2000.0 + i, {i: 8}) for i in range(running_gangs)]
    hosts = max(running_gangs, 1)
    found = reserve(racks(hosts), free(*[0] * hosts), gangs, need(hosts, 8, hosts), now_seconds=NOW)
    assert isinstance(found, Reservation) == (running_gangs > 0)
    assert len(looks) <= 2 * math.log2(running_gangs + 1) + 2
