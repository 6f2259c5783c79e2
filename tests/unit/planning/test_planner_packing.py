"""Where gangs go: the fullest node that holds a worker, one model, whole and shared GPUs, and no more than there is."""

from collections import Counter

import pytest

from datahall.planning import Level, Placement, Planner, PodUsage, WaitReason
from tests.unit.planning.planners import decide, gang, hall, node, queue, reasons


class TestNodes:
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

    def test_cpu_and_memory_are_hard_limits(self):
        planner = hall(node("a", cpu=4), node("b", memory=10), node("c", cpu=8, memory=100))
        assert decide(planner, gang("j", gpus=1, cpu=8, memory=50))["j"] == ["c"]

    def test_work_without_gpus_avoids_gpu_nodes_while_others_have_room(self):
        planner = hall(node("gpu", cpu=4), node("cpu-1", 0, cpu=16), node("cpu-2", 0, cpu=8))
        assert sorted(decide(planner, gang("j", 3, 0, cpu=8))["j"]) == ["cpu-1", "cpu-1", "cpu-2"]
        planner = hall(node("gpu", cpu=8), node("cpu-1", 0, cpu=16), node("cpu-2", 0, cpu=8))
        assert sorted(decide(planner, gang("j", 4, 0, cpu=8))["j"]) == ["cpu-1", "cpu-1", "cpu-2", "gpu"]

    def test_cordoned_and_avoided_nodes_are_left_out(self):
        planner = hall(node("a", schedulable=False), node("b"), node("c"))
        assert decide(planner, gang("j", avoid=("b", "gone")))["j"] == ["c"]

    def test_all_or_nothing(self):
        planner = hall(node("a"), node("b"))
        planner.upsert_pod(PodUsage("x", "a", 1, 0, 0))
        assert reasons(decide(planner, gang("j", 2, 8))) == {"j": WaitReason.INSUFFICIENT_GPUS}
        assert planner.queue_usage("team-a") == {}
        assert planner.held("j") is None

    @pytest.mark.parametrize("arrivals", [1, 200], ids=["by fullness", "by what was learned"])
    def test_small_work_keeps_off_untouched_racks(self, arrivals):
        planner = hall(*(node(f"{r}{i}", rack=r) for r in "abc" for i in range(4)))
        for i in range(arrivals):
            planner.submit(gang(f"seen-{i}", gpus=8))
            planner.withdraw(f"seen-{i}")
        placed = [decide(planner, gang(f"j{i}", gpus=4, created=i))[f"j{i}"] for i in range(8)]
        assert {name[0] for (name,) in placed} == {"a"}
        assert Counter(name for (name,) in placed) == {f"a{i}": 2 for i in range(4)}


@pytest.mark.parametrize("arrivals", [1, 200], ids=["by fullness", "by what was learned"])
class TestWatts:
    """Of places that are equal otherwise, the one whose GPUs have the lowest cap."""

    def learned(self, arrivals, *nodes):
        planner = hall(*nodes)
        for i in range(arrivals):
            planner.submit(gang(f"seen-{i}", gpus=8))
            planner.withdraw(f"seen-{i}")
        return planner

    def test_the_lowest_cap_of_equal_nodes_comes_first(self, arrivals):
        nodes = (node("a", watts=700), node("b", watts=500), node("c", watts=501))
        planner = self.learned(arrivals, *nodes)
        placed = [decide(planner, gang(f"j{i}", gpus=8, created=i))[f"j{i}"] for i in range(3)]
        assert placed == [["b"], ["c"], ["a"]]

    def test_a_cap_that_nobody_knows_is_taken_for_the_highest(self, arrivals):
        planner = self.learned(arrivals, node("a"), node("b", watts=700))
        assert decide(planner, gang("j", gpus=2))["j"] == ["b"]

    def test_watts_never_outweigh_packing(self, arrivals):
        planner = self.learned(arrivals, node("a", watts=100), node("b", watts=90_000))
        planner.upsert_pod(PodUsage("x", "b", 6, 0, 0))
        assert decide(planner, gang("j", gpus=2))["j"] == ["b"]
        assert decide(planner, gang("whole", gpus=8))["whole"] == ["a"]

    def test_caps_that_change_count_at_once(self, arrivals):
        planner = self.learned(arrivals, node("a", watts=400), node("b", watts=500))
        assert decide(planner, gang("one", gpus=8))["one"] == ["a"]
        planner.withdraw("one")
        planner.upsert_node(node("a", watts=600))
        assert decide(planner, gang("two", gpus=8))["two"] == ["b"]

    def test_a_share_opens_the_gpu_with_the_lowest_cap(self, arrivals):
        planner = self.learned(arrivals, node("a", watts=700), node("b", watts=500))
        assert decide(planner, gang("share", gpu_milli=500))["share"] == ["b"]


