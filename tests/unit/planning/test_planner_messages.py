"""What people are told: why something waits, with numbers; once, and again when it is news."""

import pytest

from datahall.planning import (
    Level,
    Limits,
    Placement,
    Planner,
    PodUsage,
    Wait,
    WaitReason,
)
from tests.unit.planning.planners import GIB, decide, gang, hall, node, queue, reasons, started


class TestEveryRefusalHasNumbers:
    @pytest.mark.parametrize(
        ("request_", "reason", "message"),
        [
            (
                gang("j", queue="teem-a"),
                WaitReason.QUEUE_NOT_FOUND,
                'there is no queue "teem-a"; create it or use one of: team-a',
            ),
            (
                gang("j", namespace="other"),
                WaitReason.NAMESPACE_NOT_ALLOWED,
                'queue team-a does not serve namespace "other" (it serves: ml, team-a); use another queue',
            ),
            (
                gang("j", 2, 8, models=("H100",)),
                WaitReason.QUOTA_EXCEEDED,
                "needs 2 x 8 GPUs (H100); queue team-a has 12 H100 GPUs of quota left: 4 of 16 in use",
            ),
            (
                gang("j", 2, 8, min_workers=1, cpu=99, models=("A100",)),
                WaitReason.NEVER_FITS,
                "can never fit: needs 1 to 2 x 8 GPUs (A100) with 99 CPU and 1 GiB each on one node; the largest nodes "
                "have 96 CPU and 1 TiB: lower resources.cpu or resources.memory",
            ),
            (
                gang("j", gpus=8, models=("A100",)),
                WaitReason.INSUFFICIENT_GPUS,
                "needs 8 GPUs (A100) on one node; the best node has 6 free (hall: 6 of 8 free); "
                "starts when team-a/held ends; when that is, is not known yet",
            ),
            (
                gang("j", 4, 2, models=("A100",)),
                WaitReason.INSUFFICIENT_GPUS,
                "needs 4 x 2 GPUs (A100) at once, and 3 of 4 workers fit now; the best node has 6 free "
                "(hall: 6 of 8 free); starts when team-a/held ends; when that is, is not known yet",
            ),
            (
                gang("j", gpus=1, cpu=90, models=("A100",)),
                WaitReason.INSUFFICIENT_RESOURCES,
                "needs 1 GPU (A100) with 90 CPU and 1 GiB on one node; nodes with enough free GPUs have at most "
                "86 CPU and 1018 GiB free; starts when team-a/held ends; when that is, is not known yet",
            ),
            (
                gang("j", 5, 0, cpu=90),
                WaitReason.INSUFFICIENT_RESOURCES,
                "needs 5 x (90 CPU and 1 GiB) at once, and 1 of 5 workers fit now; nodes have at most 90.5 CPU and "
                "1023 GiB free; pods that are not jobs of a queue, or cordoned nodes, hold what is missing",
            ),
            (
                gang("j", gpus=16),
                WaitReason.NEVER_FITS,
                "can never fit: needs 16 GPUs on one node, the largest node has 8",
            ),
            (
                gang("j", 9, 8, models=("H100",)),
                WaitReason.NEVER_FITS,
                "can never fit: needs 9 x 8 GPUs (H100); the empty hall holds 4 such workers: lower workers",
            ),
            (
                gang("j", 3, 8, level=Level.RACK, required=True),
                WaitReason.NEVER_FITS,
                "can never fit: needs 3 x 8 GPUs on one rack; the largest, empty, holds 2 of 3 workers: lower workers, "
                "or prefer the level instead of requiring it",
            ),
            (
                gang("j", 2, 8, level=Level.RACK, required=True, models=("H100",), queue="team-b"),
                WaitReason.NO_ONE_DOMAIN,
                "needs 2 x 8 GPUs (H100) on one rack; the best, rack 0, has room for 1 of 2 workers; the whole hall "
                "has room for 2; starts when team-a/held-2 ends; when that is, is not known yet",
            ),
            (
                gang("j", gpus=8, cpu=100),
                WaitReason.NEVER_FITS,
                "can never fit: needs 8 GPUs with 100 CPU and 1 GiB on one node; the largest nodes have 96 CPU and "
                "1 TiB: lower resources.cpu or resources.memory",
            ),
            (
                gang("j", models=("B200",)),
                WaitReason.NEVER_FITS,
                "can never fit: needs 1 GPU (B200), and no node has B200 (the hall has: A100, H100)",
            ),
            (
                gang("j", 3, 8, models=("H100",)),
                WaitReason.QUOTA_TOO_SMALL,
                "can never fit: needs 3 x 8 GPUs (H100); the whole quota of queue team-a is 16 H100 "
                "GPUs: lower what is asked for or raise the quota",
            ),
            (
                gang("j", gpus=8, models=("A100",), avoid=("a0",)),
                WaitReason.INSUFFICIENT_GPUS,
                "needs 8 GPUs (A100); no node with A100 GPUs may take it: 1 avoided by this job",
            ),
            (
                gang("j", gpu_milli=500, models=("A100",), cpu=90),
                WaitReason.INSUFFICIENT_RESOURCES,
                "needs 0.5 of a GPU (A100) with 90 CPU and 1 GiB on one node; nodes with enough free GPUs have at most "
                "86 CPU and 1018 GiB free; starts when team-a/held ends; when that is, is not known yet",
            ),
        ],
        ids=lambda value: str(value) if isinstance(value, WaitReason) else "",
    )
    def test_in_the_first_cycle(self, request_, reason, message):
        planner = hall(
            *(node(f"h{i}", rack=str(i // 2)) for i in range(4)),
            node("a0", model="A100"),
            quota={"H100": 16, "Any": 16},
            namespaces=frozenset({"team-a", "ml"}),
        )
        if request_.queue == "team-b":
            planner.upsert_queue(queue("team-b"))
            planner.upsert_pod(PodUsage("x", "h2", 8, 0, 0))
        planner.hold(gang("held", gpus=2, cpu=10, memory=6, models=("A100",)), (Placement(0, "a0", "A100"),))
        planner.hold(
            gang("held-2", gpus=4, models=("H100",), preemptible=False), (Placement(0, "h0", "H100"),)
        )
        for i in range(4):
            planner.upsert_pod(PodUsage(f"r{i}", f"h{i}", 0, 4500 + 3000 * (i > 0), GIB))
        wait = decide(planner, request_)["j"]
        assert (wait.reason, wait.message) == (reason, message)
        assert planner.waiting("j") == wait
        assert (wait.blockers[0].reason, wait.blockers[0].message) == (reason, message)
        assert planner.explain("j") == (
            f"{request_.name} waits ({reason}), 1 in line of queue {request_.queue}, 100 s after it was created: "
            f"{message}"
        )

    def test_a_hall_without_nodes(self):
        planner = hall()
        assert decide(planner, gang("j", gpus=0, memory=3))["j"].message == (
            "can never fit: needs 1 CPU and 3 GiB, and there are no nodes"
        )
        planner.upsert_node(node("cpu", 0))
        assert decide(planner, gang("k"))["k"].message == (
            "can never fit: needs 1 GPU, and no node has GPUs (the hall has: no GPUs)"
        )

    def test_no_queues_at_all(self):
        assert decide(Planner(), gang("j"))["j"].message == (
            'there is no queue "team-a" and no other queue either; create it'
        )

    def test_the_nearest_of_several_models_is_told_and_the_others_beside_it(self):
        planner = hall(node("h"), node("a", model="A100"), quota={"H100": 8, "A100": 4})
        planner.upsert_pod(PodUsage("x", "h", 1, 0, 0))
        wait = decide(planner, gang("j", gpus=8))["j"]
        assert [blocker.reason for blocker in wait.blockers] == [
            WaitReason.INSUFFICIENT_GPUS,
            WaitReason.QUOTA_TOO_SMALL,
        ]
        assert "A100" in wait.blockers[1].message

    def test_of_several_models_the_one_that_will_do_once_others_end_comes_first(self):
        planner = hall(node("h"), node("a", model="A100"))
        planner.upsert_pod(PodUsage("x", "a", 1, 0, 0))
        decide(planner, gang("r", models=("H100",)))
        wait = decide(planner, gang("j", gpus=8))["j"]
        assert [blocker.message.partition(";")[0] for blocker in wait.blockers] == [
            "needs 8 GPUs on one node"
        ] * 2
        assert "7 of 8 free" in wait.message
        assert "pods that are not jobs" in wait.blockers[1].message

    def test_each_node_that_may_not_take_it_is_counted_under_its_reason(self):
        planner = hall(*(node(name, schedulable=name != "c") for name in "abcde"), watts=Limits(10_000))
        wait = decide(planner, gang("j", avoid=("d",)))["j"]
        assert wait.message == (
            "needs 1 GPU; no node with H100 GPUs may take it: 1 cordoned or not ready, 1 avoided by this job, "
            "3 with power caps that nobody knows, which the watts of its queue need"
        )


class TestExplain:
    def test_it_follows_a_gang_through_its_life(self):
        planner = hall(node("a"))
        assert planner.explain("j") == "not known to the planner: neither waiting nor held"
        assert planner.waiting("j") is None
        planner.submit(gang("j", 2, 4))
        assert planner.explain("j") == "team-a/j is in line in queue team-a and not examined yet"
        assert planner.waiting("j") is None
        planner.cycle(1.0)
        assert planner.explain("j") == "team-a/j holds 2 x 4 GPUs of queue team-a on a"
        planner.hold(gang("j", 2, 4), planner.held("j"), leaving=True)
        assert planner.explain("j") == "team-a/j holds 2 x 4 GPUs of queue team-a on a and is ending"
        planner.withdraw("j")
        assert planner.explain("j") == "not known to the planner: neither waiting nor held"

    def test_an_elastic_gang_holds_what_it_got(self):
        planner = hall(node("a"), node("b"))
        decide(planner, gang("j", 5, 8, min_workers=1))
        assert planner.explain("j") == "team-a/j holds 2 x 8 GPUs of queue team-a on a, b"


class TestNews:
    """A wait is told once; then when its reason changes, and now and then with new numbers at the head of a line."""

    @pytest.fixture
    def waiting(self):
        planner = hall(node("a"), node("b"), quota=16)
        found = decide(planner, gang("r1", gpus=6), gang("r2", gpus=6), gang("j", gpus=8, created=1), at=0.0)
        assert reasons(found)["j"] == WaitReason.QUOTA_EXCEEDED
        return planner

    def test_what_is_known_is_not_told_again(self, waiting):
        assert decide(waiting, at=1.0) == {}
        waiting.upsert_node(node("c", 0))
        assert decide(waiting, at=2.0) == {}

    def test_a_reason_of_another_sort_is_news(self, waiting):
        waiting.upsert_queue(queue("team-a", 7))
        assert reasons(decide(waiting, at=1.0)) == {"j": WaitReason.QUOTA_TOO_SMALL}

    def test_reasons_of_those_in_line_change_as_numbers_do(self, waiting):
        waiting.upsert_queue(queue("team-a", 100))
        assert decide(waiting, at=1.0) == {}
        assert waiting.waiting("j").reason == WaitReason.INSUFFICIENT_GPUS
        assert reasons(decide(waiting, at=20.0)) == {"j": WaitReason.INSUFFICIENT_GPUS}

    def test_new_numbers_are_told_after_a_while_and_are_known_at_once(self, waiting):
        waiting.upsert_queue(queue("team-a", 17))
        assert decide(waiting, at=1.0) == {}
        assert waiting.waiting("j").message.endswith("5 GPUs of quota left: 12 of 17 in use")
        (told,) = decide(waiting, at=20.0).values()
        assert told == waiting.waiting("j")
        assert decide(waiting, at=40.0) == {}

    def test_numbers_that_move_are_no_news_for_those_who_stand_behind_another(self):
        planner = hall(node("a"), node("b"), quota=8)
        running = gang("r1", gpus=4), gang("r2", gpus=3)
        waiting = gang("big", gpus=6, created=1), gang("small", gpus=2, created=2)
        found = decide(planner, *running, *waiting, at=0.0)
        assert reasons(found)["big"] == WaitReason.QUOTA_EXCEEDED
        assert [blocker.reason for blocker in found["small"].blockers] == [
            WaitReason.BEHIND_OTHERS,
            WaitReason.QUOTA_EXCEEDED,
        ]
        # Enough for the small one now, and not for the one ahead of it.
        planner.withdraw("r2")
        assert decide(planner, at=1.0) == {}
        assert [blocker.reason for blocker in planner.waiting("small").blockers] == [WaitReason.BEHIND_OTHERS]

    def test_nor_for_those_who_would_borrow_from_a_pool_that_is_kept(self):
        planner = hall(
            *(node(f"n{i}") for i in range(3)),
            quota=0,
            parent="pool",
            queues=[queue("pool", 24), queue("team-b", 0, parent="pool")],
        )
        running = [gang(f"r{i}", gpus=8, queue="team-b", preemptible=False, created=i) for i in range(3)]
        decide(planner, *running, at=0.0)
        waiting = gang("big", 3, 8), gang("small", gpus=8, queue="team-b", created=9)
        found = decide(planner, *waiting, at=1.0)
        assert reasons(found) == {"big": WaitReason.QUOTA_EXCEEDED, "small": WaitReason.BEHIND_OTHERS}
        planner.withdraw("r0")
        assert decide(planner, at=2.0) == {}

    def test_a_newcomer_is_told_though_its_like_were_told_before(self, waiting):
        found = decide(waiting, gang("k", gpus=8, created=2), at=1.0)
        assert reasons(found) == {"k": WaitReason.QUOTA_EXCEEDED}
        assert found["k"].position == 2

    def test_who_comes_back_in_line_is_told_again(self, waiting):
        waiting.withdraw("j")
        assert decide(waiting, at=1.0) == {}
        assert reasons(decide(waiting, gang("j", gpus=8, created=1), at=2.0)) == {
            "j": WaitReason.QUOTA_EXCEEDED
        }

    def test_who_had_a_reason_of_its_own_and_has_it_no_more_is_told(self):
        planner = hall(node("a"))
        decide(planner, gang("low", gpus=8), at=0.0)
        found = decide(planner, *(gang(f"h{i}", gpus=8, priority=1, created=i) for i in range(3)), at=1.0)
        assert reasons(found) == {
            "low": "evicted for h0",
            "h0": WaitReason.MAKING_ROOM,
            "h1": WaitReason.INSUFFICIENT_GPUS,
            "h2": WaitReason.INSUFFICIENT_GPUS,
        }
        # The victim is gone, and a foreign pod was faster.
        planner.withdraw("low")
        planner.upsert_pod(PodUsage("x", "a", 1, 0, 0))
        found = decide(planner, at=2.0)
        assert reasons(found) == {"h0": WaitReason.INSUFFICIENT_GPUS}

    def test_the_time_of_a_start_is_told_when_it_becomes_known(self):
        planner = hall(node("a"))
        decide(planner, gang("r", gpus=8), at=0.0)
        assert decide(planner, gang("j", gpus=8, created=1), at=1.0)["j"].starts_seconds is None
        started(planner, "r", ends=600.0)
        (wait,) = decide(planner, at=30.0).values()
        assert isinstance(wait, Wait)
        assert wait.starts_seconds == 600.0
        assert wait.message.endswith("starts at about 00:10 UTC, when team-a/r ends")
