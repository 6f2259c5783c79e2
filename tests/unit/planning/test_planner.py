"""What the planner decides, case by case."""

from dataclasses import replace

import pytest

from datahall.planning import (
    Admit,
    GangRequest,
    NodeState,
    Placement,
    Planner,
    PodUsage,
    QueueCounts,
    QueueState,
    Wait,
    WaitReason,
)

GIB = 1 << 30


def node(name, gpus=8, model="H100", *, cpu=96, memory=1024, rack=None, block=None, schedulable=True):
    return NodeState(
        name, model if gpus else "", gpus, cpu * 1000, memory * GIB, rack, block, schedulable=schedulable
    )


def gang(
    name,
    workers=1,
    gpus=1,
    *,
    models=(),
    cpu=1,
    memory=1,
    queue="team-a",
    priority=0,
    created=0.0,
    avoid=(),
    namespace="team-a",
):
    return GangRequest(
        key=name,
        name=f"{namespace}/{name}",
        namespace=namespace,
        queue=queue,
        priority=priority,
        created_seconds=created,
        workers=workers,
        gpus=gpus,
        gpu_models=models,
        cpu_milli=cpu * 1000,
        memory_bytes=memory * GIB,
        avoid_nodes=frozenset(avoid),
    )


def hall(*nodes, quota=None, queues=(), namespaces=frozenset()):
    planner = Planner()
    for each in nodes:
        planner.upsert_node(each)
    planner.upsert_queue(QueueState("team-a", quota or {"Any": 1000}, namespaces))
    for each in queues:
        planner.upsert_queue(each)
    return planner


def decide(planner, *gangs):
    """Submit, run one cycle, and give the decisions by key: node names by rank, or the Wait."""
    for each in gangs:
        planner.submit(each)
    found = {}
    for decision in planner.cycle(100.0):
        match decision:
            case Admit(key, placements):
                assert [p.rank for p in placements] == list(range(len(placements)))
                found[key] = [p.node for p in placements]
            case Wait(key):
                found[key] = decision
    return found


def reasons(decisions):
    return {key: d.reason if isinstance(d, Wait) else "admitted" for key, d in decisions.items()}


