"""What users of other schedulers complained about, replayed on the planner in virtual time: each must not happen here.

The numbers are those of the issues: kubernetes-sigs/kueue, kai-scheduler/KAI-Scheduler, volcano-sh/volcano.
"""

from dataclasses import replace

import pytest

from datahall.planning import Admit, Evict, Limits, Placement, QueueState, Wait, WaitReason
from datahall.planning.types import Level
from tests.unit.planning.planners import decide, gang, hall, node, queue, reasons, started


class Time:
    """Virtual time around a planner: gangs run for as long as told, and take their grace to leave when ended."""

    def __init__(self, planner, *, run=None, grace=5.0):
        self.planner = planner
        self.run = run or {}
        self.grace = grace
        self.now = 0.0
        self.ends = {}
        self.gone = {}
        self.started = []
        self.evicted = []

    def cycle(self):
        decisions = self.planner.cycle(self.now)
        for decision in decisions:
            match decision:
                case Admit(key):
                    self.started.append(key)
                    if key in self.run:
                        self.ends[key] = self.now + self.run[key]
                case Evict(key):
                    self.evicted.append(key)
                    self.ends.pop(key, None)
                    grace = self.grace[key] if isinstance(self.grace, dict) else self.grace
                    self.gone[key] = self.now + grace
        return decisions

    def step(self, seconds=1.0):
        self.now += seconds
        for key in [key for key, at in self.ends.items() if at <= self.now]:
            del self.ends[key]
            self.planner.withdraw(key)
        for key in [key for key, at in self.gone.items() if at <= self.now]:
            del self.gone[key]
            self.planner.requeue(key)
        return self.cycle()


def test_kueue_4329_quota_is_summed_and_nodes_are_not():
    """Two nodes have 4 free GPUs each, and quota says 8: a pod of 8 is not admitted, and does not block small jobs."""
    planner = hall(node("a", 4), node("b", 4), node("c", 8), quota=100)
    decide(planner, gang("busy", gpus=8))
    found = decide(
        planner, gang("big", gpus=8, created=1), gang("small", created=2), gang("too", 2, 4, created=3)
    )
    assert reasons(found) == {
        "big": WaitReason.INSUFFICIENT_GPUS,
        "small": "admitted",
        "too": WaitReason.INSUFFICIENT_GPUS,
    }
    assert found["small"] in (["a"], ["b"])


def test_kueue_5243_nobody_is_evicted_for_a_pod_that_cannot_run_then():
    """Four nodes of 8 with two low jobs each, one of which may not be ended: no 8-GPU node can be made."""
    nodes = [node(f"n{i}") for i in range(4)]
    planner = hall(*nodes)
    for i in range(4):
        stays = gang(f"stays{i}", gpus=4, priority=5)
        planner.hold(stays, (Placement(0, f"n{i}", "H100"),))
        planner.hold(gang(f"low{i}", gpus=4), (Placement(0, f"n{i}", "H100"),))
    found = decide(planner, gang("big", gpus=8, priority=3), gang("small", created=1))
    assert reasons(found) == {
        "big": WaitReason.INSUFFICIENT_GPUS,
        "small": WaitReason.INSUFFICIENT_GPUS,
    }
    assert "even with 4 jobs ended for it" in found["big"].blockers[-1].message


def test_kueue_5243_a_waiting_big_job_does_not_block_small_ones():
    """The 8-GPU pod waits for a node that long jobs hold; nodes that it does not need stay open."""
    planner = hall(*(node(f"n{i}") for i in range(4)))
    for i in range(4):
        planner.hold(gang(f"long{i}", gpus=6), (Placement(0, f"n{i}", "H100"),))
    found = decide(planner, gang("big", gpus=8), *(gang(f"one{i}", created=1 + i) for i in range(6)))
    admitted = [key for key in found if key.startswith("one") and not isinstance(found[key], Wait)]
    assert len(admitted) == 6, "three nodes have two GPUs each beside the one that is kept"


def test_kueue_1974_one_running_job_ends_and_not_all():
    planner = hall(*(node(f"n{i}") for i in range(10)))
    for i in range(10):
        planner.hold(gang(f"low{i}", gpus=8), (Placement(0, f"n{i}", "H100"),))
    found = decide(planner, gang("urgent", gpus=8, priority=9))
    assert sum(isinstance(d, Evict) for d in found.values()) == 1


def test_kueue_13797_no_thrash_when_victims_end_at_different_times():
    """The first victim leaves at once, the last after a minute: nobody takes the room, nobody else is ended."""
    planner = hall(*(node(f"n{i}") for i in range(4)))
    for i in range(4):
        planner.hold(gang(f"low{i}", gpus=8), (Placement(0, f"n{i}", "H100"),))
    time = Time(planner, grace={f"low{i}": 20.0 * i + 1 for i in range(4)})
    planner.submit(gang("big", 4, 8, priority=9))
    planner.submit(gang("sneaky", gpus=1, priority=1, created=1))
    time.cycle()
    while "big" not in time.started and time.now < 200:
        time.step()
    assert sorted(time.evicted) == [f"low{i}" for i in range(4)]
    assert time.started == ["big"]
    assert time.now < 70


