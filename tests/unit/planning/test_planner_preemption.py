"""Who ends for whom through the planner: by priority in a queue, by quota between queues; what is held meanwhile."""

from dataclasses import replace
from random import Random

import pytest

from datahall.planning import Admit, Evict, Level, Limits, Placement, Wait, WaitReason
from tests.unit.planning.planners import decide, end_for, gang, hall, node, queue, reasons, started


def full(gangs=2, *, gpus=8, priority=0, **more):
    """A hall of as many nodes as gangs, each with a gang of team-a, r0, r1 and so on."""
    planner = hall(*(node(f"n{i}") for i in range(gangs)), queues=[queue("team-b")], **more)
    running = [gang(f"r{i}", gpus=gpus, created=i, priority=priority) for i in range(gangs)]
    assert set(reasons(decide(planner, *running, at=0.0)).values()) == {"admitted"}
    return planner


class TestByPriority:
    def test_one_of_lower_priority_ends_and_the_preemptor_starts_when_it_is_gone(self):
        planner = full()
        started(planner, "r0", at=0.0, saved=10.0)
        started(planner, "r1", at=0.0, saved=90.0)
        found = decide(planner, gang("high", gpus=8, priority=1, created=9))
        assert reasons(found) == {"r1": "evicted for high", "high": WaitReason.MAKING_ROOM}
        assert found["r1"].message == (
            "makes room for team-a/high, which needs 8 GPUs: its priority, 1, is higher; it saves, and waits in line "
            "again"
        )
        assert found["high"].message == (
            "needs 8 GPUs; 1 job of lower standing (team-a/r1) must save and end first; 1 node held for it"
        )
        assert planner.is_leaving("r1")
        assert planner.explain("r1").endswith("on n1 and is ending")
        assert decide(planner, at=101.0) == {}
        planner.requeue("r1")
        assert reasons(decide(planner, at=102.0)) == {"high": "admitted", "r1": WaitReason.INSUFFICIENT_GPUS}

    @pytest.mark.parametrize(
        ("priority", "queue_", "found"),
        [(6, "team-a", True), (5, "team-a", False), (4, "team-a", False), (9, "team-b", False)],
    )
    def test_only_a_higher_priority_of_the_same_queue_has_the_right(self, priority, queue_, found):
        planner = full(priority=5)
        decided = decide(planner, gang("j", gpus=8, priority=priority, queue=queue_, created=9))
        assert any(isinstance(each, Evict) for each in decided.values()) is found

    def test_no_more_than_are_needed_end(self):
        planner = full(5)
        found = decide(planner, gang("high", 3, 8, priority=1))
        evicted = [key for key, each in found.items() if isinstance(each, Evict)]
        assert len(evicted) == 3
        assert planner.waiting("high").message.startswith("needs 3 x 8 GPUs; 3 jobs of lower standing (")

    def test_an_elastic_preemptor_has_only_its_minimum_cleared(self):
        planner = full(5)
        found = decide(planner, gang("high", 5, 8, min_workers=2, priority=1))
        evicted = [key for key, each in found.items() if isinstance(each, Evict)]
        assert len(evicted) == 2
        for key in evicted:
            planner.withdraw(key)
        planner.withdraw(next(f"r{i}" for i in range(5) if f"r{i}" not in evicted))
        # One more ended by itself meanwhile: it starts with all that is there.
        assert len(decide(planner, at=101.0)["high"]) == 3

    def test_quota_alone_is_made_room_for_too(self):
        planner = hall(node("a"), node("b"), quota=8)
        decide(planner, gang("low", gpus=8))
        found = decide(planner, gang("high", gpus=4, priority=1, created=1))
        assert reasons(found) == {"low": "evicted for high", "high": WaitReason.MAKING_ROOM}

    def test_a_required_rack_is_cleared_and_kept(self):
        planner = hall(*(node(f"{r}{i}", rack=r) for r in "ab" for i in range(2)))
        decide(planner, *(gang(f"r{i}", gpus=8, created=i) for i in range(4)), at=0.0)
        high = gang("high", 2, 8, priority=1, level=Level.RACK, required=True)
        found = decide(planner, high)
        where = [planner.held(key)[0].node for key, each in found.items() if isinstance(each, Evict)]
        assert len(where) == 2
        assert len({name[0] for name in where}) == 1
        for key in [key for key, each in found.items() if isinstance(each, Evict)]:
            planner.withdraw(key)
        assert sorted(decide(planner, at=101.0)["high"]) == sorted(where)