class TestPacking:
    def test_the_node_with_the_fewest_gpus_left_gets_the_worker(self):
        planner = hall(node("a"), node("b"), node("c"))
        planner.upsert_pod(PodUsage("x", "b", 5, 0, 0))
        planner.upsert_pod(PodUsage("y", "c", 7, 0, 0))
        assert decide(planner, gang("j", gpus=2))["j"] == ["b"]

    def test_then_the_least_free_cpu_then_the_name(self):
        planner = hall(node("b"), node("a"), node("c", cpu=64))
        assert decide(planner, gang("first"))["first"] == ["c"]
        assert decide(hall(node("b"), node("a")), gang("second"))["second"] == ["a"]

    def test_workers_share_a_node_and_spill_over_to_the_next(self):
        assert decide(hall(node("a"), node("b")), gang("j", 5, 2))["j"] == ["a", "a", "a", "a", "b"]

    def test_ties_keep_to_one_rack_and_ranks_follow_it(self):
        planner = hall(
            node("a", rack="r2"), node("b", rack="r1"), node("c", rack="r2"), node("d", rack="r1", block="z")
        )
        assert decide(planner, gang("j", 2, 8))["j"] == ["b", "a"]
        assert decide(hall(node("a", rack="2"), node("b", rack="1"), node("c", rack="2")), gang("j", 2, 8))[
            "j"
        ] == ["b", "a"]
        planner = hall(node("a", rack="2"), node("b", rack="1"), node("c", rack="1"))
        assert decide(planner, gang("j", 2, 8))["j"] == ["b", "c"]

    def test_cpu_and_memory_are_hard_limits(self):
        planner = hall(node("a", cpu=4), node("b", memory=10), node("c", cpu=8, memory=100))
        assert decide(planner, gang("j", gpus=1, cpu=8, memory=50))["j"] == ["c"]

    def test_work_without_gpus_avoids_gpu_nodes_while_others_have_room(self):
        planner = hall(node("gpu", cpu=4), node("cpu-1", 0, cpu=16), node("cpu-2", 0, cpu=8))
        assert sorted(decide(planner, gang("j", 3, 0, cpu=8))["j"]) == ["cpu-1", "cpu-1", "cpu-2"]
        planner = hall(node("gpu", cpu=8), node("cpu-1", 0, cpu=16), node("cpu-2", 0, cpu=8))
        assert decide(planner, gang("j", 4, 0, cpu=8))["j"] == ["cpu-1", "cpu-1", "cpu-2", "gpu"]

    def test_only_allowed_models_in_order_of_preference(self):
        planner = hall(node("a", model="A100"), node("h", model="H100"))
        assert decide(planner, gang("j", models=("H100", "A100")))["j"] == ["h"]
        assert decide(planner, gang("k", gpus=8, models=("H100", "A100")))["k"] == ["a"]
        assert planner.held("k") == (Placement(0, "a", "A100"),)

    def test_a_gang_never_mixes_models(self):
        planner = hall(node("a", model="A100"), node("h", model="H100"))
        assert reasons(decide(planner, gang("j", 2, 8))) == {"j": WaitReason.NEVER_FITS}

    def test_without_a_list_the_model_that_it_fits_best(self):
        assert decide(hall(node("a", model="A100"), node("h", 4)), gang("j", gpus=4))["j"] == ["h"]

    def test_gpus_without_a_model_serve_those_who_ask_for_none(self):
        planner = hall(node("a", model=""))
        assert reasons(decide(planner, gang("i", models=("H100",)), gang("j"))) == {
            "i": WaitReason.NEVER_FITS,
            "j": "admitted",
        }
        assert planner.queue_usage("team-a") == {"": 1}

    def test_cordoned_and_avoided_nodes_are_left_out(self):
        planner = hall(node("a", schedulable=False), node("b"), node("c"))
        assert decide(planner, gang("j", avoid=("b", "gone")))["j"] == ["c"]

    def test_all_or_nothing(self):
        planner = hall(node("a"), node("b"))
        planner.upsert_pod(PodUsage("x", "a", 1, 0, 0))
        assert reasons(decide(planner, gang("j", 2, 8))) == {"j": WaitReason.INSUFFICIENT_GPUS}
        assert planner.queue_usage("team-a") == {}
        assert planner.held("j") is None