class TestModels:
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

    @pytest.mark.parametrize(
        ("a100", "h100", "found"), [(400, 700, "a"), (700, 400, "h"), (0, 700, "h"), (0, 0, "a")]
    )
    def test_of_models_that_it_fits_as_well_the_one_with_the_lowest_cap(self, a100, h100, found):
        nodes = (node("a", model="A100", watts=a100), node("h", watts=h100))
        assert decide(hall(*nodes), gang("j", 2, 4))["j"] == [found, found]

    def test_gpus_without_a_model_serve_those_who_ask_for_none(self):
        planner = hall(node("a", model=""))
        assert reasons(decide(planner, gang("i", models=("H100",)), gang("j"))) == {
            "i": WaitReason.NEVER_FITS,
            "j": "admitted",
        }
        assert planner.queue_usage("team-a") == {"": 1}

    def test_the_second_model_is_taken_when_quota_or_room_of_the_first_is_used_up(self):
        nodes = node("h"), node("a", model="A100")
        by_quota = hall(*nodes, quota={"H100": 2, "A100": 8})
        assert decide(by_quota, gang("j", gpus=4, models=("H100", "A100")))["j"] == ["a"]
        by_room = hall(*nodes)
        by_room.upsert_pod(PodUsage("x", "h", 5, 0, 0))
        assert decide(by_room, gang("j", gpus=4, models=("H100", "A100")))["j"] == ["a"]


class TestElastic:
    @pytest.mark.parametrize(
        ("nodes", "taken", "quota", "workers"),
        [
            (4, 0, 1000, 4),
            (4, 16, 1000, 2),
            (4, 17, 1000, None),
            (4, 0, 24, 3),
            (4, 0, 23, 2),
            (4, 0, 15, None),
            (4, 8, 16, 2),
            (2, 0, 1000, 2),
            (1, 0, 1000, None),
        ],
    )
    def test_it_starts_with_what_fits_from_its_minimum_up(self, nodes, taken, quota, workers):
        planner = hall(*(node(f"n{i}") for i in range(nodes)), quota=quota)
        for i in range(0, taken, 8):
            planner.upsert_pod(PodUsage(f"x{i}", f"n{i // 8}", min(8, taken - i), 0, 0))
        found = decide(planner, gang("j", 4, 8, min_workers=2))["j"]
        assert (len(found) if isinstance(found, list) else None) == workers
        assert planner.queue_usage("team-a") == ({"H100": 8 * workers} if workers else {})

    def test_it_takes_what_is_left_before_those_behind_it(self):
        planner = hall(node("a"), quota=8)
        found = decide(planner, gang("j", 6, 1, min_workers=1), gang("k", 4, 1, min_workers=1, created=1))
        assert {key: len(nodes) for key, nodes in found.items()} == {"j": 6, "k": 2}

    def test_a_wider_level_must_bring_a_quarter_more_workers(self):
        planner = hall(*(node(f"{r}{i}", rack=r) for r in "ab" for i in range(5)))
        for i in range(4):
            planner.upsert_pod(PodUsage(f"x{i}", f"b{i}", 8, 0, 0))
        found = decide(planner, gang("j", 7, 8, min_workers=2, level=Level.RACK))["j"]
        assert found == ["a0", "a1", "a2", "a3", "a4"]
        planner.withdraw("j")
        planner.remove_pod("x3")
        assert len(decide(planner, gang("j", 7, 8, min_workers=2, level=Level.RACK))["j"]) == 7