class TestProtected:
    def test_a_service_never_ends_for_others(self):
        planner = hall(node("a"))
        decide(planner, gang("replica", gpus=8, preemptible=False))
        found = decide(planner, gang("high", gpus=8, priority=9))
        assert reasons(found) == {"high": WaitReason.INSUFFICIENT_GPUS}

    def test_a_service_may_have_others_end(self):
        planner = hall(node("a"))
        decide(planner, gang("job", gpus=8))
        found = decide(planner, gang("replica", gpus=8, preemptible=False, priority=1))
        assert reasons(found)["job"] == "evicted for replica"

    def test_nobody_ends_before_its_minimum_run_time(self):
        planner = full(minimum_run_seconds=300.0)
        high = gang("high", gpus=8, priority=1)
        assert reasons(decide(planner, high, at=200.0)) == {"high": WaitReason.INSUFFICIENT_GPUS}
        assert not any(isinstance(each, Evict) for each in decide(planner, at=299.0).values())
        found = {}
        for at in (301.0, 312.0):
            found |= decide(planner, at=at)
        assert sorted(reasons(found).values()) == [WaitReason.MAKING_ROOM, "evicted for high"]

    def test_a_restart_of_the_planner_does_not_make_gangs_younger(self):
        planner = full(1, minimum_run_seconds=300.0)
        started(planner, "r0", at=-1000.0)
        assert reasons(decide(planner, gang("high", gpus=8, priority=1), at=1.0))["r0"] == "evicted for high"

    def test_nobody_ends_where_that_would_not_be_enough(self):
        planner = hall(node("a"), node("b"))
        decide(planner, gang("replica", gpus=1, preemptible=False), gang("job", gpus=8), at=0.0)
        wait = decide(planner, gang("high", 2, 8, priority=1))["high"]
        assert wait.reason == WaitReason.INSUFFICIENT_GPUS
        assert not planner.is_leaving("job")
        assert [blocker.message for blocker in wait.blockers[1:]] == [
            "even with 1 job ended for it (1 protected), 1 of 2 workers would fit"
        ]


class TestHeldRoom:
    """What is held for a preemptor belongs to nobody else, until it starts or has no use for it."""

    @pytest.fixture
    def making_room(self):
        planner = full()
        decide(planner, gang("high", gpus=8, priority=1, created=9))
        self.victim = next(key for key in ("r0", "r1") if planner.is_leaving(key))
        return planner

    def test_nobody_else_takes_the_room_of_those_who_have_gone(self, making_room):
        decide(making_room, gang("other", gpus=8, queue="team-b", created=1), at=101.0)
        planner = making_room
        planner.withdraw(self.victim)
        planner.submit(gang("third", gpus=1, queue="team-b"))
        found = reasons(decide(planner, at=102.0))
        assert found["high"] == "admitted"
        assert not {"other", "third"} & {key for key, word in found.items() if word == "admitted"}

    def test_a_preemptor_of_two_waits_until_both_have_gone(self):
        planner = full()
        decide(planner, gang("high", 2, 8, priority=1, created=9))
        planner.withdraw("r0")
        assert decide(planner, gang("small", created=1, queue="team-b"), at=101.0)["small"].reason in (
            WaitReason.INSUFFICIENT_GPUS,
            WaitReason.RESERVED,
        )
        planner.withdraw("r1")
        assert decide(planner, at=102.0)["high"] == ["n0", "n1"]

    def test_a_withdrawn_preemptor_gives_up_what_was_held_for_it(self, making_room):
        making_room.withdraw("high")
        making_room.withdraw(self.victim)
        assert reasons(decide(making_room, gang("next", gpus=8, created=1, queue="team-b"))) == {
            "next": "admitted"
        }

    def test_a_preemptor_that_asks_for_something_else_gives_it_up_too(self, making_room):
        making_room.withdraw(self.victim)
        changed = gang("high", gpus=1, priority=1, created=9)
        found = decide(making_room, changed, gang("next", gpus=7, created=10), at=101.0)
        assert reasons(found) == {"high": "admitted", "next": "admitted"}

    def test_a_preemptor_starts_elsewhere_if_room_comes_first(self, making_room):
        other = "r1" if self.victim == "r0" else "r0"
        making_room.withdraw(other)
        assert reasons(decide(making_room, at=101.0)) == {"high": "admitted"}

    def test_nobody_else_is_ended_while_it_is_waited_for(self, making_room):
        for second in range(101, 161):
            assert not [d for d in making_room.cycle(float(second)) if isinstance(d, Evict | Admit)]
            making_room.submit(gang(f"noise-{second}", created=second))

    def test_those_who_leave_anyway_are_waited_for_and_nobody_is_ended(self):
        planner = full()
        planner.hold(gang("r1", gpus=8, created=1), planner.held("r1"), leaving=True)
        found = decide(planner, gang("high", gpus=8, priority=1, created=9))
        assert reasons(found) == {"high": WaitReason.MAKING_ROOM}
        assert found["high"].message == (
            "needs 8 GPUs; 1 job (team-a/r1) must finish ending first; 1 node held for it"
        )
        planner.withdraw("r1")
        assert decide(planner, at=101.0)["high"] == ["n1"]

    def test_a_victim_that_is_told_of_again_still_leaves(self, making_room):
        held = making_room.held(self.victim)
        making_room.hold(gang(self.victim, gpus=8, created=int(self.victim[1])), held)
        assert making_room.is_leaving(self.victim)

    def test_two_preemptors_are_given_different_victims(self):
        planner = full()
        found = decide(
            planner, gang("h1", gpus=8, priority=1, created=8), gang("h2", gpus=8, priority=1, created=9)
        )
        found |= decide(planner, at=110.0)
        evicted = {key: each.preemptor for key, each in found.items() if isinstance(each, Evict)}
        assert sorted(evicted) == ["r0", "r1"]
        assert sorted(evicted.values()) == ["h1", "h2"]

    @pytest.mark.parametrize("order", range(6))
    def test_a_lower_one_does_not_start_on_room_that_was_freed_for_a_higher_one(self, order):
        """Each is to get half of n. The half that is freed first is the first one's, which waits for other nodes."""
        planner = hall(node("n"), node("m"), node("k"))
        for name, on, gpus in (("r0", "n", 4), ("stays", "n", 4), ("r1", "m", 8), ("r2", "k", 8)):
            planner.hold(gang(name, gpus=gpus), (Placement(0, on, "H100"),))
            started(planner, name, at=0.0, saved=0.0 if name == "stays" else 99.0)
        planner.submit(gang("wants", 5, 4, priority=5))
        end_for(planner, "wants", [gang("newcomer", gpus=4, priority=1)], order=Random(order), at=100.0)
        assert planner.held("wants")