class TestOrder:
    def test_priority_then_age_then_key(self):
        planner = hall(node("a", 3))
        found = decide(
            planner,
            gang("young", created=9),
            gang("b", created=5),
            gang("a", created=5),
            gang("urgent", priority=1, created=10),
        )
        assert list(found) == ["urgent", "a", "b", "young"]
        assert reasons(found) == {
            "urgent": "admitted",
            "a": "admitted",
            "b": "admitted",
            "young": WaitReason.INSUFFICIENT_GPUS,
        }

    def test_positions_count_those_still_waiting_in_the_queue(self):
        planner = hall(node("a", 2), queues=[QueueState("team-b", {"Any": 9})])
        found = decide(
            planner, *(gang(f"a{i}", created=i) for i in range(4)), gang("b0", queue="team-b", created=9)
        )
        assert {k: d.position for k, d in found.items() if isinstance(d, Wait)} == {"a2": 1, "a3": 2, "b0": 1}
        assert planner.queue_counts("team-a") == QueueCounts(waiting=2, held=2)
        assert planner.queue_counts("nobody") == QueueCounts(0, 0)

    def test_a_waiting_gang_keeps_the_quota_it_needs(self):
        planner = hall(node("a"), node("b"), quota={"Any": 8})
        decide(planner, gang("running", gpus=4))
        found = decide(planner, gang("big", gpus=6, created=1), gang("small", gpus=2, created=2))
        assert reasons(found) == {"big": WaitReason.QUOTA_EXCEEDED, "small": WaitReason.BEHIND_OTHERS}
        assert found["small"].message == (
            "needs 2 GPUs; the 4 of 8 GPUs of quota left in queue team-a are kept for team-a/big (needs 6 GPUs), "
            "ahead of it"
        )
        planner.withdraw("running")
        assert reasons(decide(planner)) == {"big": "admitted", "small": "admitted"}

    def test_another_model_or_queue_or_no_gpu_may_pass(self):
        planner = hall(
            node("a"),
            node("b", model="A100"),
            quota={"H100": 4, "A100": 4},
            queues=[QueueState("team-b", {"Any": 4})],
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

    def test_the_first_that_waits_for_the_hall_has_nodes_kept_free(self):
        planner = hall(node("a"), node("b"), queues=[QueueState("team-b", {"Any": 100})])
        decide(planner, gang("r1", gpus=7), gang("r2", gpus=6, avoid=("a",)))
        found = decide(
            planner,
            gang("big", gpus=8, created=1),
            gang("small-1", queue="team-b", created=2),
            gang("small-2", queue="team-b", created=3),
        )
        # b holds least, so b is kept free; a takes the one that fits.
        assert reasons(found) == {
            "big": WaitReason.INSUFFICIENT_GPUS,
            "small-1": "admitted",
            "small-2": WaitReason.BEHIND_OTHERS,
        }
        assert planner.held("small-1") == (Placement(0, "a", "H100"),)
        assert found["small-2"].message == (
            "needs 1 GPU; it would fit, but 1 node is kept free for team-a/big (needs 8 GPUs), ahead of it"
        )
        planner.withdraw("r2")
        assert decide(planner)["big"] == ["b"]

    @pytest.mark.parametrize("obstacle", ["pod", "cordon", "quota of replicas"])
    def test_what_waits_for_something_outside_the_plan_keeps_nothing(self, obstacle):
        planner = hall(node("a"), node("b"), quota={"Any": 16})
        if obstacle == "pod":
            planner.upsert_pod(PodUsage("x", "a", 1, 0, 0))
        elif obstacle == "cordon":
            planner.upsert_node(node("a", schedulable=False))
        else:
            planner.upsert_pod(PodUsage("x", "", 1, 0, 0, "team-a"))
        found = decide(planner, gang("big", 2, 8), gang("small", created=1, gpus=8))
        assert isinstance(found["big"], Wait)
        assert found["small"] == ["b" if obstacle != "quota of replicas" else "a"]

    @pytest.mark.parametrize("quota", [{"Any": 16}, {"Any": 1000}], ids=["quota", "hall"])
    def test_a_big_gang_does_not_starve_under_a_stream_of_small_ones(self, quota):
        planner = hall(node("a"), node("b"), quota=quota, queues=[QueueState("team-b", {"Any": 1000})])
        running = []
        other = "team-a" if quota["Any"] == 16 else "team-b"
        for turn in range(40):
            planner.submit(gang(f"s{turn}", gpus=1, created=turn, queue=other))
            if turn == 20:
                planner.submit(gang("big", 2, 8, created=turn - 0.5))
            running += [d.key for d in planner.cycle(turn) if isinstance(d, Admit)]
            if "big" in running:
                break
            if turn >= 12:
                planner.withdraw(running.pop(0))
        assert "big" in running


class TestQuota:
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
        assert (
            found["x"].message
            == "can never fit: needs 1 GPU (A100); queue team-a has no quota for A100 (it has: H100)"
        )
        assert found["y"] == ["h"]

    def test_replicas_of_the_queue_count_by_the_model_of_their_node(self):
        planner = hall(node("h"), quota={"H100": 8, "A100": 8})
        planner.upsert_pod(PodUsage("r", "late", 6, 1000, GIB, "team-a"))
        assert planner.quota_room("team-a", "A100") == 8
        planner.upsert_node(node("late", model="A100"))
        assert planner.quota_room("team-a", "A100") == 2
        planner.upsert_node(node("late", model="H100"))
        assert (planner.quota_room("team-a", "A100"), planner.quota_room("team-a", "H100")) == (8, 2)
        planner.upsert_pod(PodUsage("r", "h", 4, 1000, GIB, "team-a"))
        assert planner.queue_usage("team-a") == {"H100": 4}
        planner.remove_pod("r")
        planner.remove_pod("r")
        assert planner.queue_usage("team-a") == {}

    def test_a_replica_on_a_node_that_is_gone_is_charged_as_before(self):
        planner = hall(node("h"), quota={"H100": 8, "Any": 8})
        planner.upsert_pod(PodUsage("r", "h", 4, 1000, GIB, "team-a"))
        planner.remove_node("h")
        planner.upsert_pod(PodUsage("r", "h", 2, 1000, GIB, "team-a"))
        assert planner.queue_usage("team-a") == {"H100": 2}

    def test_a_limit_lowered_below_use_is_no_error(self):
        planner = hall(node("a"), quota={"Any": 8})
        decide(planner, gang("j", gpus=6))
        planner.upsert_queue(QueueState("team-a", {"Any": 4}))
        assert planner.quota_room("team-a") == 0
        assert "0 of 4 GPUs of quota left; 6 in use by 1 job" in decide(planner, gang("k"))["k"].message

    def test_a_queue_deleted_and_made_again_still_counts_what_it_holds(self):
        planner = hall(node("a"), quota={"Any": 4})
        decide(planner, gang("j", gpus=3))
        planner.remove_queue("team-a")
        assert reasons(decide(planner, gang("k", gpus=2))) == {"k": WaitReason.QUEUE_NOT_FOUND}
        planner.upsert_queue(QueueState("team-a", {"Any": 4}))
        assert reasons(decide(planner)) == {"k": WaitReason.QUOTA_EXCEEDED}

    def test_room_for_pods_counts_quota_and_hall(self):
        planner = hall(node("h"), node("a", model="A100"), quota={"H100": 4, "Any": 100})
        assert planner.room_for("team-a", gpus=2, cpu_milli=1000, memory_bytes=GIB) == 2 + 4
        assert planner.room_for("team-a", gpus=2, cpu_milli=1, memory_bytes=1, gpu_models=("H100",)) == 2
        assert planner.room_for("team-a", gpus=1, cpu_milli=1000, memory_bytes=500 * GIB) == 2 + 2
        assert planner.room_for("nobody", gpus=0, cpu_milli=96_000, memory_bytes=0) == 2
        assert planner.room_for("nobody", gpus=1, cpu_milli=0, memory_bytes=0) == 0
        assert planner.room_for("nobody", gpus=0, cpu_milli=0, memory_bytes=0, most=7) == 7


class TestMessages:
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
                "needs 2 x 8 GPUs (H100); queue team-a has 11 of 16 H100 GPUs of quota left; "
                "5 in use by 1 job and 1 replica",
            ),
            (
                gang("j", gpus=8, models=("A100",)),
                WaitReason.INSUFFICIENT_GPUS,
                "needs 8 GPUs (A100) on one node; the best node has 6 free (hall: 6 of 8 free)",
            ),
            (
                gang("j", 4, 2, models=("A100",)),
                WaitReason.INSUFFICIENT_GPUS,
                "needs 4 x 2 GPUs (A100) at once, and 3 of 4 workers fit now; the best node has 6 free "
                "(hall: 6 of 8 free)",
            ),
            (
                gang("j", gpus=1, cpu=90, models=("A100",)),
                WaitReason.INSUFFICIENT_RESOURCES,
                "needs 1 GPU (A100) with 90 CPU and 1 GiB on one node; nodes with enough free GPUs have at most "
                "86 CPU and 1018 GiB free",
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
                "can never fit: needs 3 x 8 GPUs (H100), 24 together; the whole quota of queue team-a is 16 H100 "
                "GPUs: lower workers or raise it",
            ),
            (
                gang("j", gpus=8, models=("A100",), avoid=("a0",)),
                WaitReason.INSUFFICIENT_GPUS,
                "needs 8 GPUs (A100); each node that could hold it is cordoned or not ready, or avoided by this "
                "job (1)",
            ),
        ],
        ids=lambda value: str(value) if isinstance(value, WaitReason) else "",
    )
    def test_every_refusal_has_numbers(self, request_, reason, message):
        planner = hall(
            *(node(f"h{i}") for i in range(4)),
            node("a0", model="A100"),
            quota={"H100": 16, "Any": 16},
            namespaces=frozenset({"team-a", "ml"}),
        )
        planner.hold(gang("held", gpus=2, cpu=10, memory=6, models=("A100",)), (Placement(0, "a0", "A100"),))
        planner.hold(gang("held-2", gpus=4, models=("H100",)), (Placement(0, "h0", "H100"),))
        for i in range(4):
            planner.upsert_pod(
                PodUsage(f"r{i}", f"h{i}", i == 0, 4500 + 3000 * (i > 0), GIB, "team-a" if i == 0 else None)
            )
        wait = decide(planner, request_)["j"]
        assert (wait.reason, wait.message) == (reason, message)
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
        planner = Planner()
        assert decide(planner, gang("j"))["j"].message == (
            'there is no queue "team-a" and no other queue either; create it'
        )

    def test_explain_follows_a_gang_through_its_life(self):
        planner = hall(node("a"))
        assert planner.explain("j") == "not known to the planner: neither waiting nor held"
        planner.submit(gang("j", 2, 4))
        assert planner.explain("j") == "team-a/j is in line in queue team-a and not examined yet"
        planner.cycle(1.0)
        assert planner.explain("j") == "team-a/j holds 2 x 4 GPUs of queue team-a on a"


