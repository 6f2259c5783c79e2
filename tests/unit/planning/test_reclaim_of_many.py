"""Many take back at once what was borrowed: each ends just those that it needs, and gets what was freed for it."""

import random

import pytest

from datahall.planning import Admit, Evict, Level
from tests.unit.planning.planners import decide, gang, hall, node, queue

PARENTS = [queue("all", 0), queue("borrower", 0, parent="all")]


def borrowed(nodes, *owners):
    """A hall that is full of one-GPU jobs, b0, b1 and so on, of a queue that owns nothing; its owners share it."""
    owners = owners or ("owner",)
    tree = [*PARENTS, *(queue(name, 8 * nodes // len(owners), parent="all") for name in owners)]
    planner = hall(*(node(f"n{i}") for i in range(nodes)), queues=tree)
    jobs = [gang(f"b{i}", queue="borrower", namespace="borrower") for i in range(8 * nodes)]
    assert all(isinstance(places, list) for places in decide(planner, *jobs, at=0.0).values())
    return planner


def played(planner, order, *, at=101.0, cycles=400):
    """Those who were told to end go one by one in an order of chance; who ended for whom, and who started when."""
    ended, started, leaving = {}, [], []
    for cycle in range(cycles):
        decisions = planner.cycle(at + cycle)
        for decision in decisions:
            if isinstance(decision, Evict):
                ended[decision.key] = decision.preemptor
                leaving.append(decision.key)
            elif isinstance(decision, Admit):
                started.append(decision.key)
        if not leaving and not decisions:
            break
        if leaving:
            planner.requeue(leaving.pop(order.randrange(len(leaving))))
    return ended, started


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("workers", "gpus", "count"), [(1, 1, 24), (3, 5, 2), (2, 8, 3), (1, 3, 7)])
def test_no_more_end_than_are_asked_for_and_all_start(workers, gpus, count, seed):
    planner = borrowed(6)
    asked = [gang(f"o{i}", workers, gpus, queue="owner", created=50 + i) for i in range(count)]
    for each in asked:
        planner.submit(each)
    ended, started = played(planner, random.Random(seed))
    assert sorted(started) == sorted(each.key for each in asked), "nobody else comes back in between"
    assert len(ended) == workers * gpus * count


def test_one_cycle_has_others_end_for_all_of_a_kind():
    planner = borrowed(4)
    found = decide(planner, *(gang(f"o{i}", queue="owner", created=50 + i) for i in range(20)))
    ended = [each.preemptor for each in found.values() if isinstance(each, Evict)]
    assert sorted(ended) == sorted(f"o{i}" for i in range(20)), "one for each, and each its own"


def test_queues_take_turns_where_one_cycle_is_not_enough(monkeypatch):
    planner = borrowed(4, "owner", "second")
    monkeypatch.setattr("datahall.planning.preempting.ENTRIES_PER_CYCLE", 10 * 32)
    asked = [
        gang(f"{name}-{i}", queue=name, created=50 + i) for name in ("owner", "second") for i in range(12)
    ]
    found = decide(planner, *asked)
    ended = [each.preemptor for each in found.values() if isinstance(each, Evict)]
    assert [sum(name.startswith(of) for name in ended) for of in ("owner", "second")] == [5, 5]
    assert planner.more, "the next cycle is due at once"
    again = decide(planner, at=100.1)
    assert sum(isinstance(each, Evict) for each in again.values()) == 10, (
        "the rest is left to the next, at once"
    )


def test_who_has_its_room_starts_while_others_on_the_node_still_wait():
    planner = borrowed(1)
    found = decide(planner, *(gang(f"o{i}", queue="owner", created=50 + i) for i in range(3)))
    first, *_ = [key for key, each in found.items() if isinstance(each, Evict)]
    planner.requeue(first)
    decisions = planner.cycle(101.0)
    assert [each.key for each in decisions if isinstance(each, Admit)] == ["o0"]
    assert not any(isinstance(each, Evict) for each in decisions)


def test_quota_that_is_held_for_others_does_not_keep_anybody_from_what_was_freed_for_it():
    """The room of the second is there first; the first, with a node to itself, waits on."""
    planner = borrowed(2)
    wants = [
        gang("first", gpus=8, queue="owner", created=50, level=Level.HOST, required=True),
        gang("second", gpus=2, queue="owner", created=51),
    ]
    found = decide(planner, *wants)
    for key, each in found.items():
        if isinstance(each, Evict) and each.preemptor == "second":
            planner.requeue(key)
    started = [each.key for each in planner.cycle(101.0) if isinstance(each, Admit)]
    assert started == ["second"]


def test_what_leaves_already_counts_as_given_back():
    """The borrower owns 4 of its 8: once 4 leave, the rest is its own, whatever room somebody lacks."""
    tree = [queue("all", 0), queue("borrower", 4, parent="all"), queue("owner", 12, parent="all")]
    planner = hall(node("n0"), node("n1", schedulable=False), queues=tree)
    decide(planner, *(gang(f"b{i}", queue="borrower") for i in range(8)), at=0.0)
    found = decide(planner, gang("o0", gpus=4, queue="owner", created=50))
    assert sum(isinstance(each, Evict) for each in found.values()) == 4
    found = decide(planner, gang("o1", gpus=4, queue="owner", created=51))
    assert not any(isinstance(each, Evict) for each in found.values())
