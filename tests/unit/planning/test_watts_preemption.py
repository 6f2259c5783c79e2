"""Who ends where power domains lack watts; and that nobody else gets what is held for the gang that they end for."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahall.planning import Admit, Evict, Level, Placement, PowerDomainSpec, WaitReason
from tests.unit.planning.planners import decide, gang, hall, node, queue, reasons, started

WATTS = 500


def racks(budgets, *, site=100_000, nodes=2, **more):
    """Racks "a", "b", ... of two nodes of 8 GPUs with caps of 500 W, each under a power domain of its name."""
    names = "abcd"[: len(budgets)]
    planner = hall(
        *(node(f"{rack}{i}", rack=rack, watts=WATTS, domain=rack) for rack in names for i in range(nodes)),
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
    victims = [d.key for d in planner.cycle(2000.0) if isinstance(d, Evict) and d.preemptor == "wants"]
    order.shuffle(victims)
    began = not victims
    for i, victim in enumerate(victims):
        assert not began, "it started before its last victim was gone: too many were ended"
        for newcomer in newcomers:
            planner.submit(replace(newcomer, key=f"{newcomer.key}-{i}"))
        planner.requeue(victim)
        decisions = planner.cycle(2001.0 + i)
        assert not any(isinstance(d, Evict) and d.preemptor == "wants" for d in decisions)
        began = any(isinstance(d, Admit) and d.key == "wants" for d in decisions)
    if not began:
        pytest.fail("they ended for nothing")