def test_kueue_14723_domains_are_not_hopped():
    """Room appears in another rack while victims leave the chosen one: the gang starts once, and evicts once."""
    nodes = [node(f"r{r}n{i}", rack=f"r{r}", block="b") for r in range(3) for i in range(2)]
    planner = hall(*nodes)
    for r in range(3):
        for i in range(2):
            key = f"low{r}{i}"
            planner.hold(gang(key, gpus=8), (Placement(0, f"r{r}n{i}", "H100"),))
    time = Time(planner, grace=10.0)
    planner.submit(gang("big", 2, 8, priority=9, level=Level.RACK, required=True))
    time.cycle()
    victims = list(time.evicted)
    assert len(victims) == 2
    other = next(r for r in range(3) if f"low{r}0" not in victims)
    time.step()
    planner.withdraw(f"low{other}0")
    for _ in range(30):
        time.step()
    assert time.evicted == victims
    assert time.started[0] == "big"
    assert {place.node[:2] for place in planner.held("big")} == {f"r{victims[0][3]}"}


def test_kueue_8309_a_large_gang_does_not_starve():
    """A hall full of small jobs, a steady stream of them from a queue of their own, and one gang of the whole hall."""
    planner = hall(*(node(f"n{i}") for i in range(8)), queues=[queue("stream")])
    time = Time(planner, run={f"s{i}": 10.0 + i % 7 for i in range(5000)})
    for i in range(64):
        planner.submit(gang(f"s{i}", queue="stream"))
    time.cycle()
    planner.submit(gang("large", 8, 8, created=1.0))
    following = 64
    while "large" not in time.started and time.now < 300:
        for _ in range(5):
            planner.submit(gang(f"s{following}", queue="stream", created=2.0 + time.now))
            following += 1
        time.step()
    assert "large" in time.started
    assert time.now < 120


def test_kueue_9715_a_deep_queue_reaches_the_job_that_can_start():
    """Ten thousand jobs that cannot start stand before one that can: one pass gets there."""
    planner = hall(node("a"), node("l", 8, "L4"), quota={"H100": 8, "L4": 8})
    decide(planner, gang("busy", gpus=8, models=("H100",)))
    for i in range(10_000):
        planner.submit(gang(f"deep{i}", gpus=1 + i % 8, models=("H100",), created=float(i)))
    planner.submit(gang("can", models=("L4",), created=99_999.0))
    assert [d.key for d in planner.cycle(1.0) if isinstance(d, Admit)] == ["can"]


def test_kueue_13148_seven_hundred_candidates_and_the_fewest_end():
    """2,000 nodes, 700 candidates: the plan ends as few as it must, whatever there is to choose from."""
    planner = hall(*(node(f"n{i:04}", rack=f"r{i // 20:03}") for i in range(2000)), quota=100_000)
    for i in range(2000):
        low = i < 700
        planner.hold(gang(f"g{i:04}", gpus=8, priority=0 if low else 50), (Placement(0, f"n{i:04}", "H100"),))
    found = decide(planner, gang("urgent", 64, 8, priority=9))
    assert sum(isinstance(d, Evict) for d in found.values()) == 64


def test_kai_2153_sixteen_halves_on_eight_gpus():
    """16 pods of half a GPU on 8 GPUs fill them exactly, two on each."""
    planner = hall(node("a"))
    decide(planner, *(gang(f"half{i:02}", gpu_milli=500, created=i) for i in range(16)))
    cards = [planner.held(f"half{i:02}")[0].card for i in range(16)]
    assert sorted(cards) == sorted([*range(8), *range(8)])
    assert reasons(decide(planner, gang("more", gpu_milli=300))) == {"more": WaitReason.INSUFFICIENT_GPUS}


def test_kai_2153_sixteen_halves_at_once_as_one_gang():
    planner = hall(node("a"))
    decide(planner, gang("halves", 16, gpu_milli=500))
    cards = [place.card for place in planner.held("halves")]
    assert sorted(cards) == sorted([*range(8), *range(8)])


def test_kai_848_a_gpu_is_whole_again_when_its_last_share_leaves():
    """Halves come and go for a while; then a job of 8 whole GPUs starts on the node."""
    planner = hall(node("a"))
    for round_ in range(5):
        keys = [f"h{round_}{i}" for i in range(5)]
        decide(planner, *(gang(key, gpu_milli=500) for key in keys))
        assert reasons(decide(planner, gang("all", gpus=8))).get("all") != "admitted"
        planner.withdraw("all")
        for key in keys:
            planner.withdraw(key)
    assert reasons(decide(planner, gang("all", gpus=8))) == {"all": "admitted"}


