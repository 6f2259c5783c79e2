"""Who goes first: priority and age in a queue, shares of the hall over time between queues; what is kept meanwhile."""

from collections import Counter

import pytest

from datahall.planning import Admit, Level, Placement, PodUsage, QueueCounts, QueueUse, Wait, WaitReason
from tests.unit.planning.planners import NOW, decide, gang, hall, node, queue, reasons, started


class TestInAQueue:
    def test_priority_then_age_then_key(self):
        planner = hall(node("a", 3))
        found = decide(
            planner,
            gang("young", created=9),
            gang("b", created=5),
            gang("a", created=5),
            gang("urgent", priority=1, created=10),
        )
        assert reasons(found) == {
            "urgent": "admitted",
            "a": "admitted",
            "b": "admitted",
            "young": WaitReason.INSUFFICIENT_GPUS,
        }
        assert list(found) == ["urgent", "a", "b", "young"]

    def test_positions_count_those_still_waiting_in_the_queue(self):
        planner = hall(node("a", 2), queues=[queue("team-b")])
        planner.hold(gang("b0", queue="team-b"), (Placement(0, "a", "H100"),))
        decide(planner, *(gang(f"a{i}", created=i) for i in range(4)), gang("b1", queue="team-b", created=9))
        places = {key: planner.waiting(key).position for key in ("a1", "a2", "a3", "b1")}
        assert places == {"a1": 1, "a2": 2, "a3": 3, "b1": 1}
        assert planner.queue_counts("team-a") == QueueCounts(waiting=3, held=1)
        assert planner.queue_counts("nobody") == QueueCounts(0, 0)

    def test_like_gangs_are_told_apart_by_their_position_alone(self):
        planner = hall(node("a", 1), quota=1)
        found = decide(planner, *(gang(f"j{i}", created=i) for i in range(20)))
        assert [found[f"j{i}"].position for i in range(1, 20)] == list(range(1, 20))
        assert {wait.message for wait in found.values() if isinstance(wait, Wait)} == {
            "needs 1 GPU; queue team-a has 0 GPUs of quota left: 1 of 1 in use"
        }


class TestKeptQuota:
    def test_a_waiting_gang_keeps_the_quota_it_needs(self):
        planner = hall(node("a"), node("b"), quota=8)
        decide(planner, gang("running", gpus=4))
        found = decide(planner, gang("big", gpus=6, created=1), gang("small", gpus=2, created=2))
        assert reasons(found) == {"big": WaitReason.QUOTA_EXCEEDED, "small": WaitReason.BEHIND_OTHERS}
        assert found["small"].message == (
            "needs 2 GPUs; what is left of the quota of queue team-a is kept for team-a/big (needs 6 GPUs), "
            "ahead of it"
        )
        planner.withdraw("running")
        assert reasons(decide(planner)) == {"big": "admitted", "small": "admitted"}

    def test_another_model_or_queue_or_no_gpu_may_pass(self):
        planner = hall(
            node("a"), node("b", model="A100"), quota={"H100": 4, "A100": 4}, queues=[queue("team-b", 4)]
        )
        decide(planner, gang("running", gpus=2, models=("H100",)))
        found = decide(
            planner,
            gang("big", gpus=4, models=("H100",), created=1),
            gang("same", gpus=1, models=("H100",), created=2),
            gang("other-model", gpus=1, models=("A100",), created=3),
            gang("no-gpu", gpus=0, created=4),
            gang("other-queue", gpus=1, models=("H100",), queue="team-b", created=5),
        )
        assert reasons(found) == {
            "big": WaitReason.QUOTA_EXCEEDED,
            "same": WaitReason.BEHIND_OTHERS,
            "other-model": "admitted",
            "no-gpu": "admitted",
            "other-queue": "admitted",
        }

    def test_what_is_kept_is_for_the_minimum_of_an_elastic_gang(self):
        planner = hall(node("a"), node("b"), quota=8)
        decide(planner, gang("running", gpus=5))
        found = decide(planner, gang("big", 8, 2, min_workers=2, created=1), gang("small", created=2))
        assert reasons(found) == {"big": WaitReason.QUOTA_EXCEEDED, "small": WaitReason.BEHIND_OTHERS}
        planner.withdraw("running")
        assert [len(names) for names in decide(planner).values() if isinstance(names, list)] == [4]

    @pytest.mark.parametrize("obstacle", ["pod", "cordon"])
    def test_what_waits_for_something_outside_the_plan_keeps_nothing(self, obstacle):
        planner = hall(node("a"), node("b"), quota=16)
        if obstacle == "pod":
            planner.upsert_pod(PodUsage("x", "a", 1, 0, 0))
        else:
            planner.upsert_node(node("a", schedulable=False))
        found = decide(planner, gang("big", 2, 8), gang("small", created=1, gpus=8))
        assert reasons(found) == {"big": WaitReason.INSUFFICIENT_GPUS, "small": "admitted"}

    @pytest.mark.parametrize("other", ["team-a", "team-b"])
    @pytest.mark.parametrize("quota", [16, 1000], ids=["quota", "hall"])
    def test_a_big_gang_does_not_starve_under_a_stream_of_small_ones(self, quota, other):
        planner = hall(node("a"), node("b"), quota=quota, queues=[queue("team-b")])
        running = []
        for turn in range(60):
            planner.submit(gang(f"s{turn}", gpus=1, created=turn, queue=other))
            if turn == 20:
                planner.submit(gang("big", 2, 8, created=turn - 0.5))
            running += [d.key for d in planner.cycle(turn) if isinstance(d, Admit)]
            if "big" in running:
                break
            if turn >= 12:
                planner.withdraw(running.pop(0))
        assert "big" in running


