"""Who moves so that a gang finds room that is scattered, and who grows when room has come."""

import pytest

from datahall.planning import Admit, Evict, EvictCause, Placement, Planner, Wait, WaitReason
from datahall.planning.moving import MOVES_PER_HOUR
from datahall.planning.types import Level
from tests.unit.planning.planners import decide, gang, hall, node, reasons, started
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
