"""Who moves so that a gang finds room that is scattered, and who grows when room has come."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning import (
    Admit,
    Evict,
    EvictCause,
    Limits,
    Placement,
    Planner,
    PodUsage,
    PowerDomainSpec,
    Wait,
    WaitReason,
)
from datahall.planning.moving import MOVES_PER_HOUR
from datahall.planning.types import Level
from tests.unit.planning.planners import decide, gang, hall, node, queue, reasons, started
from tests.unit.planning.test_scenarios import Time


def scattered(nodes, gpus_held=1, *, more=(), **of_each):
    """A hall of 4-GPU nodes with one small job on each, which started long ago."""
    planner = hall(*(node(f"n{i}", 4) for i in range(nodes)), *more)
    for i in range(nodes):
        planner.hold(gang(f"small{i}", gpus=gpus_held, **of_each), (Placement(0, f"n{i}", "H100"),))
        started(planner, f"small{i}", at=0.0, saved=9_990.0)
    return planner


def moves(decisions):
    return {d.key: d for d in decisions if isinstance(d, Evict)}


class TestMoving:
    def test_one_small_job_moves_so_that_a_whole_node_comes_free(self):
        planner = scattered(4)
        time = Time(planner)
        time.now = 10_000.0
        planner.submit(gang("whole", gpus=4, created=9_000.0))
        found = moves(time.cycle())
        ((key, evict),) = found.items()
        assert evict.cause is EvictCause.MOVED
        assert evict.preemptor == "whole"
        assert evict.message.endswith(
            "so that team-a/whole finds 4 GPUs; it saves, and goes on there at once"
        )
        assert planner.waiting("whole").reason == WaitReason.MAKING_ROOM
        place = planner.held(key)[0].node
        for _ in range(10):
            time.step()
        assert [p.node for p in planner.held("whole")] == [place]
        assert planner.held(key)[0].node != place
        assert sorted(time.started) == sorted(["whole", key])

    def test_nobody_takes_the_room_that_is_held_for_those_who_move(self):
        planner = scattered(2, gpus_held=2)
        time = Time(planner)
        time.now = 10_000.0
        planner.submit(gang("whole", gpus=4, created=0.0))
        time.cycle()
        for i in range(8):
            planner.submit(gang(f"sneaky{i}", created=9_999.0))
        time.step(0.5)
        assert not [key for key in time.started if key.startswith("sneaky")]
        for _ in range(10):
            time.step()
        assert len(time.started) == 2
        assert planner.held("whole")

    def test_it_is_paid_once_the_gang_has_waited_for_as_much(self):
        """One job moves at the price of 70 GPU-seconds; 4 GPUs have waited for as much after 18 seconds."""
        planner = scattered(4)
        planner.submit(gang("whole", gpus=4, created=10_000.0))
        assert moves(planner.cycle(10_010.0)) == {}
        assert len(moves(planner.cycle(10_030.0))) == 1

    def test_nobody_moves_who_finds_no_other_place(self):
        planner = scattered(2, gpus_held=3)
        planner.submit(gang("whole", gpus=4))
        assert moves(planner.cycle(10_000.0)) == {}

    def test_services_and_the_newly_started_stay(self):
        planner = scattered(3, preemptible=False)
        planner.submit(gang("whole", gpus=4))
        assert moves(planner.cycle(10_000.0)) == {}
        planner = hall(*(node(f"n{i}", 4) for i in range(3)), minimum_run_seconds=500.0)
        for i in range(3):
            planner.hold(gang(f"small{i}"), (Placement(0, f"n{i}", "H100"),))
            started(planner, f"small{i}", at=9_900.0)
        planner.submit(gang("whole", gpus=4))
        assert moves(planner.cycle(10_000.0)) == {}

    def test_no_more_than_the_cap_move_within_an_hour(self):
        planner = scattered(2 * MOVES_PER_HOUR)
        planner.submit(gang("big", MOVES_PER_HOUR + 20, 4))
        assert moves(planner.cycle(10_000.0)) == {}
        planner.withdraw("big")
        planner.submit(gang("less", MOVES_PER_HOUR, 4))
        assert len(moves(planner.cycle(10_010.0))) == MOVES_PER_HOUR

    def test_nobody_moves_to_gpus_that_he_may_not_use(self):
        """The other node has no known caps, which a queue with a limit of watts does not use."""
        planner = hall(node("a", 4, watts=700), node("b", 4), watts=Limits(10_000), queues=[queue("free")])
        planner.hold(gang("small"), (Placement(0, "a", "H100"),))
        started(planner, "small", at=0.0, saved=9_990.0)
        planner.hold(gang("other", queue="free"), (Placement(0, "b", "H100"),))
        started(planner, "other", at=0.0, saved=9_000.0)
        planner.submit(gang("whole", gpus=4, queue="free"))
        (key,) = moves(planner.cycle(10_000.0))
        assert key == "other", "though that is dearer"

    def test_nobody_moves_for_a_gang_that_has_no_quota_for_that_model(self):
        """It would find GPUs that it may not use, and those who moved would move again and again."""
        planner = hall(node("a", 4, model="A100"), node("b", 4), node("c", 4), quota={"A100": 4, "H100": 0})
        planner.upsert_queue(queue("free"))
        planner.upsert_pod(PodUsage("x", "a", 4, 0, 0))
        for name in "bc":
            planner.hold(gang(name, queue="free"), (Placement(0, name, "H100"),))
            started(planner, name, at=0.0, saved=9_990.0)
        planner.submit(gang("whole", gpus=4))
        assert moves(planner.cycle(10_000.0)) == {}
        assert {blocker.reason for blocker in planner.waiting("whole").blockers} >= {
            WaitReason.QUOTA_TOO_SMALL
        }

    def test_nobody_moves_where_a_power_domain_has_watts_for_the_first_alone(self):
        def asked(budget):
            planner = hall(node("a", 4), node("b", 4), node("fed", 4, watts=700, domain="rack"))
            planner.upsert_power_domain(PowerDomainSpec("rack", None, budget, 0.0))
            for name in "ab":
                planner.hold(gang(f"on-{name}"), (Placement(0, name, "H100"),))
                started(planner, f"on-{name}", at=0.0, saved=9_990.0)
            planner.submit(gang("whole", 2, 4, avoid=("fed",)))
            return moves(planner.cycle(10_000.0))

        assert asked(1_300) == {}
        assert set(asked(1_400)) == {"on-a", "on-b"}

    def test_a_rack_is_cleared_for_a_gang_that_requires_one(self):
        nodes = [node(f"r{r}n{i}", rack=f"r{r}", block="b") for r in range(2) for i in range(2)]
        planner = hall(*nodes)
        for r in range(2):
            planner.hold(gang(f"small{r}"), (Placement(0, f"r{r}n0", "H100"),))
            started(planner, f"small{r}", saved=9_990.0)
        time = Time(planner)
        time.now = 10_000.0
        planner.submit(gang("rack", 2, 8, level=Level.RACK, required=True))
        assert len(moves(time.cycle())) == 1
        for _ in range(10):
            time.step()
        assert len({place.node[:2] for place in planner.held("rack")}) == 1

    def test_if_the_gang_is_withdrawn_those_who_left_still_come_back_to_their_place(self):
        planner = scattered(4)
        time = Time(planner)
        time.now = 10_000.0
        planner.submit(gang("whole", gpus=4))
        (key,) = moves(time.cycle())
        planner.withdraw("whole")
        for _ in range(10):
            time.step()
        assert planner.held(key)


class TestWhatWouldMove:
    """The plan is told before it is paid for; nobody ends for it, and it is what happens later."""

    def waits(self, *, at=10_001.0, **of_gang):
        planner = scattered(4)
        planner.submit(gang("whole", gpus=4, created=10_000.0, **of_gang))
        return planner, planner.cycle(at)

    def test_it_says_who_would_go_where_for_how_much_and_when(self):
        planner, decisions = self.waits()
        assert moves(decisions) == {}
        plan = planner.move_plan("whole")
        (move,) = plan.moves
        assert plan.gpu_seconds == move.gpu_seconds == 71, (
            "11 seconds since it saved, and a minute to restart"
        )
        assert plan.due_seconds == pytest.approx(10_000.0 + 71 / 4)
        assert move.source == (planner.held(move.name.removeprefix("team-a/"))[0].node,)
        assert move.target != move.source

    def test_nothing_is_held_for_it_and_everyone_stays(self):
        planner, _ = self.waits()
        assert all(not planner.is_leaving(f"small{i}") for i in range(4))
        assert reasons(
            decide(planner, gang("passes", gpus=2, created=10_001.0, run_seconds=1.0), at=10_002.0)
        ) == {"passes": "admitted"}

    def test_what_happens_is_what_was_told(self):
        planner, _ = self.waits()
        plan = planner.move_plan("whole")
        assert moves(planner.cycle(plan.due_seconds - 2.0)) == {}
        # The price has grown meanwhile: nothing was saved.
        (key,) = moves(planner.cycle(plan.due_seconds + 10.0))
        assert f"team-a/{key}" == plan.moves[0].name
        assert planner.move_plan("whole") is None, "it is done, and no plan any more"

    def test_none_is_told_where_nobody_can_move_or_nobody_has_to(self):
        planner = scattered(2, gpus_held=3)
        planner.submit(gang("whole", gpus=4, created=10_000.0))
        planner.cycle(10_001.0)
        assert planner.move_plan("whole") is None
        assert planner.move_plan("small0") is None
        assert planner.move_plan("unknown") is None

    def test_it_is_forgotten_with_its_gang_and_when_it_is_old(self):
        planner, _ = self.waits()
        planner.withdraw("whole")
        assert planner.move_plan("whole") is None
        planner, _ = self.waits()
        for i in range(4):
            planner.withdraw(f"small{i}")
        planner.cycle(10_030.0)
        assert planner.held("whole")
        assert planner.move_plan("whole") is None

    def test_with_the_cap_used_up_it_is_due_when_moves_are_an_hour_old(self):
        planner = scattered(2 * MOVES_PER_HOUR)
        time = Time(planner)
        time.now = 10_000.0
        planner.submit(gang("less", MOVES_PER_HOUR, 4))
        assert len(moves(time.cycle())) == MOVES_PER_HOUR
        for _ in range(20):
            time.step()
        planner.submit(gang("whole", gpus=4, created=0.0))
        for _ in range(20):
            time.step()
        assert planner.move_plan("whole").due_seconds == 13_600.0


@st.composite
def halls(draw):
    """Racks of 4-GPU nodes with small gangs scattered over them, and one gang that needs most of some nodes."""
    racks, per_rack = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    names = [f"r{r}n{i}" for r in range(racks) for i in range(per_rack)]
    small = []
    for name in names:
        for gpus in draw(st.sampled_from([(), (1,), (1,), (2,), (1, 1), (3,)])):
            preemptible, saved = draw(st.integers(0, 5)) > 0, draw(st.integers(9_800, 9_990))
            small.append((f"small{len(small)}", gpus, name, preemptible, saved))
    level = draw(st.sampled_from([None, Level.HOST, Level.RACK]))
    workers = 1 if level is Level.HOST else draw(st.integers(1, per_rack))
    return names, small, (workers, draw(st.integers(3, 4)), level), draw(st.booleans())


@settings(max_examples=150)
@given(halls())
def test_nobody_moves_unless_that_starts_the_gang_that_it_is_for(drawn):
    names, small, (workers, gpus, level), quota_is_tight = drawn
    held = sum(gpus_held for _, gpus_held, *_ in small)
    quota = held + workers * gpus if quota_is_tight else 1000
    planner = hall(*(node(name, 4, rack=name[:2], block="b") for name in names), quota=quota)
    for key, gpus_held, name, preemptible, saved in small:
        planner.hold(gang(key, gpus=gpus_held, preemptible=preemptible), (Placement(0, name, "H100"),))
        started(planner, key, at=0.0, saved=saved)
    time = Time(planner)
    time.now = 10_000.0
    planner.submit(gang("waits", workers, gpus, level=level, required=level is not None, created=9_500.0))
    for _ in range(10):
        time.step(30.0)
        if time.evicted:
            break
    if not time.evicted:
        return
    for _ in range(10):
        time.step()
    assert planner.held("waits"), "what it was done for"
    assert all(planner.held(key) for key in time.evicted), "and they go on"
    assert len(time.evicted) == len(set(time.evicted))


class TestGrowing:
    def elastic(self, **more):
        planner = hall(node("a"), node("b"))
        planner.hold(gang("busy", gpus=8), (Placement(0, "b", "H100"),))
        found = decide(planner, gang("elastic", 4, 4, min_workers=1, **more), at=0.0)
        assert found["elastic"] == ["a", "a"]
        started(planner, "elastic", at=0.0)
        return planner

    def test_an_elastic_gang_grows_when_room_has_come(self):
        planner = self.elastic()
        time = Time(planner)
        planner.withdraw("busy")
        time.now = 1000.0
        found = moves(time.cycle())
        assert found["elastic"].cause is EvictCause.RESIZED
        assert found["elastic"].message == (
            "room for more has come: it saves, and goes on with 4 workers instead of 2"
        )
        for _ in range(10):
            time.step()
        assert len(planner.held("elastic")) == 4
        assert time.started == ["elastic"]

    def test_not_before_it_missed_what_a_restart_costs(self):
        planner = self.elastic()
        planner.withdraw("busy")
        assert moves(planner.cycle(50.0)) == {}
        assert "elastic" in moves(planner.cycle(80.0))

    def test_not_while_somebody_waits_nor_shortly_before_its_end(self):
        planner = self.elastic()
        planner.submit(gang("waits", 3, 8))
        planner.submit(gang("waits-2", 2, 8, created=1.0))
        assert not moves(planner.cycle(1000.0))
        planner = self.elastic()
        planner.withdraw("busy")
        started(planner, "elastic", at=0.0, ends=1100.0)
        assert moves(planner.cycle(1000.0)) == {}

    def test_not_onto_gpus_that_it_may_not_use(self):
        """Where watts are limited, GPUs whose cap nobody knows are not used: it would be ended for nothing."""
        planner = hall(node("a", 4, watts=700), node("b", 4), watts=Limits(10_000))
        assert decide(planner, gang("elastic", 2, 4, min_workers=1), at=0.0)["elastic"] == ["a"]
        started(planner, "elastic", at=0.0)
        assert moves(planner.cycle(1000.0)) == {}
        planner.upsert_node(node("b", 4, watts=700))
        assert "elastic" in moves(planner.cycle(1010.0))

    def test_not_beyond_the_watts_of_a_power_domain(self):
        planner = hall(node("a", 4, watts=700, domain="rack"), node("b", 4, watts=700, domain="rack"))
        planner.upsert_power_domain(PowerDomainSpec("rack", None, 4000))
        assert decide(planner, gang("elastic", 2, 4, min_workers=1), at=0.0)["elastic"] == ["a"]
        started(planner, "elastic", at=0.0)
        assert moves(planner.cycle(1000.0)) == {}
        planner.upsert_power_domain(PowerDomainSpec("rack", None, 6000))
        assert "elastic" in moves(planner.cycle(1010.0))

    @pytest.mark.parametrize("taken", [True, False])
    def test_room_is_held_for_its_return(self, taken):
        planner = self.elastic()
        planner.withdraw("busy")
        time = Time(planner)
        time.now = 1000.0
        time.cycle()
        if taken:
            planner.submit(gang("sneaky", gpus=8, created=1.0))
        for _ in range(10):
            time.step()
        assert len(planner.held("elastic")) == 4
        if taken:
            assert isinstance(planner.waiting("sneaky"), Wait)


class TestShrinking:
    def elastic(self, **of_queue):
        planner = hall(node("a"), node("b"), **of_queue)
        found = decide(planner, gang("elastic", 4, 4, min_workers=1), at=0.0)
        assert len(found["elastic"]) == 4
        started(planner, "elastic", at=0.0)
        return planner

    def test_an_elastic_gang_makes_way_with_what_is_needed_and_goes_on_with_the_rest(self):
        planner = self.elastic()
        time = Time(planner)
        time.now = 1000.0
        planner.submit(gang("urgent", gpus=8, priority=5))
        evict = moves(time.cycle())["elastic"]
        assert evict.cause is EvictCause.RESIZED
        assert evict.message == (
            "makes room for team-a/urgent: it saves, and goes on with 2 workers instead of 4"
        )
        planner.submit(gang("sneaky", gpus=8, created=1.0))
        for _ in range(10):
            time.step()
        assert len(planner.held("urgent")) == 1
        assert len(planner.held("elastic")) == 2
        assert isinstance(planner.waiting("sneaky"), Wait)

    def test_it_grows_back_when_the_other_has_ended(self):
        planner = self.elastic()
        time = Time(planner, run={"urgent": 100.0})
        time.now = 1000.0
        planner.submit(gang("urgent", gpus=8, priority=5))
        time.cycle()
        for _ in range(300):
            time.step()
        assert len(planner.held("elastic")) == 4
        assert time.evicted == ["elastic", "elastic"]

    def test_where_not_even_its_fewest_fit_it_waits_like_anyone(self):
        planner = self.elastic()
        planner.submit(gang("urgent", 2, 8, priority=5))
        assert moves(planner.cycle(1000.0))["elastic"].cause is EvictCause.MADE_WAY

    def test_it_comes_back_within_quota(self):
        """The queue has 16 GPUs in a hall of 24: beside the 8 of the other it comes back with two workers."""
        planner = self.elastic(quota=16)
        planner.upsert_node(node("c"))
        time = Time(planner)
        time.now = 1000.0
        planner.submit(gang("urgent", gpus=8, priority=5))
        assert moves(time.cycle())["elastic"].cause is EvictCause.RESIZED
        for _ in range(10):
            time.step()
        assert len(planner.held("elastic")) == 2
        assert planner.queue_usage("team-a") == {"H100": 16}


def test_a_gang_that_fits_now_moves_nobody():
    planner = scattered(2, more=[node("empty", 4)])
    planner.submit(gang("whole", gpus=4))
    assert [type(d) for d in planner.cycle(10_000.0)] == [Admit]


def test_a_planner_without_nodes_moves_nobody():
    planner = Planner()
    assert planner.cycle(0.0) == []
    assert reasons({}) == {}
