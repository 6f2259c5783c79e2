"""What others' users complained about, replayed in virtual time: each must not happen here."""

from dataclasses import replace

import numpy as np
import pytest

from datahall.planning.candidates import Candidates, all_made_way_for, evictable, reclaimable
from datahall.planning.preemption import Hopeless, Plan, plan
from tests.unit.planning.halls import asks, gang, planned, room


class Hall:
    """A hall in virtual time: a planner's loop of plan, hold, end, place, cut down to what preemption touches."""

    def __init__(self, gpus, gangs, *, domain_of=None):
        self.total = np.array(gpus)
        self.running = {g.key: g for g in gangs}
        self.ends_at = {}
        self.held = np.zeros((2, len(gpus)), dtype=np.int64)
        self.domain_of = domain_of
        self.now = 0.0
        self.evicted = []

    @property
    def free(self):
        used = np.zeros((2, len(self.total)), dtype=np.int64)
        for g in self.running.values():
            for r in (0, 1):
                np.add.at(used[r], g.columns, g.amounts[r])
        return np.array([self.total, [1000] * len(self.total)]) - used

    def step(self, now):
        self.now = now
        for key, at in list(self.ends_at.items()):
            if at <= now:
                del self.running[key], self.ends_at[key]

    def cycle(self, workers, gpus, *, priority, graces, eligible=None):
        """One cycle for the preemptor: place it if it fits, else plan; what the plan holds is held from now on."""
        preemptor = asks(workers, gpus, columns=len(self.total), domain_of=self.domain_of, eligible=eligible)
        slots = preemptor.slots(self.free)
        if np.bincount(preemptor.domains(), weights=slots).max() >= workers:
            return "starts"
        gangs = [replace(g, leaving=key in self.ends_at) for key, g in self.running.items()]
        candidates = Candidates.of(gangs, 2)
        found = plan(
            self.free, preemptor, candidates, evictable(candidates, priority=priority, now_seconds=self.now)
        )
        assert isinstance(found, Plan)
        self.held[:] = 0
        self.held[:, found.columns] = found.amounts
        for key in found.victims:
            self.evicted.append(key)
            self.ends_at[key] = self.now + graces[key]
        return found


def test_kueue_1974_all_running_jobs_killed_for_one():
    gangs = [gang(f"small-{i}", {i: 8}, cost=10 + i) for i in range(20)]
    found = planned(room(*[0] * 20), asks(1, 8, columns=20), gangs)
    assert found.victims == ("small-0",)
    found = planned(room(*[0] * 20), asks(3, 4, columns=20), gangs)
    assert found.victims == ("small-0", "small-1")


def test_kueue_13797_no_thrash_when_victims_end_at_different_times():
    gangs = [gang(f"v{i}", {i: 8}, cost=10) for i in range(4)] + [
        gang(f"w{i}", {4 + i: 8}, cost=10) for i in range(4)
    ]
    hall = Hall([8] * 8, gangs)
    graces = {g.key: 10.0 * (i % 4 + 1) for i, g in enumerate(gangs)}
    plans = []
    for now in range(0, 60, 5):
        hall.step(float(now))
        answer = hall.cycle(4, 8, priority=1, graces=graces)
        if answer == "starts":
            break
        plans.append(answer)
        # A small job of lower priority tries to slip into what has come free; it sees free less held.
        left = hall.free - np.minimum(hall.held, np.maximum(hall.free, 0))
        assert (left[0] <= 0).all(), "freed room was there for the taking"
    assert answer == "starts"
    assert now == 40
    assert len(hall.evicted) == 4
    assert [len(p.victims) for p in plans] == [4, *[0] * (len(plans) - 1)]


def test_kueue_14723_domains_are_not_hopped():
    racks = [0, 0, 1, 1]
    gangs = [gang(f"g{i}", {i: 8}, cost=cost) for i, cost in enumerate([10, 10, 11, 11])]
    hall = Hall([8] * 4, gangs, domain_of=racks)
    first = hall.cycle(2, 8, priority=1, graces={"g0": 10.0, "g1": 30.0})
    assert (first.domain, set(first.victims)) == (0, {"g0", "g1"})
    hall.step(10.0)
    # The other rack has become ever so cheap. What was paid for is used all the same.
    for key in ("g2", "g3"):
        hall.running[key] = replace(hall.running[key], lost_gpu_seconds=0.0)
    second = hall.cycle(2, 8, priority=1, graces={})
    assert (second.domain, second.victims, second.waits_for) == (0, (), ("g1",))
    assert sorted(hall.evicted) == ["g0", "g1"]