class TestLife:
    def test_nothing_changed_nothing_said(self):
        planner = hall(node("a"))
        assert reasons(decide(planner, gang("j", gpus=8), gang("k", created=1))) == {
            "j": "admitted",
            "k": WaitReason.INSUFFICIENT_GPUS,
        }
        planner.submit(gang("k", created=1))
        planner.submit(gang("j", gpus=8))
        planner.upsert_node(node("a"))
        planner.upsert_queue(QueueState("team-a", {"Any": 1000}))
        planner.remove_node("nobody")
        planner.remove_pod("nobody")
        planner.remove_queue("nobody")
        planner.withdraw("nobody")
        planner.requeue("nobody")
        assert planner.cycle(200.0) == []

    def test_withdraw_frees_and_forgets_wherever_the_gang_is(self):
        planner = hall(node("a"))
        decide(planner, gang("j", gpus=8), gang("k", gpus=8, created=1), gang("l", gpus=8, created=2))
        planner.withdraw("k")
        assert not planner.is_waiting("k")
        planner.withdraw("j")
        assert decide(planner) == {"l": ["a"]}
        assert planner.queue_counts("team-a") == QueueCounts(waiting=0, held=1)

    def test_requeue_keeps_priority_and_age(self):
        planner = hall(node("a"))
        decide(planner, gang("old", gpus=8, created=1))
        decide(planner, gang("young", gpus=8, created=2))
        planner.requeue("old")
        assert planner.is_waiting("old")
        planner.submit(gang("old", gpus=8, created=1, avoid=("a",)))
        assert reasons(decide(planner)) == {"old": WaitReason.INSUFFICIENT_GPUS, "young": "admitted"}

    def test_a_gang_is_changed_in_line_and_left_alone_when_held(self):
        planner = hall(node("a", 4))
        decide(planner, gang("j", gpus=4), gang("k", created=1))
        planner.submit(gang("k", created=1, priority=5))
        planner.submit(gang("j", gpus=1))
        assert planner.queue_usage("team-a") == {"H100": 4}
        planner.submit(gang("l", priority=9, created=9))
        assert list(reasons(decide(planner))) == ["l", "k"]

    @pytest.mark.parametrize(
        "change", [{"workers": 0}, {"gpus": -1}, {"cpu_milli": -1}, {"memory_bytes": -1}]
    )
    def test_nonsense_is_refused(self, change):
        with pytest.raises(ValueError, match="workers must be at least 1"):
            Planner().submit(replace(gang("j"), **change))

    def test_hold_takes_what_is_already_so(self):
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

    def test_room_that_appears_starts_who_waits(self):
        planner = hall(node("a"))
        planner.upsert_pod(PodUsage("x", "a", 4, 0, 0))
        assert reasons(decide(planner, gang("j", gpus=8))) == {"j": WaitReason.INSUFFICIENT_GPUS}
        planner.upsert_pod(PodUsage("x", "a", 2, 0, 0))
        assert isinstance(decide(planner)["j"], Wait)
        planner.remove_pod("x")
        assert decide(planner)["j"] == ["a"]
