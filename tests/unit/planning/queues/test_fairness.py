"""Whose turn it is: scenarios of days in virtual time, and the tournament against a plain search."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.queues.fairness import Capacity, Fairness
from datahall.planning.queues.tree import QueueTree
from tests.unit.planning.queues.strategies import NAMES, sound_trees, specs
from tests.unit.planning.queues.test_queue_tree import queue, tree

MINUTE, HOUR = 60.0, 3600.0
DAY = 24 * HOUR


class Hall:
    """A hall of GPUs that never idles: each free GPU goes at once to the queue whose turn it is, for a while."""

    def __init__(self, made, gpus, *, half_life_seconds=HOUR, interval_seconds=MINUTE, watts=0.0):
        self.gpus = gpus
        self.interval_seconds = interval_seconds
        self.fairness = Fairness(
            made,
            capacity=Capacity(gpus, watts),
            half_life_seconds=half_life_seconds,
            interval_seconds=interval_seconds,
        )
        self.running = []
        self.now = 0.0
        self.started = 0

    def run(self, hungry, seconds, *, job_gpus=None, watts_per_gpu=None):
        """Run with these queues always waiting; returns the GPUs that each held on average."""
        held = dict.fromkeys(hungry, 0.0)
        steps = int(seconds / self.interval_seconds)
        for _ in range(steps):
            for name, gpus, _ in self.running:
                watts = gpus * (watts_per_gpu or {}).get(name, 0.0)
                self.fairness.record(
                    name, gpus * self.interval_seconds, watts * self.interval_seconds, self.now
                )
                held[name] = held.get(name, 0.0) + gpus / steps
            self.running = [(name, gpus, left - 1) for name, gpus, left in self.running if left > 1]
            turns = self.fairness.turns(hungry, self.now)
            free = self.gpus - sum(gpus for _, gpus, _ in self.running)
            while (name := turns.next_queue()) is not None:
                need = (job_gpus or {}).get(name, 1)
                if need > free:
                    # Room is kept for whose turn it is: that is the planner's part of fairness.
                    break
                self.started += 1
                turns.admitted(name, gpus=need)
                self.running.append((name, need, 5 + self.started % 7))
                free -= need
            self.now += self.interval_seconds
        return held


def test_two_equal_teams_come_to_equal_use():
    hall = Hall(tree(queue("a"), queue("b")), 12)
    hall.run(["a", "b"], 4 * HOUR)
    held = hall.run(["a", "b"], 4 * HOUR)
    assert held == pytest.approx({"a": 6, "b": 6}, rel=0.03)


def test_equal_teams_with_unlike_gangs_come_to_equal_use():
    hall = Hall(tree(queue("a"), queue("b")), 16)
    hall.run(["a", "b"], 4 * HOUR)
    held = hall.run(["a", "b"], 8 * HOUR, job_gpus={"a": 1, "b": 4})
    assert held == pytest.approx({"a": 8, "b": 8}, rel=0.08)


def test_weights_two_to_one_come_to_two_to_one():
    hall = Hall(tree(queue("a", weight=2.0), queue("b")), 12)
    hall.run(["a", "b"], 4 * HOUR)
    assert hall.run(["a", "b"], 4 * HOUR) == pytest.approx({"a": 8, "b": 4}, rel=0.03)


def test_what_is_beyond_nominal_is_shared_by_weight_and_nominal_is_ones_own():
    hall = Hall(tree(queue("a", h100=10), queue("b", h100=2)), 24)
    hall.run(["a", "b"], 6 * HOUR)
    assert hall.run(["a", "b"], 6 * HOUR) == pytest.approx({"a": 16, "b": 8}, rel=0.03)


def test_the_share_of_a_subtree_does_not_depend_on_how_many_it_is_split_into():
    made = tree(queue("d1"), queue("d2"), queue("a", "d1"), *(queue(f"b{i}", "d2") for i in range(5)))
    hall = Hall(made, 20)
    hungry = ["a", *(f"b{i}" for i in range(5))]
    hall.run(hungry, 4 * HOUR)
    held = hall.run(hungry, 6 * HOUR)
    assert held == pytest.approx({"a": 10, **{f"b{i}": 2 for i in range(5)}}, rel=0.06)


def test_a_team_that_used_much_yesterday_goes_behind_but_not_for_ever():
    made = tree(queue("a"), queue("b"))
    hall = Hall(made, 10, half_life_seconds=DAY, interval_seconds=10 * MINUTE)
    assert hall.run(["a"], DAY) == pytest.approx({"a": 10}, rel=0.02)
    soon = hall.run(["a", "b"], 4 * HOUR)
    assert soon["b"] > 8
    assert soon["a"] < 2
    hall.run(["a", "b"], 5 * DAY)
    assert hall.run(["a", "b"], DAY) == pytest.approx({"a": 5, "b": 5}, rel=0.05)


def test_without_any_waiting_the_half_life_alone_forgives():
    fairness = Fairness(tree(queue("a"), queue("b")), capacity=Capacity(10), half_life_seconds=DAY)
    fairness.record("a", 1000.0, 0.0, 0.0)
    fairness.record("b", 600.0, 0.0, DAY)
    assert fairness.turns(["a", "b"], DAY).next_queue() == "a", "500 of a are left"
    assert fairness.decayed(2 * DAY) == {"a": (250.0, 0.0), "b": (300.0, 0.0)}


def test_joules_count_as_much_as_gpu_seconds_where_they_dominate():
    hall = Hall(tree(queue("a"), queue("b")), 12, watts=12 * 700.0)
    hall.run(["a", "b"], 4 * HOUR, watts_per_gpu={"a": 1400, "b": 350})
    held = hall.run(["a", "b"], 6 * HOUR, watts_per_gpu={"a": 1400, "b": 350})
    assert held["a"] * 2 == pytest.approx(held["b"], rel=0.08), "a is dominated by watts, b by GPUs"


def test_small_gangs_in_one_interval_do_not_all_go_first():
    fairness = Fairness(tree(queue("a"), queue("b")), capacity=Capacity(64), interval_seconds=MINUTE)
    turns = fairness.turns(["a", "b"], 0.0)
    order = []
    for _ in range(9):
        name = turns.next_queue()
        turns.admitted(name, gpus=1 if name == "a" else 4)
        order.append(name)
    assert "".join(order) == "abaaabaaa", "4 of a for each of b; at a tie goes who was served longer ago"


def test_readings_are_set_off_against_advances():
    made = tree(queue("hall"), queue("a", "hall"))
    fairness = Fairness(made, capacity=Capacity(8), half_life_seconds=HOUR, interval_seconds=MINUTE)
    window = HOUR / math.log(2)

    def mean(name):
        return fairness.share(name, 0.0).mean_gpus * window, fairness.share(name, 0.0).mean_watts * window

    fairness.admit("a", 8, 100.0, 0.0)
    assert mean("a") == mean("hall") == pytest.approx((480, 6000))
    fairness.record("a", 200.0, 7000.0, 0.0)
    assert mean("a") == mean("hall") == pytest.approx((480, 7000))
    fairness.record("a", 300.0, 0.0, 0.0)
    assert mean("a") == mean("hall") == pytest.approx((500, 7000))
    fairness.admit("a", 2, 0.0, 0.0)
    fairness.take_back("a", 3, 5.0, 0.0)
    assert mean("a") == mean("hall") == pytest.approx((500, 7000))
    assert fairness.decayed(0.0) == {"a": (500.0, 7000.0)}


def test_a_steady_rate_is_seen_as_that_rate():
    fairness = Fairness(tree(queue("a")), capacity=Capacity(10, 1000), half_life_seconds=HOUR)
    now = 0.0
    for _ in range(20 * 60):
        now += MINUTE
        fairness.record("a", 3 * MINUTE, 500 * MINUTE, now)
    share = fairness.share("a", now)
    assert (share.mean_gpus, share.mean_watts) == pytest.approx((3, 500), rel=0.01)
    assert share.total == pytest.approx(0.5, rel=0.01), "watts dominate"


def test_use_survives_a_restart():
    made = tree(queue("a"), queue("b", "a"))
    fairness = Fairness(made, capacity=Capacity(10), half_life_seconds=HOUR)
    for turn in range(50):
        fairness.record("ab"[turn % 2], 10.0 * turn, 5.0, turn * MINUTE)
    again = Fairness(made, capacity=Capacity(10), half_life_seconds=HOUR)
    for name, (gpu_seconds, joules) in fairness.decayed(HOUR).items():
        again.record(name, gpu_seconds, joules, HOUR)
    for name in "ab":
        assert again.share(name, 2 * HOUR).mean_gpus == pytest.approx(
            fairness.share(name, 2 * HOUR).mean_gpus
        )


def test_use_goes_along_when_a_queue_is_hung_elsewhere_and_stays_when_it_is_removed():
    made = tree(queue("x"), queue("y"), queue("a", "x"))
    fairness = Fairness(made, capacity=Capacity(10))
    fairness.record("a", 100.0, 0.0, 0.0)
    assert fairness.share("x", 0.0).total > 0 == fairness.share("y", 0.0).total
    made.upsert(queue("a", "y"))
    assert fairness.share("y", 0.0).total > 0 == fairness.share("x", 0.0).total
    made.remove("a")
    assert fairness.share("y", 0.0).total == fairness.share("a", 0.0).total == 0
    fairness.record("a", 50.0, 0.0, 0.0)
    made.upsert(queue("a", "x"))
    assert fairness.share("x", 0.0).mean_gpus == pytest.approx(150 / (7 * DAY / math.log(2)))


def test_what_a_removed_queue_used_is_forgotten_when_it_has_faded():
    made = tree(queue("a"), queue("b"))
    fairness = Fairness(made, capacity=Capacity(10), half_life_seconds=HOUR)
    fairness.record("a", 100.0, 0.0, 0.0)
    made.remove("a")
    fairness.share("b", HOUR)
    assert "a" in fairness.decayed(HOUR)
    made.upsert(queue("b", weight=2.0))
    fairness.share("b", 1000 * HOUR)
    assert fairness.decayed(1000 * HOUR) == {}


def test_late_news_and_clocks_that_jump_do_no_harm():
    fairness = Fairness(tree(queue("a"), queue("b")), capacity=Capacity(10), half_life_seconds=HOUR)
    fairness.record("a", 100.0, 0.0, 1000.0)
    fairness.record("a", 100.0, 0.0, 900.0)
    assert fairness.decayed(1000.0) == {"a": (200.0, 0.0)}, "late news is not time that runs twice"
    fairness.record("b", 100.0, 0.0, 500 * HOUR)
    fairness.record("a", 0.0, 0.0, 1000.0)
    assert fairness.decayed(1000.0 + HOUR)["b"] == pytest.approx((50.0, 0.0)), "time goes on after the jump"


def test_a_queue_waits_beside_its_children():
    made = tree(queue("a"), queue("b", "a"), queue("c", "a"), queue("d"))
    fairness = Fairness(made, capacity=Capacity(10))
    fairness.record("b", 5.0, 0.0, 0.0)
    fairness.record("d", 100.0, 0.0, 0.0)
    turns = fairness.turns(["a", "b", "d"], 0.0)
    order = []
    while (name := turns.next_queue()) is not None:
        order.append(name)
        turns.done(name)
    assert order == ["a", "b", "d"]


def test_nobody_waits():
    turns = Fairness(tree(queue("a")), capacity=Capacity(0)).turns(["nobody"], 0.0)
    assert turns.next_queue() is None
    turns.done("nobody")


def test_ties_are_broken_by_name():
    made = tree(*(queue(name) for name in "cab"))
    turns = Fairness(made, capacity=Capacity(10)).turns("bca", 0.0)
    assert turns.next_queue() == "a"
    turns.done("a")
    assert turns.next_queue() == "b"


@pytest.mark.parametrize("amounts", [(-1.0, 0.0), (0.0, math.nan), (math.inf, 0.0)])
def test_what_makes_no_sense_is_refused(amounts):
    fairness = Fairness(tree(queue("a")), capacity=Capacity(10))
    with pytest.raises(ValueError, match="queue a"):
        fairness.record("a", *amounts, 0.0)
    with pytest.raises(ValueError, match="queue a"):
        fairness.admit("a", *amounts, 0.0)
    assert fairness.share("a", 0.0).total == 0
    with pytest.raises(ValueError, match="greater than 0"):
        Fairness(QueueTree(), capacity=Capacity(1), half_life_seconds=0)


def by_search(made, fairness, alone, waiting, served, now):
    """Whose turn it is, by looking at everyone, level by level. `alone` knows the queues without those beneath."""

    def standing(share, name, whose):
        last = max((i for i, queue in enumerate(served) if queue in whose), default=-1)
        return share.beyond, share.total, last, name

    def beneath(name):
        return {name, *(lower for child in made.children(name) for lower in beneath(child))}

    def first(names):
        return min(names, key=lambda name: standing(fairness.share(name, now), name, beneath(name)))

    here = first(name for name in made.names() if made.parent(name) is None and beneath(name) & waiting)
    while True:
        places = {
            child: fairness.share(child, now) for child in made.children(here) if beneath(child) & waiting
        }
        if here in waiting:
            places[here] = alone.share(here, now)
        found = min(
            places, key=lambda name: standing(places[name], name, {name} if name == here else beneath(name))
        )
        if found == here:
            return here
        here = found


@settings(max_examples=150)
@given(
    made=st.one_of(sound_trees(), st.lists(specs(), min_size=1, max_size=6, unique_by=lambda s: s.name)),
    used=st.lists(
        st.tuples(st.sampled_from(NAMES), st.integers(0, 10**6), st.integers(0, 10**8)), max_size=8
    ),
    waiting=st.sets(st.sampled_from(NAMES), min_size=1),
    steps=st.lists(st.tuples(st.booleans(), st.sampled_from(NAMES), st.integers(0, 64)), max_size=25),
)
def test_the_tournament_finds_whom_a_search_finds(made, used, waiting, steps):
    whole, flat = QueueTree(), QueueTree()
    for spec in made:
        whole.upsert(spec)
        flat.upsert(replace(spec, parent="", weight=1.0))
    fairness, alone = (
        Fairness(each, capacity=Capacity(64, 50_000), half_life_seconds=HOUR) for each in (whole, flat)
    )
    for name, gpu_seconds, joules in used:
        for each in (fairness, alone):
            each.record(name, gpu_seconds, joules, 0.0)
    waiting &= set(whole.names())
    turns = fairness.turns(waiting, 1000.0)
    alone.share("a", 1000.0)
    served = []
    for ends, name, gpus in [*steps, *((True, "", 0) for _ in NAMES)]:
        turn = turns.next_queue()
        assert turn == turns.next_queue()
        if not waiting:
            assert turn is None
            return
        assert turn == by_search(whole, fairness, alone, waiting, served, 1000.0)
        if ends:
            # Not always the one whose turn it is: others may end for reasons of their own.
            ended = name if name in waiting else turn
            turns.done(ended)
            waiting.discard(ended)
        else:
            turns.admitted(turn, gpus=gpus, watts=10.0 * gpus)
            served.append(turn)
            alone.admit(turn, gpus, 10.0 * gpus, 1000.0)


@settings(max_examples=150)
@given(
    made=sound_trees(),
    events=st.lists(
        st.tuples(
            st.sampled_from(["record", "admit", "take back", "hang", "look"]),
            st.sampled_from(NAMES),
            st.integers(0, 1000),
            st.floats(0, 10 * HOUR),
        ),
        max_size=25,
    ),
    data=st.data(),
)
def test_sums_are_those_of_the_queues_after_any_history(made, events, data):
    whole, now = QueueTree(), 0.0
    for spec in made:
        whole.upsert(spec)
    fairness = Fairness(whole, capacity=Capacity(64), half_life_seconds=HOUR, interval_seconds=1.0)
    for kind, name, amount, after in events:
        now += after
        if kind == "record":
            fairness.record(name, amount, amount * 3, now)
        elif kind == "admit":
            fairness.admit(name, amount, amount * 2, now)
        elif kind == "take back":
            fairness.take_back(name, amount, amount, now)
        elif kind == "hang":
            whole.upsert(data.draw(specs([name])))
        else:
            fairness.share(name, now)
    found = {name: fairness.share(name, now) for name in whole.names()}
    flat = QueueTree()
    for name in whole.names():
        flat.upsert(replace(whole.spec(name), parent="", weight=1.0))
    fairness._tree = flat
    flat.version = whole.version + 1
    alone = {name: fairness.share(name, now) for name in flat.names()}

    def beneath(name):
        return [name, *(lower for child in whole.children(name) for lower in beneath(child))]

    for name, share in found.items():
        parts = [alone[each] for each in beneath(name)]
        assert share.mean_gpus == pytest.approx(sum(p.mean_gpus for p in parts), rel=1e-6, abs=1e-9)
        assert share.mean_watts == pytest.approx(sum(p.mean_watts for p in parts), rel=1e-6, abs=1e-9)
        assert share.nominal_gpus == sum(p.nominal_gpus for p in parts)


def test_queues_whose_gangs_ask_for_no_gpus_take_turns():
    fairness = Fairness(tree(queue("a"), queue("b")), capacity=Capacity(0))
    turns = fairness.turns(["a", "b"], 0.0)
    order = []
    for _ in range(4):
        name = turns.next_queue()
        turns.admitted(name, gpus=0)
        order.append(name)
    assert order == ["a", "b", "a", "b"]
    assert fairness.turns(["a", "b"], 1.0).next_queue() == "a", "and so on in the next pass"
    fairness.admit("a", 0, 0, 2.0)
    assert fairness.turns(["a", "b"], 3.0).next_queue() == "b"
