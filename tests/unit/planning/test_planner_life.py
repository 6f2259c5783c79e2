"""How gangs, nodes and pods come, change and go: idempotent, in any order, and never counted twice."""

from dataclasses import replace

import pytest

from datahall.planning import Placement, Planner, PodUsage, PowerDomainSpec, QueueCounts, Wait, WaitReason
from datahall.planning.planner import MOST_STARTS
from tests.unit.planning.planners import decide, gang, hall, node, queue, reasons


def test_nothing_changed_nothing_said():
    planner = hall(node("a"))
    planner.upsert_power_domain(PowerDomainSpec("row", None, 1000))
    assert reasons(decide(planner, gang("j", gpus=8), gang("k", created=1))) == {
        "j": "admitted",
        "k": WaitReason.INSUFFICIENT_GPUS,
    }
    planner.submit(gang("k", created=1))
    planner.submit(gang("j", gpus=8))
    planner.hold(gang("j", gpus=8), planner.held("j"))
    planner.upsert_node(node("a"))
    planner.upsert_queue(queue("team-a"))
    planner.upsert_power_domain(PowerDomainSpec("row", None, 1000))
    planner.remove_node("nobody")
    planner.remove_pod("nobody")
    planner.remove_queue("nobody")
    planner.remove_power_domain("nobody")
    planner.withdraw("nobody")
    planner.requeue("nobody")
    assert planner.cycle(101.0) == []


def test_withdraw_frees_and_forgets_wherever_the_gang_is():
    planner = hall(node("a"))
    decide(planner, gang("j", gpus=8), gang("k", gpus=8, created=1), gang("l", gpus=8, created=2))
    planner.withdraw("k")
    assert not planner.is_waiting("k")
    planner.withdraw("j")
    assert decide(planner) == {"l": ["a"]}
    assert planner.queue_counts("team-a") == QueueCounts(waiting=0, held=1)


def test_requeue_keeps_priority_and_age():
    planner = hall(node("a"))
    decide(planner, gang("old", gpus=8, created=1))
    decide(planner, gang("young", gpus=8, created=2))
    planner.requeue("old")
    assert planner.is_waiting("old")
    assert reasons(decide(planner)) == {"old": "admitted"}
    planner.requeue("old")
    planner.submit(gang("old", gpus=8, created=1, avoid=("a",)))
    assert reasons(decide(planner)) == {"old": WaitReason.INSUFFICIENT_GPUS, "young": "admitted"}


def test_a_gang_is_changed_in_line_and_left_alone_when_held():
    planner = hall(node("a", 4))
    decide(planner, gang("j", gpus=4), gang("k", created=1))
    planner.submit(gang("j", gpus=1))
    assert planner.queue_usage("team-a") == {"H100": 4}
    planner.submit(gang("k", created=1, gpus=4))
    planner.submit(gang("l", created=9, gpus=4, preemptible=False))
    decide(planner)
    assert (planner.waiting("k").position, planner.waiting("l").position) == (1, 2)
    planner.submit(gang("k", created=10, gpus=4))
    decide(planner)
    assert (planner.waiting("k").position, planner.waiting("l").position) == (2, 1)


def test_a_gang_that_moves_to_another_queue_leaves_the_first():
    planner = hall(node("a"), quota=0, queues=[queue("team-b", 8)])
    assert reasons(decide(planner, gang("j"))) == {"j": WaitReason.QUOTA_TOO_SMALL}
    assert reasons(decide(planner, gang("j", queue="team-b"))) == {"j": "admitted"}
    assert planner.queue_counts("team-a") == QueueCounts(0, 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"workers": 0}, "workers must be at least 1"),
        ({"gpus": -1}, "resources not negative"),
        ({"cpu_milli": -1}, "resources not negative"),
        ({"memory_bytes": -1}, "resources not negative"),
        ({"min_workers": 0}, "min_workers is 0; it must be from 1 to workers, 1"),
        ({"min_workers": 2}, "min_workers is 2; it must be from 1 to workers, 1"),
    ],
)
def test_nonsense_is_refused_by_name(change, told):
    with pytest.raises(ValueError, match=f"team-a/j: .*{told}"):
        Planner().submit(replace(gang("j"), **change))


def test_no_more_start_in_one_cycle_than_pods_can_be_made_for():
    planner = hall(*(node(f"n{i:03}") for i in range(80)))
    for i in range(MOST_STARTS + 20):
        planner.submit(gang(f"j{i}", created=i))
    first = planner.cycle(1.0)
    assert [decision.key for decision in first] == [f"j{i}" for i in range(MOST_STARTS)]
    assert [decision.key for decision in planner.cycle(1.0)] == [
        f"j{i}" for i in range(MOST_STARTS, MOST_STARTS + 20)
    ]
    assert planner.cycle(1.0) == []