class TestTopology:
    @pytest.fixture
    def racks(self):
        """Two racks of three nodes in a block and one of three in another; two nodes of rack a are taken."""
        planner = hall(
            *(node(f"a{i}", rack="a", block="x") for i in range(3)),
            *(node(f"b{i}", rack="b", block="x") for i in range(3)),
            *(node(f"c{i}", rack="c", block="y") for i in range(3)),
        )
        planner.upsert_pod(PodUsage("p", "a0", 8, 0, 0))
        planner.upsert_pod(PodUsage("q", "a1", 8, 0, 0))
        return planner

    @pytest.mark.parametrize(
        ("workers", "level", "required", "where"),
        [
            (1, Level.RACK, True, "a2"),
            (2, Level.RACK, True, "b0 b1"),
            (3, Level.RACK, True, "b0 b1 b2"),
            (4, Level.RACK, True, None),
            (4, Level.RACK, False, "a2 b0 b1 b2"),
            (4, Level.BLOCK, True, "a2 b0 b1 b2"),
            (5, Level.BLOCK, True, None),
            (5, Level.BLOCK, False, "b0 b1 b2 c0 c1"),
            (7, Level.HALL, True, "a2 b0 b1 b2 c0 c1 c2"),
            (2, Level.HOST, False, "b0 b1"),
        ],
    )
    def test_one_domain_where_it_is_required_or_fits(self, racks, workers, level, required, where):
        found = decide(racks, gang("j", workers, 8, level=level, required=required))["j"]
        if where is None:
            assert found.reason in (WaitReason.NO_ONE_DOMAIN, WaitReason.NEVER_FITS)
        else:
            assert " ".join(found) == where

    def test_a_host_that_is_required_holds_all_workers(self):
        planner = hall(node("a"), node("b"))
        planner.upsert_pod(PodUsage("p", "a", 5, 0, 0))
        assert decide(planner, gang("j", 4, 1, level=Level.HOST, required=True))["j"] == ["b"] * 4
        found = decide(planner, gang("k", 5, 1, level=Level.HOST, required=True))["k"]
        assert found.reason == WaitReason.NO_ONE_DOMAIN

    def test_it_is_told_how_it_is_spread(self, racks):
        racks.submit(gang("j", 4, 8, level=Level.RACK))
        (start,) = racks.cycle(1.0)
        assert start.spread == "on 2 racks of 1 block; one rack was preferred"
        racks.submit(gang("k", 3, 8, level=Level.RACK))
        (start,) = racks.cycle(2.0)
        assert start.spread == "on one rack"