def test_kueue_14723_a_lost_node_is_replaced_within_the_domain():
    racks = [0, 0, 0, 1, 1, 1]
    gangs = [gang(f"g{i}", {i: 8}, cost=10) for i in range(6)]
    gangs[0], gangs[1] = (replace(g, leaving=True) for g in gangs[:2])
    free, eligible = room(*[0] * 6), [False, True, True, True, True, True]
    found = planned(free, asks(2, 8, columns=6, domain_of=racks, eligible=eligible), gangs)
    # One more victim in the rack where one is on its way out, rather than two in the other.
    assert (found.domain, found.victims, found.waits_for) == (0, ("g2",), ("g1",))


def test_kueue_15211_nobody_ends_for_room_that_comes_anyway():
    gangs = [gang("ending", {0: 8}, leaving=True), gang("running", {1: 8}, cost=0)]
    found = planned(room(0, 0), asks(1, 8, columns=2), gangs)
    assert (found.victims, found.waits_for) == ((), ("ending",))
    found = planned(room(0, 0), asks(2, 8, columns=2), gangs)
    assert (found.victims, found.waits_for) == (("running",), ("ending",))


def test_kueue_5243_four_nodes_and_no_eight_gpus_on_one():
    """Quota would add up; nodes do not: eight low jobs on four nodes, and foreign pods on each."""
    gangs = [gang(f"low-{i}", {i // 2: 2}) for i in range(8)]
    no = planned(room(0, 0, 0, 0), asks(1, 8, columns=4), gangs)
    assert isinstance(no, Hopeless)
    assert (no.fitting_at_most, no.candidates) == (0, 8)


@pytest.mark.parametrize("racks", [None, [0, 0, 1, 1]])
def test_volcano_3673_4648_nobody_ends_if_the_preemptor_cannot_start(racks):
    gangs = [gang(f"g{i}", {i: 8}) for i in range(3)] + [gang("holy", {3: 8}, priority=9)]
    candidates = Candidates.of(gangs, 2)
    may = evictable(candidates, priority=5, now_seconds=0.0)
    workers = 4 if racks is None else 3
    no = plan(room(0, 0, 0, 0), asks(workers, 8, columns=4, domain_of=racks), candidates, may)
    assert isinstance(no, Hopeless)
    assert (no.candidates, no.protected) == (3, 1)
    assert no.fitting_at_most == workers - 1


def test_volcano_3673_cpu_is_looked_at_too():
    gangs = [gang("gpus", {0: (8, 2)})]
    assert isinstance(planned(room(0, cpu=0), asks(1, 8, columns=1, cpu=4), gangs), Hopeless)
    assert planned(room(0, cpu=2), asks(1, 8, columns=1, cpu=4), gangs).victims == ("gpus",)


def test_volcano_4607_gangs_end_whole():
    """A gang of four nodes is not robbed of one: it is one victim with all its room, and its cost is the gang's."""
    wide = gang("wide", {0: 8, 1: 8, 2: 8, 3: 8}, cost=400)
    found = planned(room(0, 0, 0, 0), asks(1, 8, columns=4), [wide])
    assert found.victims == ("wide",)
    assert found.freed.tolist() == [32, 0]
    assert found.cost_gpu_seconds == 400
    assert len(found.columns) == 1, "only what the preemptor needs is held; the rest is for others"


def test_a_victim_runs_its_minimum_before_it_is_ended_again():
    young = gang("v", {0: 8}, started=100.0, minimum_run=300.0, evictions=1)
    candidates = Candidates.of([young], 2)
    preemptor = asks(1, 8, columns=1)
    for now, can in ((100.0, False), (399.9, False), (400.0, True)):
        found = plan(room(0), preemptor, candidates, evictable(candidates, priority=1, now_seconds=now))
        assert isinstance(found, Plan) is can


def test_two_gangs_that_both_may_reclaim_do_not_take_turns():
    """Each ends the other by quota: the first time goes through, the way back does not."""
    a, b = gang("a", {0: 8}, priority=1), gang("b", {0: 8}, priority=1)
    preemptor = asks(1, 8, columns=1)
    running = Candidates.of([b], 2)
    may = reclaimable(running, priority=1, now_seconds=0.0, made_way_for=all_made_way_for("a", {}))
    assert plan(room(0), preemptor, running, may).victims == ("b",)
    ended = {"b": frozenset({"a"})}
    running = Candidates.of([a], 2)
    may = reclaimable(running, priority=1, now_seconds=9e9, made_way_for=all_made_way_for("b", ended))
    assert isinstance(plan(room(0), preemptor, running, may), Hopeless)
    # Raised by an admin, it may.
    may = reclaimable(running, priority=2, now_seconds=9e9, made_way_for=all_made_way_for("b", ended))
    assert plan(room(0), preemptor, running, may).victims == ("a",)
