"""Quota through the planner: models, the tree of queues, what is borrowed and lent, watts and joules."""

import pytest

from datahall.planning import (
    Limits,
    Placement,
    PodUsage,
    PowerDomainSpec,
    QueueEntry,
    QueueState,
    QueueUse,
    WaitReason,
)
from tests.unit.planning.planners import NOW, decide, gang, hall, node, queue, reasons

HOUR = 3600.0


class TestModels:
    def test_each_model_is_charged_to_its_entry_or_to_any(self):
        planner = hall(node("h"), node("a", model="A100"), node("l", model="L4"), quota={"H100": 2, "Any": 3})
        found = decide(
            planner,
            gang("h", gpus=2, models=("H100",)),
            gang("a", gpus=2, models=("A100",)),
            gang("l", gpus=2, models=("L4",)),
        )
        assert reasons(found) == {"h": "admitted", "a": "admitted", "l": WaitReason.QUOTA_EXCEEDED}
        assert planner.queue_usage("team-a") == {"A100": 2, "H100": 2}
        assert (planner.quota_room("team-a", "H100"), planner.quota_room("team-a", "L4")) == (0, 1)
        assert planner.quota_room("team-a") == 1
        assert planner.quota_room("nobody") == planner.quota_room("nobody", "H100") == 0

    def test_a_model_without_entry_has_no_quota(self):
        planner = hall(node("h"), node("a", model="A100"), quota={"H100": 8})
        found = decide(planner, gang("x", models=("A100",)), gang("y", created=1))
        assert found["x"].reason == WaitReason.QUOTA_TOO_SMALL
        assert found["x"].message == (
            "can never fit: needs 1 GPU (A100); queue team-a has no quota for A100 GPUs (it has: H100)"
        )
        assert found["y"] == ["h"]

    def test_replicas_are_gangs_of_one_and_count_likewise(self):
        planner = hall(node("h"), node("a", model="A100"), quota={"H100": 8, "A100": 8})
        decide(planner, *(gang(f"replica-{i}", gpus=2, preemptible=False, created=i) for i in range(5)))
        assert planner.queue_usage("team-a") == {"A100": 8, "H100": 2}
        planner.withdraw("replica-0")
        assert (planner.quota_room("team-a", "A100"), planner.quota_room("team-a", "H100")) == (2, 6)

    def test_pods_outside_every_gang_take_room_and_no_quota(self):
        planner = hall(node("h"), quota=8)
        planner.upsert_pod(PodUsage("x", "h", 6, 0, 0))
        assert planner.quota_room("team-a") == 8
        assert reasons(decide(planner, gang("j", gpus=4))) == {"j": WaitReason.INSUFFICIENT_GPUS}

    def test_what_is_held_on_a_node_that_is_gone_is_charged_as_before(self):
        planner = hall(node("h"), quota={"H100": 8, "Any": 8})
        decide(planner, gang("j", gpus=4))
        planner.remove_node("h")
        assert planner.queue_usage("team-a") == {"H100": 4}

    def test_a_limit_lowered_below_use_is_no_error(self):
        planner = hall(node("a"), quota=8)
        decide(planner, gang("j", gpus=6))
        planner.upsert_queue(queue("team-a", 4))
        assert planner.quota_room("team-a") == 0
        wait = decide(planner, gang("k"))["k"]
        assert wait.message == "needs 1 GPU; queue team-a has 0 GPUs of quota left: 6 of 4 in use"
        assert planner.held("j") is not None

    def test_a_queue_deleted_and_made_again_still_counts_what_it_holds(self):
        planner = hall(node("a"), quota=4)
        decide(planner, gang("j", gpus=3))
        planner.remove_queue("team-a")
        assert reasons(decide(planner, gang("k", gpus=2))) == {"k": WaitReason.QUEUE_NOT_FOUND}
        planner.upsert_queue(queue("team-a", 4))
        assert reasons(decide(planner)) == {"k": WaitReason.QUOTA_EXCEEDED}


def tree(*, nodes=2, a=8, b=8, **limits):
    """A pool with teams a and b, on nodes of 8 GPUs."""
    return hall(
        *(node(f"n{i}") for i in range(nodes)),
        quota=a,
        parent="pool",
        queues=[queue("pool", 0), queue("team-b", b, parent="pool", **limits)],
    )