def test_kai_2075_a_doomed_bind_does_not_starve_the_rest():
    """A job whose node refuses it comes back avoiding that node; the others start meanwhile."""
    planner = hall(node("a", 1), node("b", 1))
    found = decide(planner, gang("doomed", priority=9))
    refused_by = found["doomed"][0]
    planner.requeue("doomed")
    planner.submit(gang("doomed", priority=9, avoid=(refused_by,)))
    found = decide(planner, gang("other", created=1))
    assert found["doomed"] != [refused_by]
    assert found["other"] == [refused_by]


@pytest.mark.parametrize("lost", [1, 2])
def test_volcano_5805_a_gang_heals_after_its_node_is_repaired(lost):
    """Nodes of a running gang are lost: it waits whole, never below its minimum, and starts when they are back."""
    planner = hall(node("a"), node("b"), node("c", 4))
    request = gang("gang", 2, 8)
    decide(planner, request)
    for name in ("a", "b")[:lost]:
        planner.remove_node(name)
    planner.requeue("gang")
    assert planner.cycle(200.0)[0].reason in (WaitReason.INSUFFICIENT_GPUS, WaitReason.NEVER_FITS)
    for name in ("a", "b")[:lost]:
        planner.upsert_node(node(name))
    assert isinstance(planner.cycle(201.0)[0], Admit)
    assert len(planner.held("gang")) == 2


def test_volcano_4607_gangs_end_whole():
    """One GPU is missing: a gang of 4 on four nodes ends with all its workers, not with one of them."""
    planner = hall(*(node(f"n{i}") for i in range(4)))
    planner.hold(gang("low", 4, 8), tuple(Placement(i, f"n{i}", "H100") for i in range(4)))
    found = decide(planner, gang("urgent", priority=9))
    assert isinstance(found["low"], Evict)
    assert planner.is_leaving("low")
    planner.requeue("low")
    assert reasons(decide(planner)) == {"urgent": "admitted", "low": WaitReason.INSUFFICIENT_GPUS}


def test_volcano_4607_the_job_that_ends_is_the_one_that_costs_least():
    planner = hall(node("a"), node("b"))
    for key, name in (("old", "a"), ("young", "b")):
        planner.hold(gang(key, gpus=8), (Placement(0, name, "H100"),))
    time = Time(planner)
    time.step(1000.0)
    started(planner, "old", at=0.0, saved=990.0)
    started(planner, "young", at=0.0, saved=10.0)
    planner.submit(gang("urgent", gpus=8, priority=1))
    time.cycle()
    assert time.evicted == ["old"], "it loses ten seconds, the other a quarter of an hour"


def test_two_teams_borrow_and_give_back():
    """A team uses the other's idle quota, and gives back just what is asked for when the other comes."""
    teams = [
        QueueState("all", {}),
        QueueState("red", {"Any": Limits(16)}, parent="all"),
        QueueState("blue", {"Any": Limits(16)}, parent="all"),
    ]
    planner = hall(*(node(f"n{i}") for i in range(4)), queues=teams)
    time = Time(planner)
    for i in range(4):
        planner.submit(gang(f"red{i}", gpus=8, queue="red", created=i))
    time.cycle()
    assert len(time.started) == 4
    planner.submit(gang("blue0", gpus=8, queue="blue", priority=-5))
    for _ in range(10):
        time.step()
    assert len(time.evicted) == 1
    assert "blue0" in time.started
    assert planner.waiting(time.evicted[0]).reason == WaitReason.QUOTA_EXCEEDED
    planner.submit(gang("blue1", gpus=8, queue="blue"))
    for _ in range(10):
        time.step()
    assert len(time.evicted) == 2
    planner.submit(gang("blue2", gpus=8, queue="blue", priority=-5))
    for _ in range(10):
        time.step()
    assert len(time.evicted) == 2, "blue is at its nominal: from here on it would have to borrow itself"


def test_a_job_that_never_fits_says_so_at_once_and_stops_nobody():
    planner = hall(node("a"))
    found = decide(planner, gang("never", gpus=16, priority=9), gang("can", created=1))
    assert reasons(found) == {"never": WaitReason.NEVER_FITS, "can": "admitted"}


def test_labels_that_change_under_a_running_gang_take_nothing_away():
    planner = hall(node("a", rack="r1"), node("b", rack="r1"))
    request = gang("gang", 2, 8, level=Level.RACK, required=True)
    decide(planner, request)
    planner.upsert_node(node("b", rack="r2"))
    assert planner.cycle(1.0) == []
    assert len(planner.held("gang")) == 2
    planner.requeue("gang")
    assert planner.cycle(2.0)[0].reason == WaitReason.NEVER_FITS
    planner.upsert_node(replace(node("b", rack="r1")))
    assert isinstance(planner.cycle(3.0)[0], Admit)
