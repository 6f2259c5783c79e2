"""Who ends where power domains lack watts; and that nobody else gets what is held for the gang that they end for."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahall.planning import Admit, Evict, Level, Placement, PowerDomainSpec, WaitReason
from tests.unit.planning.planners import NOW, decide, end_for, gang, hall, node, queue, reasons, started

WATTS = 500


def racks(budgets, *, site=100_000, nodes=2, gpus=8, **more):
    """Racks "a", "b", ... of nodes with caps of 500 W a GPU, each rack under a power domain of its name."""
    names = "abcd"[: len(budgets)]
    planner = hall(
        *(
            node(f"{rack}{i}", gpus, rack=rack, watts=WATTS, domain=rack)
            for rack in names
            for i in range(nodes)
        ),
        **more,
    )
    planner.upsert_power_domain(PowerDomainSpec("site", None, site, 0.0))
    for rack, budget in zip(names, budgets, strict=True):
        planner.upsert_power_domain(PowerDomainSpec(rack, "site", budget, 0.0))
    return planner


def run(planner, name, on, gpus=4, **more):
    planner.hold(gang(name, gpus=gpus, **more), (Placement(0, on, "H100"),))
    started(planner, name, at=0.0)


def ended(decisions):
    return {key for key, found in decisions.items() if isinstance(found, Evict)}


class TestByPriority:
    def test_as_many_end_as_the_watts_need_and_they_go_to_whom_they_ended_for(self):
        planner = racks([4_000])
        run(planner, "low0", "a0")
        run(planner, "low1", "a1")
        found = decide(planner, gang("high", gpus=4, priority=1))
        assert len(ended(found)) == 1
        (victim,) = ended(found)
        assert found["high"].reason == WaitReason.MAKING_ROOM
        assert reasons(decide(planner, gang("newcomer", gpus=1), at=101.0)) == {
            "newcomer": WaitReason.POWER_BUDGET
        }
        assert planner.waiting("newcomer").message == (
            "needs 500 W under power domain a, which has 0 W left, 2500 W too few (4000 of 4000 W reserved, "
            "2000 W held for others)"
        )
        planner.requeue(victim)
        assert reasons(decide(planner, at=102.0))["high"] == "admitted"
        assert planner.power_report("a").reserved_watts == 4_000

    def test_the_cheapest_end(self):
        planner = racks([4_000])
        run(planner, "long", "a0")
        run(planner, "short", "a1")
        started(planner, "long", at=0.0, saved=0.0)
        started(planner, "short", at=0.0, saved=95.0)
        assert ended(decide(planner, gang("high", gpus=4, priority=1))) == {"short"}

    def test_who_holds_watts_of_another_domain_goes_on(self):
        planner = racks([4_000, 2_000])
        for name, on in (("a-one", "a0"), ("a-two", "a1"), ("b-one", "b0")):
            run(planner, name, on)
        # Its nodes are in rack a; b's job is cheaper.
        started(planner, "b-one", at=0.0, saved=99.0)
        found = decide(planner, gang("high", gpus=8, priority=1, avoid=("b0", "b1")))
        assert ended(found) == {"a-one", "a-two"}

    def test_a_domain_above_lacks_watts_and_any_below_gives_them(self):
        planner = racks([8_000, 8_000], site=4_000)
        run(planner, "a-one", "a0")
        run(planner, "b-one", "b0")
        started(planner, "b-one", at=0.0, saved=99.0)
        found = decide(planner, gang("high", gpus=4, priority=1, avoid=("b0", "b1")))
        assert ended(found) == {"b-one"}

    def test_a_gang_that_requires_a_rack_gets_one_cleared(self):
        planner = racks([4_000, 4_000])
        for i, on in enumerate(("a0", "a1", "b0", "b1")):
            run(planner, f"low{i}", on)
        high = gang("high", 2, 4, priority=1, level=Level.RACK, required=True)
        found = decide(planner, high)
        assert ended(found) in ({"low0", "low1"}, {"low2", "low3"})
        for key in ended(found):
            planner.requeue(key)
        assert reasons(decide(planner, at=101.0))["high"] == "admitted"

    def test_nobody_ends_where_that_would_not_be_enough(self):
        planner = racks([4_000])
        run(planner, "low", "a0")
        run(planner, "stays", "a1", preemptible=False)
        found = decide(planner, gang("high", 2, 4, priority=1))
        assert ended(found) == set()
        assert found["high"].reason == WaitReason.POWER_BUDGET
        assert [blocker.message for blocker in found["high"].blockers[1:]] == [
            "even with 1 job ended for it (1 protected), 1 of 2 workers would fit"
        ]

    def test_nor_for_an_equal_priority(self):
        planner = racks([2_000])
        run(planner, "first", "a0")
        assert ended(decide(planner, gang("second", gpus=4))) == set()

    def test_who_is_ending_already_is_waited_for(self):
        planner = racks([2_000])
        planner.hold(gang("out", gpus=4), (Placement(0, "a0", "H100"),), leaving=True)
        found = decide(planner, gang("high", gpus=4, priority=1))
        assert ended(found) == set()
        assert found["high"].reason == WaitReason.MAKING_ROOM
        planner.withdraw("out")
        assert reasons(decide(planner, gang("newcomer"), at=101.0))["high"] == "admitted"

    def test_where_two_end_for_two_the_first_starts_when_one_has_gone(self):
        planner = racks([4_000])
        run(planner, "low0", "a0")
        run(planner, "low1", "a1")
        found = decide(
            planner, gang("high0", gpus=4, priority=1), gang("high1", gpus=4, priority=1, created=1)
        )
        assert ended(found) == {"low0", "low1"}
        planner.requeue("low1")
        assert reasons(decide(planner, at=101.0)) == {"high0": "admitted", "low1": WaitReason.POWER_BUDGET}
        planner.requeue("low0")
        assert reasons(decide(planner, at=102.0))["high1"] == "admitted"
        assert planner.power_report("a").reserved_watts == 4_000


@pytest.mark.parametrize("order", range(6))
def test_a_lower_one_does_not_start_on_what_was_freed_for_a_higher_one(order):
    """One site feeds both. What the first one's victims give back is not the second's, whose own have not gone."""
    planner = racks([2_000, 2_000], site=3_000, gpus=4)
    for name, on, gpus in (("r0", "a0", 1), ("r1", "a0", 1), ("r2", "a0", 1), ("r3", "b0", 2)):
        run(planner, name, on, gpus=gpus)
    planner.submit(gang("wants", gpus=4, priority=5))
    end_for(planner, "wants", [gang("newcomer", priority=1)], order=Random(order), at=NOW)
    assert planner.held("wants")


def test_who_leaves_anyway_gives_nothing_back_to_those_who_did_not_count_on_it():
    planner = racks([8_000, 8_000], site=6_000, gpus=4)
    planner.hold(gang("slow", gpus=4), (Placement(0, "b0", "H100"),), leaving=True)
    run(planner, "r0", "a0")
    run(planner, "r1", "a1")
    assert ended(decide(planner, gang("wants", 2, 4, priority=5, avoid=("b0", "b1")))) == {"r0", "r1"}
    newcomer = gang("newcomer", gpus=4, priority=1, avoid=("a0", "a1", "b0"))
    assert reasons(decide(planner, newcomer, at=101.0)) == {"newcomer": WaitReason.MAKING_ROOM}
    planner.withdraw("r0")
    # Its watts are there. But if it got them, the first would wait for the slow one.
    assert decide(planner, at=102.0) == {}
    planner.withdraw("r1")
    assert reasons(decide(planner, at=103.0)) == {"wants": "admitted"}
    planner.withdraw("slow")
    assert reasons(decide(planner, at=104.0)) == {"newcomer": "admitted"}


def test_a_domain_that_goes_meanwhile_holds_nobody_up_and_one_that_comes_does():
    planner = racks([2_000, 2_000], site=2_000, gpus=4)
    run(planner, "low", "a0")
    assert ended(decide(planner, gang("wants", gpus=4, priority=5, avoid=("b0", "b1")))) == {"low"}
    planner.remove_power_domain("site")
    for rack in "ab":
        planner.upsert_power_domain(PowerDomainSpec(rack, None, 2_000, 0.0))
    other = gang("other", gpus=4, priority=5, avoid=("a0", "a1"))
    assert reasons(decide(planner, other, at=101.0)) == {"other": "admitted"}
    for rack in "ab":
        planner.upsert_power_domain(PowerDomainSpec(rack, "site", 2_000, 0.0))
    planner.upsert_power_domain(PowerDomainSpec("site", None, 2_000, 0.0))
    planner.withdraw("low")
    assert reasons(decide(planner, at=102.0)) == {"wants": WaitReason.POWER_BUDGET}
    planner.upsert_power_domain(PowerDomainSpec("site", None, 4_000, 0.0))
    assert reasons(decide(planner, at=103.0)) == {"wants": "admitted"}


def test_none_of_the_nodes_that_share_too_few_watts_is_cleared_for_its_rank_alone():
    planner = racks([3_500, 2_000], gpus=4)
    run(planner, "alone", "a0", gpus=1)
    planner.hold(gang("wide", 2), (Placement(0, "a0", "H100"), Placement(1, "a1", "H100")))
    started(planner, "wide", at=0.0)
    assert ended(decide(planner, gang("wants", 2, 4, priority=1, avoid=("b1",)))) == {"wide"}


@pytest.mark.parametrize("cheap", ["a0", "a1"])
def test_where_each_node_alone_has_the_watts_the_cheapest_end(cheap):
    planner = racks([6_000], gpus=4)
    for on in ("a0", "a1"):
        run(planner, on, on)
        started(planner, on, at=0.0, saved=99.0 if on == cheap else 0.0)
    assert ended(decide(planner, gang("wants", gpus=4, priority=1))) == {cheap}


def test_what_was_borrowed_gives_its_watts_back():
    planner = racks([4_000], quota=8, queues=[queue("team-b", 0), queue("root")])
    planner.upsert_queue(replace(queue("team-a", 8), parent="root"))
    planner.upsert_queue(queue("team-b", 0, parent="root"))
    run(planner, "borrower", "a0", gpus=8, queue="team-b", priority=9)
    found = decide(planner, gang("owner", gpus=8))
    assert ended(found) == {"borrower"}


def test_an_elastic_gang_comes_back_with_the_watts_that_are_left():
    planner = racks([4_000], nodes=1)
    planner.hold(gang("elastic", 4, 2, min_workers=1), tuple(Placement(i, "a0", "H100") for i in range(4)))
    started(planner, "elastic", at=0.0)
    planner.upsert_node(node("a1", rack="a", watts=WATTS, domain="a"))
    found = decide(planner, gang("high", gpus=4, priority=1))
    assert ended(found) == {"elastic"}
    planner.requeue("elastic")
    starts = {d.key: d for d in planner.cycle(101.0) if isinstance(d, Admit)}
    assert len(starts["elastic"].placements) == 2
    assert "high" in starts
    assert planner.power_report("a").reserved_watts == 4_000


@st.composite
def fed_halls(draw):
    """A hall with a tree of power domains, gangs that run in it, one that wants to, and newcomers."""
    names = draw(st.sampled_from(["a", "ab"]))
    planner = hall(
        *(
            node(f"{rack}{i}", draw(st.sampled_from([4, 8])), rack=rack, watts=WATTS, domain=rack)
            for rack in names
            for i in range(2)
        ),
        queues=[queue("root"), queue("team-b", draw(st.sampled_from([0, 4, 1000])), parent="root")],
    )
    planner.upsert_queue(queue("team-a", draw(st.sampled_from([8, 16, 1000])), parent="root"))
    budgets = st.sampled_from([2_000, 3_000, 4_000, 8_000])
    planner.upsert_power_domain(PowerDomainSpec("site", None, draw(budgets), 0.0))
    for rack in names:
        planner.upsert_power_domain(PowerDomainSpec(rack, "site", draw(budgets), 0.0))

    def some(name, priority):
        workers = draw(st.integers(1, 3))
        return gang(
            name,
            workers,
            draw(st.sampled_from([1, 2, 4])),
            queue=draw(st.sampled_from(["team-a", "team-b"])),
            priority=priority,
            min_workers=draw(st.sampled_from([None, 1])),
            level=draw(st.sampled_from([None, Level.RACK])),
            required=draw(st.booleans()),
            cpu=draw(st.sampled_from([1, 40])),
        )

    running = [some(f"r{i}", 0) for i in range(draw(st.integers(1, 6)))]
    newcomers = [some(f"new{i}", 1) for i in range(draw(st.integers(0, 2)))]
    return planner, running, some("wants", 5), newcomers


@given(fed_halls(), st.randoms(use_true_random=False))
def test_nobody_ends_for_a_gang_that_does_not_start_then(drawn, order):
    planner, running, wants, newcomers = drawn
    for each in running:
        planner.submit(each)
    planner.cycle(1000.0)
    for each in running:
        if planner.is_waiting(each.key) or planner.is_leaving(each.key):
            planner.withdraw(each.key)
    planner.submit(wants)
    end_for(planner, "wants", newcomers, order=order, at=2000.0)