class TestTree:
    def test_idle_quota_of_a_neighbour_is_borrowed(self):
        planner = tree()
        assert reasons(decide(planner, gang("j", 2, 8))) == {"j": "admitted"}
        report = planner.queue_report("team-a", 100.0)
        assert report.gpus["Any"] == QueueEntry(nominal=8, used=16, borrowed=8, available=0)
        assert (report.parent, report.trouble, report.held, report.waiting) == ("pool", "", 1, 0)

    @pytest.mark.parametrize(
        ("limits", "gpus", "reason"),
        [
            ({"borrow": 4}, 8 + 4, "admitted"),
            ({"borrow": 4}, 8 + 5, WaitReason.QUOTA_TOO_SMALL),
            ({"borrow": 0}, 8, "admitted"),
            ({"borrow": 0}, 9, WaitReason.QUOTA_TOO_SMALL),
        ],
    )
    def test_no_more_is_borrowed_than_its_limit(self, limits, gpus, reason):
        planner = tree(**limits)
        assert reasons(decide(planner, gang("j", gpus, 1, queue="team-b"))) == {"j": reason}

    @pytest.mark.parametrize(
        ("lend", "gpus", "reason"),
        [
            (4, 12, "admitted"),
            (4, 13, WaitReason.QUOTA_TOO_SMALL),
            (0, 8, "admitted"),
            (0, 9, WaitReason.QUOTA_TOO_SMALL),
        ],
    )
    def test_no_more_is_lent_than_its_limit(self, lend, gpus, reason):
        planner = tree(lend=lend)
        assert reasons(decide(planner, gang("j", gpus, 1))) == {"j": reason}

    def test_what_is_not_lent_is_there_at_once(self):
        planner = tree(lend=4)
        decide(planner, gang("j", 12, 1))
        assert reasons(decide(planner, gang("k", 4, 1, queue="team-b"))) == {"k": "admitted"}

    def test_a_borrowing_limit_in_use_is_said_with_numbers(self):
        planner = tree(borrow=4)
        found = decide(planner, gang("j", 10, 1, queue="team-b"), gang("k", 3, 1, queue="team-b", created=1))
        assert found["k"].reason == WaitReason.QUOTA_EXCEEDED
        assert found["k"].message == (
            "needs 3 x 1 GPU; queue team-b uses 10, may borrow 4 beyond its 8, and has 2 GPUs left"
        )

    def test_nothing_left_to_borrow_is_said_with_the_pool(self):
        planner = tree(nodes=3)
        found = decide(planner, gang("j", gpus=8), gang("k", gpus=8, queue="team-b"), gang("l", created=1))
        assert found["l"].reason == WaitReason.QUOTA_EXCEEDED
        assert found["l"].message == (
            "needs 1 GPU; queue team-a holds 8 (nominal 8), and queue pool, above it, has 0 GPUs left "
            "to lend: 16 of 16 in use"
        )

    def test_quota_that_others_borrowed_is_named_with_who_gives_it_back(self):
        planner = tree()
        decide(planner, gang("j", 2, 8, preemptible=False))
        wait = decide(planner, gang("k", gpus=4, queue="team-b"))["k"]
        assert wait.reason == WaitReason.BORROWED_AWAY
        assert wait.message == (
            "needs 4 GPUs; that is within the 8 GPUs of queue team-b (0 in use), and 0 GPUs of it are "
            "there now: the rest is borrowed by team-a"
        )

    def test_a_queue_in_a_circle_or_without_its_parent_stands_alone(self):
        planner = hall(
            node("n"),
            quota=8,
            parent="gone",
            queues=[queue("x", 4, parent="y"), queue("y", 4, parent="x")],
        )
        assert reasons(decide(planner, gang("j", 5, 1, queue="x"))) == {"j": WaitReason.QUOTA_TOO_SMALL}
        assert reasons(decide(planner, gang("k", 8, 1))) == {"k": "admitted"}
        assert 'there is no queue "gone"' in planner.queue_report("team-a", 1.0).trouble
        assert "x -> y -> x" in planner.queue_report("x", 1.0).trouble

    def test_a_pool_is_closed_to_other_borrowers_while_the_gang_whose_turn_it_is_waits(self):
        planner = hall(
            *(node(f"n{i}") for i in range(4)),
            quota=0,
            parent="pool",
            queues=[queue("pool", 24), queue("team-b", 0, parent="pool"), queue("team-c", 8, parent="pool")],
        )
        decide(planner, *(gang(f"r{i}", gpus=8, queue="team-b", preemptible=False) for i in range(2)))
        found = decide(
            planner,
            gang("big", 3, 8, created=1),
            gang("small", gpus=8, queue="team-b", created=2),
            gang("own", gpus=8, queue="team-c", created=3),
        )
        # 16 of 32 are left: too little for big, which has used nothing yet and goes first.
        assert reasons(found) == {
            "big": WaitReason.QUOTA_EXCEEDED,
            "small": WaitReason.BEHIND_OTHERS,
            "own": "admitted",
        }
        assert found["small"].message == (
            "needs 8 GPUs; queue team-b would have to borrow it, and what may be borrowed is kept for team-a/big "
            "(needs 3 x 8 GPUs) of queue team-a, whose turn it is"
        )
        planner.withdraw("big")
        assert reasons(decide(planner)) == {"small": "admitted"}

    def test_what_is_within_nominal_goes_before_what_is_borrowed_whoever_used_less(self):
        planner = hall(
            node("n"),
            quota=8,
            parent="pool",
            queues=[queue("pool", 0), queue("team-b", 0, parent="pool")],
        )
        planner.resume("team-a", QueueUse(NOW, 1e6, 0.0), NOW)
        found = decide(planner, gang("borrows", gpus=8, queue="team-b"), gang("owns", gpus=8, created=1))
        assert reasons(found) == {"owns": "admitted", "borrows": WaitReason.QUOTA_EXCEEDED}