class TestTurns:
    def test_two_queues_take_turns_whatever_age_and_priority(self):
        planner = hall(node("a"), quota=0, queues=[queue("team-b", 0), queue("top", 8)])
        planner.upsert_queue(queue("team-a", 0, parent="top"))
        planner.upsert_queue(queue("team-b", 0, parent="top"))
        found = decide(
            planner,
            *(gang(f"a{i}", created=i, priority=5) for i in range(20)),
            *(gang(f"b{i}", created=100 + i, queue="team-b") for i in range(20)),
        )
        first = [key for key, word in reasons(found).items() if word == "admitted"]
        assert first == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]

    def test_a_queue_of_twice_the_weight_starts_twice_as_many(self):
        planner = hall(node("a"), node("b", 4), queues=[queue("top", 12)])
        planner.upsert_queue(queue("team-a", 0, parent="top", weight=2.0))
        planner.upsert_queue(queue("team-b", 0, parent="top"))
        found = decide(
            planner,
            *(gang(f"a{i}", created=i) for i in range(20)),
            *(gang(f"b{i}", created=i, queue="team-b") for i in range(20)),
        )
        counts = Counter(key[0] for key, word in reasons(found).items() if word == "admitted")
        assert counts == {"a": 8, "b": 4}

    def test_a_queue_that_used_much_stands_behind_until_it_is_forgotten(self):
        week = 7 * 86_400.0

        def first(*, elapsed):
            planner = hall(node("a", 1), queues=[queue("top", 1)])
            planner.upsert_queue(queue("team-a", 0, parent="top"))
            planner.upsert_queue(queue("team-b", 0, parent="top"))
            planner.resume("team-a", QueueUse(0.0, 86_400.0, 0.0), elapsed)
            # What team-b used is less, and recent.
            planner.resume("team-b", QueueUse(elapsed, 3_600.0, 0.0), elapsed)
            found = decide(planner, gang("a"), gang("b", queue="team-b", created=9), at=elapsed)
            return next(key for key, word in reasons(found).items() if word == "admitted")

        assert first(elapsed=0.0) == "b"
        assert first(elapsed=week) == "b"
        # Half of a day is left after a week; after five, less than an hour.
        assert first(elapsed=5 * week) == "a"

    def test_what_a_queue_holds_weighs_over_time(self):
        planner = hall(node("a", 2), queues=[queue("top", 2)])
        planner.upsert_queue(queue("team-a", 0, parent="top"))
        planner.upsert_queue(queue("team-b", 0, parent="top"))
        decide(planner, gang("a-long"), gang("b-short", queue="team-b"), at=0.0)
        for minute in range(1, 11):
            planner.cycle(60.0 * minute)
            if minute == 2:
                planner.withdraw("b-short")
        used = {name: planner.use(name, 600.0).gpu_seconds for name in ("team-a", "team-b")}
        assert used["team-a"] == pytest.approx(600, rel=0.01)
        assert used["team-b"] == pytest.approx(120, rel=0.01)
        found = decide(planner, gang("a-more"), gang("b-more", queue="team-b", created=9), at=600.0)
        assert reasons(found) == {"a-more": WaitReason.QUOTA_EXCEEDED, "b-more": "admitted"}