def borrowed(*, a=8, b=8, c=0, nodes=2, borrower_priority=0, gangs=2, **more):
    """A pool; team-a runs gangs of a node each, beyond its quota."""
    planner = hall(
        *(node(f"n{i}") for i in range(nodes)),
        quota=a,
        parent="pool",
        queues=[
            queue("pool", 0),
            queue("team-b", b, parent="pool"),
            queue("team-c", c, parent="pool"),
        ],
        **more,
    )
    running = [gang(f"r{i}", gpus=8, created=i, priority=borrower_priority) for i in range(gangs)]
    assert set(reasons(decide(planner, *running, at=0.0)).values()) == {"admitted"}
    return planner


class TestReclaim:
    @pytest.mark.parametrize("borrower_priority", [0, 100])
    def test_a_queue_takes_back_its_nominal_whatever_the_priority(self, borrower_priority):
        planner = borrowed(borrower_priority=borrower_priority)
        found = decide(planner, gang("own", gpus=8, queue="team-b", created=9))
        (victim,) = [key for key, each in found.items() if isinstance(each, Evict)]
        assert found[victim].message == (
            "makes room for team-a/own, which needs 8 GPUs: queue team-b takes back what is within its nominal quota "
            "and was borrowed; it saves, and waits in line again"
        )
        assert found["own"].reason == WaitReason.MAKING_ROOM
        assert [blocker.reason for blocker in found["own"].blockers][1] == WaitReason.BORROWED_AWAY
        planner.requeue(victim)
        assert reasons(decide(planner, at=101.0)) == {"own": "admitted", victim: WaitReason.QUOTA_EXCEEDED}
        # And it stays so: nobody comes back for what it had borrowed.
        for at in range(110, 200, 10):
            assert not [d for d in planner.cycle(float(at)) if isinstance(d, Evict | Admit)]

    def test_room_in_the_hall_is_taken_back_as_well_as_quota(self):
        # Quota is there, since team-a borrowed from the pool's own; the hall has no room.
        planner = borrowed(a=8, b=8, nodes=2)
        planner.upsert_queue(queue("pool", 16))
        found = decide(planner, gang("own", gpus=8, queue="team-b", created=9))
        assert sorted(reasons(found).values()) == [WaitReason.MAKING_ROOM, "evicted for own"]

    def test_no_more_is_taken_back_than_was_borrowed(self):
        planner = borrowed(a=16, b=16, nodes=4, gangs=3)
        found = decide(planner, gang("own", 2, 8, queue="team-b", created=9))
        # 16 of 32 are its own, 8 are idle, and team-a holds 24 with a quota of 16: one gang is what it borrowed.
        assert len([key for key, each in found.items() if isinstance(each, Evict)]) == 1

    def test_queues_within_their_nominal_are_left_alone(self):
        planner = borrowed(a=8, b=8, c=8, nodes=3, gangs=2)
        decide(planner, gang("c", gpus=8, queue="team-c"), at=1.0)
        found = decide(planner, gang("own", gpus=8, queue="team-b", created=9))
        (victim,) = [key for key, each in found.items() if isinstance(each, Evict)]
        assert victim in ("r0", "r1")

    @pytest.mark.parametrize("watts", [0, 700])
    def test_watts_that_nothing_limits_are_borrowed_by_nobody(self, watts):
        planner = hall(
            node("n", watts=watts),
            quota=8,
            parent="pool",
            queues=[queue("pool", 0), queue("team-b", 8, parent="pool")],
        )
        decide(planner, gang("a", gpus=8), at=0.0)
        found = decide(planner, gang("b", gpus=8, queue="team-b", created=1))
        assert reasons(found) == {"b": WaitReason.INSUFFICIENT_GPUS}
        assert planner.queue_report("team-a", 100.0).watts.borrowed == 0

    def test_watts_beyond_nominal_are_taken_back_like_gpus(self):
        planner = hall(
            *(node(f"n{i}", watts=700) for i in range(2)),
            quota=16,
            parent="pool",
            watts=Limits(5600),
            queues=[
                queue("pool", 0, watts=Limits(0)),
                queue("team-b", 16, parent="pool", watts=Limits(5600)),
            ],
        )
        decide(planner, *(gang(f"a{i}", gpus=4, created=i) for i in range(3)), at=0.0)
        found = decide(planner, gang("b", 2, 4, queue="team-b", created=9))
        assert sorted(reasons(found).values()) == [WaitReason.MAKING_ROOM, "evicted for b"]

    def test_who_asks_for_more_than_its_nominal_takes_nothing_back(self):
        planner = borrowed()
        found = decide(planner, gang("more", 9, 1, queue="team-b", created=9))
        assert reasons(found) == {"more": WaitReason.QUOTA_EXCEEDED}

    def test_the_latest_started_of_the_lowest_priority_goes_first(self):
        planner = borrowed(a=8, b=16, c=0, nodes=3, gangs=3)
        for i, at in enumerate((30.0, 10.0, 20.0)):
            started(planner, f"r{i}", at=at)
        found = decide(planner, gang("own", gpus=8, queue="team-b", created=9))
        (victim,) = [key for key, each in found.items() if isinstance(each, Evict)]
        assert victim in ("r0", "r2")

    def test_minimum_run_time_and_services_are_respected(self):
        planner = borrowed(minimum_run_seconds=1000.0)
        found = decide(planner, gang("own", gpus=8, queue="team-b", created=9))
        assert reasons(found) == {"own": WaitReason.BORROWED_AWAY}
        planner.upsert_queue(queue("team-a", 8, parent="pool"))
        for key in ("r0", "r1"):
            held = planner.held(key)
            planner.hold(gang(key, gpus=8, preemptible=False), held)
        assert not [each for each in decide(planner, at=200.0).values() if isinstance(each, Evict)]

    def test_who_made_way_does_not_come_back_for_the_one_it_made_way_for(self):
        planner = borrowed()
        found = decide(planner, gang("own", gpus=8, queue="team-b", created=9))
        (victim,) = [key for key, each in found.items() if isinstance(each, Evict)]
        planner.requeue(victim)
        assert reasons(decide(planner, at=101.0))["own"] == "admitted"
        # Quota is dealt anew: now team-b is the one that borrows.
        planner.upsert_queue(queue("team-a", 16, parent="pool"))
        planner.upsert_queue(queue("team-b", 0, parent="pool"))
        assert reasons(decide(planner, at=200.0)) == {victim: WaitReason.BORROWED_AWAY}
        # Another gang of team-a has the right.
        found = decide(planner, gang("fresh", gpus=8, created=-1), at=210.0)
        assert reasons(found) == {"own": "evicted for fresh", "fresh": WaitReason.MAKING_ROOM}


def test_a_gang_evicted_before_costs_more_to_evict_again():
    planner = hall(node("a"), node("b"))
    decide(planner, gang("twice", gpus=8, evictions=2, created=0), gang("never", gpus=8, created=1), at=0.0)
    for key in ("twice", "never"):
        started(planner, key, saved=50.0)
    found = decide(planner, gang("high", gpus=8, priority=1))
    assert reasons(found)["never"] == "evicted for high"


def test_the_refused_are_told_the_same_whatever_nobody_can_do_for_them():
    planner = full(2)
    high = gang("high", 3, 8, priority=1)
    first = decide(planner, high)["high"]
    assert isinstance(first, Wait)
    assert first.reason == WaitReason.NEVER_FITS
    assert decide(planner, replace(high, workers=2), at=101.0)["high"].reason == WaitReason.MAKING_ROOM