class TestWatts:
    def test_a_queue_starts_no_more_than_its_watts_allow(self):
        planner = hall(node("n", watts=700), watts=Limits(2000))
        found = decide(planner, gang("j", gpus=2), gang("k", gpus=1, created=1))
        assert reasons(found) == {"j": "admitted", "k": WaitReason.POWER_BUDGET}
        assert found["k"].message == (
            "needs 1 GPU, 700 W; queue team-a has 600 W of quota left: 1400 W of 2000 W in use"
        )
        assert planner.queue_report("team-a", 100.0).watts == QueueEntry(2000, 1400, 0, 600)
        planner.withdraw("j")
        assert reasons(decide(planner)) == {"k": "admitted"}

    def test_a_lower_cap_makes_room_for_more(self):
        planner = hall(node("n", watts=500), watts=Limits(2000))
        assert reasons(decide(planner, gang("j", 4, 1))) == {"j": "admitted"}

    def test_a_share_reserves_its_part_of_the_cap(self):
        planner = hall(node("n", watts=700), watts=Limits(700))
        found = decide(planner, *(gang(f"s{i}", gpu_milli=500, created=i) for i in range(3)))
        assert reasons(found) == {"s0": "admitted", "s1": "admitted", "s2": WaitReason.POWER_BUDGET}

    def test_nodes_without_a_known_cap_are_left_out_where_watts_are_limited(self):
        planner = hall(node("a"), node("b", watts=700), watts=Limits(9000), queues=[queue("team-b")])
        assert decide(planner, gang("j", gpus=8))["j"] == ["b"]
        assert decide(planner, gang("k", gpus=8, queue="team-b"))["k"] == ["a"]

    def test_watts_are_borrowed_in_the_tree_like_gpus(self):
        planner = hall(
            node("n", watts=700),
            parent="pool",
            watts=Limits(1400),
            queues=[queue("pool", 0, watts=Limits(0)), queue("team-b", 0, parent="pool", watts=Limits(1400))],
        )
        found = decide(planner, gang("j", 4, 1), gang("k", 1, 1, created=1))
        assert reasons(found) == {"j": "admitted", "k": WaitReason.POWER_BUDGET}

    def test_an_elastic_gang_starts_with_the_watts_there_are(self):
        planner = hall(node("n", watts=700), watts=Limits(2200))
        assert len(decide(planner, gang("j", 8, 1, min_workers=2))["j"]) == 3

    def test_a_power_domain_binds_the_nodes_that_it_feeds(self):
        planner = hall(
            node("a", watts=700, domain="row"), node("b", watts=700, domain="row"), node("c", watts=700)
        )
        planner.upsert_power_domain(PowerDomainSpec("row", None, 10_000, margin_percent=10))
        found = decide(planner, gang("j", 3, 8))
        assert found["j"].reason == WaitReason.POWER_BUDGET
        assert found["j"].message == (
            "needs 11200 W under power domain row, which has 9000 W left, 2200 W too few "
            "(0 of 10000 W reserved, 1000 W kept as margin)"
        )
        assert sorted(decide(planner, gang("k", 2, 8, created=1))["k"]) == ["a", "c"]
        planner.upsert_power_domain(PowerDomainSpec("row", None, 20_000))
        planner.withdraw("k")
        assert sorted(decide(planner)["j"]) == ["a", "b", "c"]

    def test_what_is_held_stays_when_a_budget_is_lowered(self):
        planner = hall(node("a", watts=700, domain="row"))
        planner.upsert_power_domain(PowerDomainSpec("row", None, 6000))
        decide(planner, gang("j", gpus=4))
        planner.upsert_power_domain(PowerDomainSpec("row", None, 1000))
        assert reasons(decide(planner, gang("k", created=1))) == {"k": WaitReason.POWER_BUDGET}
        assert planner.held("j") is not None

    def test_the_message_names_the_domain_that_lacks_the_least(self):
        nodes = [
            node(f"{row}{i}", watts=700, domain=row, rack=row) for row in ("full", "near") for i in range(2)
        ]
        planner = hall(*nodes)
        planner.upsert_power_domain(PowerDomainSpec("full", None, 0))
        planner.upsert_power_domain(PowerDomainSpec("near", None, 11_000))
        assert decide(planner, gang("j", 2, 8))["j"].message == (
            "needs 11200 W under power domain near, which has 11000 W left, 200 W too few (0 of 11000 W reserved)"
        )

    def test_below_a_power_domain_only_nodes_with_a_known_cap_are_used(self):
        planner = hall(node("a", domain="row"), node("b", watts=700, domain="row"), node("c"))
        planner.upsert_power_domain(PowerDomainSpec("row", None, 20_000))
        found = decide(planner, gang("j", gpus=8), gang("k", gpus=8, created=1), gang("l", gpus=8, created=2))
        assert sorted(found["j"] + found["k"]) == ["b", "c"]
        assert found["l"].reason == WaitReason.POWER_BUDGET
        assert found["l"].message == (
            "needs 8 GPUs; under a power domain only GPUs with a known power cap are used, and too few of "
            "these are free: the cap is not known on a; the node label datahall.dev/gpu-cap-watts tells it"
        )
        planner.upsert_node(node("a", watts=700, domain="row"))
        assert decide(planner)["l"] == ["a"]

    def test_a_domain_that_is_not_there_has_no_headroom(self):
        planner = hall(node("a", watts=700, domain="row"))
        wait = decide(planner, gang("j"))["j"]
        assert wait.reason == WaitReason.POWER_BUDGET
        assert "row" in wait.message