class TestHold:
    def test_what_is_already_so_is_taken_in(self):
        planner = hall()
        held = gang("j", 2, 8)
        places = (Placement(0, "a", "H100"), Placement(1, "a", "H100"))
        planner.submit(held)
        planner.hold(held, places)
        planner.hold(held, places)
        assert not planner.is_waiting("j")
        planner.upsert_node(node("a"))
        planner.upsert_node(node("b"))
        assert decide(planner, gang("k", created=1))["k"] == ["b"]
        planner.hold(held, (Placement(0, "b", "H100"), Placement(1, "c", "H100")))
        assert decide(planner, gang("l", gpus=8, created=1))["l"] == ["a"]
        assert planner.queue_usage("team-a") == {"H100": 25}
        planner.withdraw("j")
        assert planner.queue_usage("team-a") == {"H100": 9}

    def test_a_share_on_its_card_is_taken_in(self):
        planner = hall(node("a"))
        planner.hold(gang("s", gpu_milli=700), (Placement(0, "a", "H100", 3),))
        assert decide(planner, gang("t", gpu_milli=300, created=1))["t"] == ["a"]
        assert planner.held("t")[0].card == 3
        assert reasons(decide(planner, gang("w", gpus=8, created=2))) == {"w": WaitReason.INSUFFICIENT_GPUS}

    def test_one_that_is_leaving_holds_until_it_is_withdrawn(self):
        planner = hall(node("a"))
        planner.hold(gang("j", gpus=8), (Placement(0, "a", "H100"),), leaving=True)
        assert planner.is_leaving("j")
        assert reasons(decide(planner, gang("k", gpus=8, created=1))) == {"k": WaitReason.MAKING_ROOM}
        assert planner.queue_counts("team-a") == QueueCounts(waiting=1, held=1)
        planner.withdraw("j")
        assert not planner.is_leaving("j")
        assert decide(planner) == {"k": ["a"]}

    def test_one_that_shrank_gives_back_the_rest(self):
        planner = hall(node("a"), node("b"), quota=16)
        elastic = gang("j", 2, 8, min_workers=1)
        decide(planner, elastic)
        planner.hold(elastic, planner.held("j")[:1])
        assert planner.queue_usage("team-a") == {"H100": 8}
        assert decide(planner, gang("k", gpus=8, created=1))["k"] == ["b"]

    def test_a_preemptor_that_is_held_elsewhere_is_waited_for_no_more(self):
        planner = hall(node("a"), node("b"), queues=[queue("team-b")])
        decide(planner, gang("low", gpus=8), gang("low-2", gpus=8))
        decide(planner, gang("high", gpus=8, priority=1))
        victim = "low" if planner.is_leaving("low") else "low-2"
        planner.hold(gang("high", gpus=8, priority=1), (Placement(0, "c", "H100"),))
        planner.withdraw(victim)
        assert reasons(decide(planner, gang("next", gpus=8, queue="team-b"))) == {"next": "admitted"}
        assert planner.queue_usage("team-a") == {"H100": 16}


class TestNodes:
    @pytest.mark.parametrize("order", ["node first", "gang first"])
    def test_a_node_that_comes_back_still_counts_what_it_holds(self, order):
        planner = hall(node("a"))
        decide(planner, gang("j", gpus=5))
        planner.remove_node("a")
        assert planner.held("j") == (Placement(0, "a", "H100"),)
        assert planner.queue_usage("team-a") == {"H100": 5}
        if order == "gang first":
            planner.withdraw("j")
            planner.upsert_node(node("a"))
            assert decide(planner, gang("k", gpus=8))["k"] == ["a"]
        else:
            planner.upsert_node(node("a"))
            assert reasons(decide(planner, gang("k", gpus=4))) == {"k": WaitReason.INSUFFICIENT_GPUS}
            planner.withdraw("j")
            assert decide(planner)["k"] == ["a"]

    def test_a_node_that_shrinks_under_its_gang_takes_nothing_more(self):
        planner = hall(node("a"))
        decide(planner, gang("j", gpus=6))
        planner.upsert_node(node("a", 4))
        assert reasons(decide(planner, gang("k"), gang("cpu-only", gpus=0))) == {
            "k": WaitReason.INSUFFICIENT_GPUS,
            "cpu-only": "admitted",
        }

    def test_a_hall_without_its_last_node_holds_nothing_more(self):
        planner = hall(node("a"))
        decide(planner, gang("j"))
        planner.remove_node("a")
        assert reasons(decide(planner, gang("k", created=1))) == {"k": WaitReason.NEVER_FITS}

    def test_a_cordoned_node_serves_again_when_it_is_back(self):
        planner = hall(node("a", schedulable=False))
        assert reasons(decide(planner, gang("j"))) == {"j": WaitReason.INSUFFICIENT_GPUS}
        planner.upsert_node(node("a"))
        assert decide(planner) == {"j": ["a"]}

    def test_a_node_that_moves_to_another_rack_is_found_there(self):
        planner = hall(node("a", rack="1"), node("b", rack="2"))
        planner.upsert_node(node("b", rack="1"))
        planner.submit(gang("j", 2, 8))
        (start,) = planner.cycle(1.0)
        assert start.spread == "on one rack"

    def test_room_that_appears_starts_who_waits(self):
        planner = hall(node("a"))
        planner.upsert_pod(PodUsage("x", "a", 4, 0, 0))
        assert reasons(decide(planner, gang("j", gpus=8))) == {"j": WaitReason.INSUFFICIENT_GPUS}
        planner.upsert_pod(PodUsage("x", "a", 2, 0, 0))
        decide(planner)
        assert isinstance(planner.waiting("j"), Wait)
        planner.remove_pod("x")
        assert decide(planner)["j"] == ["a"]

    def test_a_pod_that_moves_is_counted_once(self):
        planner = hall(node("a"), node("b"))
        planner.upsert_pod(PodUsage("x", "a", 8, 0, 0))
        planner.upsert_pod(PodUsage("x", "b", 8, 0, 0))
        assert decide(planner, gang("j", gpus=8))["j"] == ["a"]