class TestShares:
    def cards(self, planner, count):
        return Counter(
            (place.node, place.card) for i in range(count) for place in planner.held(f"s{i}") or ()
        )

    def test_sixteen_halves_on_a_node_of_eight_are_two_on_each_gpu(self):
        planner = hall(node("a"))
        found = decide(planner, *(gang(f"s{i}", gpu_milli=500, created=i) for i in range(17)))
        assert set(reasons(found).values()) == {"admitted", WaitReason.INSUFFICIENT_GPUS}
        assert self.cards(planner, 17) == {("a", card): 2 for card in range(8)}
        assert planner.queue_usage("team-a") == {"H100": 8}

    def test_one_gang_of_sixteen_halves_likewise(self):
        planner = hall(node("a"))
        decide(planner, gang("s0", 16, gpu_milli=500))
        assert self.cards(planner, 1) == {("a", card): 2 for card in range(8)}

    @pytest.mark.parametrize("whole_first", [True, False])
    def test_whole_and_shared_never_meet_on_a_gpu(self, whole_first):
        planner = hall(node("a"))
        halves = [gang(f"s{i}", gpu_milli=400, created=i) for i in range(3)]
        wholes = [gang(f"w{i}", gpus=6 if i == 0 else 1, created=i) for i in range(2)]
        found = {}
        for each in (*wholes, *halves) if whole_first else (*halves, *wholes):
            found |= decide(planner, each)
        # Three shares of 0.4 take two GPUs, a gang of six the other six; nothing is left for the last.
        if whole_first:
            assert reasons(found)["s2"] == WaitReason.INSUFFICIENT_GPUS
            assert len(self.cards(planner, 3)) == 1
        else:
            assert reasons(found)["w1"] == WaitReason.INSUFFICIENT_GPUS
            assert len(self.cards(planner, 3)) == 2

    @pytest.mark.parametrize(
        ("shares", "cards"),
        [
            ((300, 800, 600, 100), (0, 1, 0, 0)),
            ((300, 800, 600, 200), (0, 1, 0, 1)),
            ((300, 800, 600, 300), (0, 1, 0, 2)),
            ((600, 600, 600, 400, 400, 400), (0, 1, 2, 0, 1, 2)),
        ],
    )
    def test_a_share_goes_to_the_fullest_open_gpu_that_holds_it_else_to_a_fresh_one(self, shares, cards):
        planner = hall(node("a"))
        for i, milli in enumerate(shares):
            decide(planner, gang(f"s{i}", gpu_milli=milli, created=i))
        assert tuple(planner.held(f"s{i}")[0].card for i in range(len(shares))) == cards

    def test_a_share_opens_no_gpu_of_another_node_while_one_is_open(self):
        planner = hall(node("a"), node("b"))
        planner.upsert_pod(PodUsage("x", "b", 7, 0, 0))
        planner.hold(gang("s0", gpu_milli=500), (Placement(0, "a", "H100", 0),))
        assert decide(planner, gang("s1", gpu_milli=500))["s1"] == ["a"]
        assert planner.held("s1")[0].card == 0
        assert decide(planner, gang("s2", gpu_milli=500))["s2"] == ["b"]

    def test_a_gpu_is_whole_again_once_its_last_share_has_left(self):
        planner = hall(node("a"))
        decide(planner, gang("s0", gpu_milli=500), gang("s1", gpu_milli=500))
        assert reasons(decide(planner, gang("w", gpus=8))) == {"w": WaitReason.INSUFFICIENT_GPUS}
        planner.withdraw("s0")
        assert decide(planner) == {}
        planner.withdraw("s1")
        assert decide(planner)["w"] == ["a"]

    def test_shares_are_charged_as_parts_of_a_gpu(self):
        planner = hall(node("a"), quota=2)
        found = decide(planner, *(gang(f"s{i}", gpu_milli=300, created=i) for i in range(8)))
        assert Counter(reasons(found).values()) == {"admitted": 6, WaitReason.QUOTA_EXCEEDED: 2}
        assert planner.queue_usage("team-a") == {"H100": 2}
        assert planner.quota_room("team-a") == 0

    @pytest.mark.parametrize(
        ("gpus", "milli", "told"),
        [(2, 500, "gpu_milli is 500 with 2 GPUs"), (1, 0, "gpu_milli is 0"), (1, 1001, "gpu_milli is 1001")],
    )
    def test_only_one_gpu_can_be_shared(self, gpus, milli, told):
        with pytest.raises(ValueError, match=told):
            Planner().submit(gang("j", gpus=gpus, gpu_milli=milli))


def test_each_queue_may_use_the_whole_hall_that_its_quota_grants():
    planner = hall(node("a"), node("b"), queues=[queue("team-b", 8)])
    found = decide(planner, gang("j", gpus=8), gang("k", gpus=8, queue="team-b"))
    assert sorted(name for (name,) in found.values()) == ["a", "b"]


class TestSpread:
    def replicas(self, planner, number, **more):
        for i in range(number):
            decide(planner, gang(f"r{i}", spread_with="ns/svc", preemptible=False, created=i, **more))
        nodes = [planner.held(f"r{i}")[0].node for i in range(number)]
        return sorted((nodes.count(name) for name in set(nodes)), reverse=True)

    def test_no_node_holds_more_than_half_of_a_service(self):
        assert self.replicas(hall(node("a"), node("b"), node("c")), 2) == [1, 1]
        assert max(self.replicas(hall(node("a"), node("b"), node("c")), 6)) == 3

    def test_the_rest_is_packed(self):
        assert len(self.replicas(hall(*(node(f"n{i}") for i in range(6))), 6)) <= 3

    def test_where_there_is_one_node_it_takes_them_all(self):
        assert self.replicas(hall(node("a")), 4) == [4]

    def test_others_are_packed_as_before(self):
        planner = hall(node("a"), node("b"))
        decide(planner, gang("x"), gang("y", created=1))
        assert planner.held("x")[0].node == planner.held("y")[0].node


def test_a_pod_on_a_node_that_is_not_known_yet_stops_no_start_where_caps_differ():
    planner = hall(node("a", watts=700), node("b", watts=400))
    assert decide(planner, gang("j", gpus=1))["j"] == ["b"]
    planner.upsert_pod(PodUsage("p", "later", 0, 0, 0))
    assert decide(planner, gang("k", gpus=1))["k"] == ["b"]