class TestJoules:
    """Budgets per day: what is held is spent at its caps, and comes back when the day has passed."""

    @pytest.fixture
    def spent(self):
        """A queue of 20 MJ a day whose gang drew 5.6 kW for an hour."""
        planner = hall(node("n", watts=700), node("m", watts=700), joules_per_day=Limits(30_000_000))
        decide(planner, gang("j", gpus=8), at=0.0)
        for minute in range(1, 61):
            planner.cycle(60.0 * minute)
        return planner

    def test_a_gang_starts_only_if_the_budget_lasts_it_an_hour(self, spent):
        found = decide(spent, gang("k", gpus=8, created=1), gang("l", gpus=2, created=2), at=3600.0)
        assert reasons(found) == {"k": WaitReason.ENERGY_BUDGET, "l": "admitted"}
        assert found["k"].message == (
            "needs 8 GPUs, 20.16 MJ within 24 h; queue team-a has 9840 kJ of quota left: "
            "20.16 MJ of 30 MJ in use within 24 h"
        )
        assert spent.queue_report("team-a", 3600.0).joules == QueueEntry(30_000_000, 20_160_000, 0, 9_840_000)

    def test_it_comes_back_after_a_day_without_anyone_telling(self, spent):
        spent.withdraw("j")
        assert reasons(decide(spent, gang("k", gpus=8, created=1), at=3600.0)) == {
            "k": WaitReason.ENERGY_BUDGET
        }
        assert decide(spent, at=24 * HOUR) == {}
        assert reasons(decide(spent, at=26 * HOUR + 1)) == {"k": "admitted"}

    def test_a_budget_that_no_day_would_cover_is_too_small(self):
        planner = hall(node("n", watts=700), joules_per_day=Limits(1_000_000))
        assert reasons(decide(planner, gang("j"))) == {"j": WaitReason.QUOTA_TOO_SMALL}

    def test_nobody_is_ended_for_joules(self, spent):
        decide(spent, gang("low", gpus=1, created=1), at=3600.0)
        found = decide(spent, gang("high", gpus=8, priority=9, created=2), at=3601.0)
        assert reasons(found) == {"high": WaitReason.ENERGY_BUDGET}


def test_a_report_of_a_queue_that_does_not_exist_is_none_and_of_an_unused_one_is_empty():
    planner = hall(queues=[QueueState("empty")])
    assert planner.queue_report("nobody", 1.0) is None
    report = planner.queue_report("empty", 1.0)
    assert (report.gpus, report.share, report.total_share) == ({}, 0.0, 0.0)
    assert report.watts == report.joules == QueueEntry(0, 0, 0, None)


def test_room_held_for_a_gang_is_not_reported_as_used():
    planner = hall(node("n"), quota=8)
    decide(planner, gang("low", gpus=8))
    found = decide(planner, gang("high", gpus=8, priority=1, created=1))
    assert reasons(found) == {"low": "evicted for high", "high": WaitReason.MAKING_ROOM}
    assert planner.queue_report("team-a", 100.0).gpus["Any"].used == 8
    assert planner.held("low") == (Placement(0, "n", "H100"),)