class TestReservation:
    """A gang that waits for room in the hall: who may pass, and what is said."""

    @pytest.fixture
    def full(self):
        """Two nodes: one runs until 1000 s, seven GPUs of the other until 400 s; a gang of two nodes waits."""
        planner = hall(node("a"), node("b"), queues=[queue("team-b")])
        decide(planner, gang("r1", gpus=8), gang("r2", gpus=7, created=1))
        started(planner, "r1", ends=1000.0)
        started(planner, "r2", ends=400.0)
        decide(planner, gang("big", 2, 8, created=1))
        return planner

    def test_it_is_told_when_it_starts(self, full):
        wait = full.waiting("big")
        assert (wait.reason, wait.starts_seconds) == (WaitReason.INSUFFICIENT_GPUS, 1000.0)
        assert wait.message == (
            "needs 2 x 8 GPUs at once, and 0 of 2 workers fit now; the best node has 1 free (hall: 1 of 16 free); "
            "starts at about 00:16 UTC, when team-a/r1 ends"
        )

    @pytest.mark.parametrize("queue_", ["team-a", "team-b"])
    @pytest.mark.parametrize(
        ("run_seconds", "found"), [(800.0, "admitted"), (950.0, "waits"), (None, "waits")]
    )
    def test_a_short_job_passes_and_a_long_one_waits_with_a_time(self, full, queue_, run_seconds, found):
        small = gang("small", created=2, queue=queue_, run_seconds=run_seconds)
        decided = decide(full, small, at=150.0)["small"]
        if found == "admitted":
            assert isinstance(decided, list)
            return
        assert decided.reason == WaitReason.RESERVED
        how_long = (
            "this one would run until 00:18 UTC" if run_seconds else "nobody knows how long this one runs"
        )
        assert decided.message == (
            "needs 1 GPU; it would fit, but 2 nodes are kept for team-a/big (needs 2 x 8 GPUs), ahead of it, "
            f"from 00:16 UTC on, and {how_long}"
        )

    def test_work_that_takes_nothing_of_what_is_kept_passes(self, full):
        full.upsert_node(node("c", 4))
        found = decide(full, gang("beside", gpus=4, created=2), gang("cpu-only", gpus=0, created=3))
        assert reasons(found) == {"beside": "admitted", "cpu-only": "admitted"}
        assert full.held("beside")[0].node == "c"

    def test_it_starts_when_the_room_is_there_and_others_follow(self, full):
        decide(full, gang("long", created=2))
        full.withdraw("r2")
        assert isinstance(full.waiting("big"), Wait)
        assert decide(full) == {}
        full.withdraw("r1")
        assert reasons(decide(full)) == {"big": "admitted"}
        assert full.waiting("long").reason == WaitReason.INSUFFICIENT_GPUS

    def test_the_next_is_for_the_first_who_was_refused_not_for_who_came_after_the_start(self):
        """The gang that has the reservation starts in the middle of a pass; older ones were refused before it."""
        planner = hall(node("a"), node("h", model="A100"))
        decide(planner, gang("r1", gpus=5, models=("H100",)), gang("r2", gpus=8, models=("A100",)))
        decide(planner, gang("kept", gpus=8, models=("A100",), created=2))
        late = gang("late", gpus=4, models=("A100",), created=3)
        decide(planner, gang("first", gpus=8, models=("H100",), created=1), late)
        planner.withdraw("r2")
        assert reasons(decide(planner)) == {"kept": "admitted"}
        small = gang("small", models=("H100",), created=4)
        assert decide(planner, small)["small"].reason == WaitReason.RESERVED
        planner.withdraw("r1")
        assert reasons(decide(planner))["first"] == "admitted"

    def test_room_for_any_model_is_kept_on_one_that_will_come_free(self):
        planner = hall(node("a"), node("h", model="A100"))
        planner.upsert_pod(PodUsage("x", "h", 1, 0, 0))
        decide(planner, gang("r", gpus=5, models=("H100",)))
        decide(planner, gang("big", gpus=8, created=1))
        assert (
            decide(planner, gang("small", models=("H100",), created=2))["small"].reason == WaitReason.RESERVED
        )
        planner.withdraw("r")
        assert reasons(decide(planner)) == {"big": "admitted"}

    def test_a_large_gang_does_not_wait_for_as_long_as_small_ones_of_a_poorer_queue_come(self):
        """The share of its queue is larger all the time, so the turn to wait for room first is always the others'."""
        planner = hall(node("a"), node("b", 64, model="A100"), queues=[queue("team-b")])
        planner.hold(gang("much", gpus=64), (Placement(0, "b", "A100"),))
        running = []
        for turn in range(100):
            now = NOW + 60.0 * turn
            if turn == 3:
                planner.submit(gang("large", gpus=8, models=("H100",), created=now))
            for i in range(2):
                planner.submit(gang(f"s{turn}-{i}", gpus=3, queue="team-b", created=now))
            running += [decision.key for decision in planner.cycle(now) if isinstance(decision, Admit)]
            if "large" in running:
                return
            if running:
                planner.withdraw(running.pop(0))
        pytest.fail("it starved")

    def test_a_withdrawn_gang_keeps_nothing(self, full):
        decide(full, gang("long", created=2))
        full.withdraw("big")
        assert reasons(decide(full)) == {"long": "admitted"}

    def test_a_higher_priority_of_its_queue_goes_before(self, full):
        assert reasons(decide(full, gang("urgent", created=2, priority=1))) == {"urgent": "admitted"}

    def test_no_time_is_told_where_nobody_knows_one(self):
        planner = hall(node("a"))
        decide(planner, gang("r", gpus=8))
        wait = decide(planner, gang("big", gpus=8, created=1, level=Level.HOST, required=True))["big"]
        assert wait.starts_seconds is None
        assert wait.message.endswith("starts when team-a/r ends; when that is, is not known yet")

    def test_an_older_one_of_the_same_kind_that_comes_back_takes_over_what_is_kept(self):
        planner = hall(node("a"))
        decide(planner, gang("old", gpus=8, created=1))
        decide(planner, gang("young", gpus=8, created=2))
        planner.requeue("old")
        assert reasons(decide(planner)) == {"old": "admitted"}
