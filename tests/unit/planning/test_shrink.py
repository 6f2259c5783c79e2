"""Elastic gangs give up workers where that is cheaper than ending, and no more than is needed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning.candidates import Candidates
from datahall.planning.preemption import Hopeless, Plan, Pools, plan, plan_text
from datahall.planning.shrink import plan_with_shrinking
from tests.unit.planning.halls import Judge, asks, gang, halls, room


def shrinking(free, preemptor, gangs, allowed=None, **more):
    everyone = np.ones(len(gangs), dtype=np.bool_)
    return plan_with_shrinking(
        free, preemptor, gangs, everyone if allowed is None else np.array(allowed), **more
    )


def shrunk(found):
    return {gang.key: gang.workers for gang in found.shrunk}


@st.composite
def elastic_halls(draw):
    """A hall, some gangs of which have spare workers, and what a worker gives back to the pools."""
    free, preemptor, gangs, allowed, pools = draw(halls(most_gangs=7))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    made = []
    for g in gangs:
        spare = [
            (column, 1)
            for column, gpus in zip(g.columns.tolist(), g.amounts[0].tolist(), strict=True)
            for _ in range(int(rng.integers(0, gpus + 1)))
        ]
        places = {
            c: (gpus, cpu) for c, gpus, cpu in zip(g.columns.tolist(), *g.amounts.tolist(), strict=True)
        }
        made.append(
            gang(
                g.key,
                places,
                cost=round(g.lost_gpu_seconds),
                started=g.started_seconds,
                evictions=g.evictions,
                leaving=g.leaving,
                spare=spare if spare and rng.random() < 0.7 else None,
                spare_cost=int(rng.choice([0, 1, 4, 30])),
            )
        )
    worker_gives = None
    if pools is not None:
        # A worker cannot give more than its part of what the gang gives.
        spares = np.array([1 if g.spare is None else len(g.spare.columns) for g in made], dtype=np.int64)
        worker_gives = pools.gives // np.maximum(spares, 1).reshape(-1, 1)
    return free, preemptor, made, allowed, pools, worker_gives


@settings(deadline=None)
@given(elastic_halls())
def test_it_starts_the_preemptor_and_takes_nothing_in_vain(hall):
    free, preemptor, gangs, allowed, pools, gives = hall
    judge = Judge(free, preemptor, gangs, pools)
    found = shrinking(free, preemptor, gangs, allowed, pools=pools, worker_gives=gives)
    ending = plan(free, preemptor, Candidates.of(gangs, 2), allowed, pools=pools)
    if isinstance(found, Hopeless):
        assert isinstance(ending, Hopeless)
        return
    gone, smaller = set(found.victims), shrunk(found)
    by_key = dict(zip((g.key for g in gangs), gangs, strict=True))
    may = {g.key for g, ok in zip(gangs, allowed, strict=True) if ok and not g.leaving}
    assert gone | smaller.keys() <= may
    assert not gone & smaller.keys()
    assert judge.starts(gone, smaller.items(), gives)
    for key in gone:
        left = gone - {key}
        assert not judge.starts(left, smaller.items(), gives)
    for key, workers in smaller.items():
        assert workers
        for worker in workers:
            fewer = {**smaller, key: tuple(w for w in workers if w != worker)}
            assert not judge.starts(gone, fewer.items(), gives), f"worker {worker} of {key} leaves in vain"
    cost = sum(by_key[key].cost_gpu_seconds for key in gone)
    cost += sum(round(by_key[key].spare.cost_gpu_seconds) for key in smaller)
    assert found.cost_gpu_seconds == cost
    assert isinstance(ending, Plan), "shrinking frees no more than ending"
    assert cost <= ending.cost_gpu_seconds


def elastic(key, places, spare, *, cost=100, spare_cost=10, **more):
    return gang(key, places, cost=cost, spare=spare, spare_cost=spare_cost, **more)


def test_it_shrinks_where_that_is_cheaper_and_by_no_more_than_needed():
    gangs = [elastic("e", {0: 8, 1: 8}, [(1, 2), (1, 2), (1, 2), (0, 2)]), gang("rigid", {2: 8}, cost=50)]
    found = shrinking(room(0, 0, 0), asks(1, 4, columns=3), gangs)
    assert found.victims == ()
    assert shrunk(found) == {"e": (0, 1)}
    assert found.cost_gpu_seconds == 10
    assert found.freed.tolist() == [4, 0]
    assert (found.columns.tolist(), found.workers.tolist()) == ([1], [1])
    assert plan_text(found) == "takes 2 workers from 1 job (e); 1 node held for 1 worker"


def test_it_ends_where_shrinking_is_dearer():
    gangs = [elastic("e", {0: 8}, [(0, 4)], cost=100, spare_cost=60), gang("rigid", {1: 8}, cost=50)]
    found = shrinking(room(0, 0), asks(1, 4, columns=2), gangs)
    assert (found.victims, found.shrunk) == (("rigid",), ())
    dear = [elastic("e", {0: 8}, [(0, 4)], cost=20, spare_cost=60)]
    assert shrinking(room(0), asks(1, 4, columns=1), dear).victims == ("e",)


def test_it_ends_where_shrinking_is_not_enough():
    gangs = [elastic("e", {0: 8}, [(0, 2)], cost=100, spare_cost=1)]
    assert shrinking(room(0), asks(1, 4, columns=1), gangs).victims == ("e",)


def test_one_shrinks_and_another_ends():
    gangs = [elastic("e", {0: 8}, [(0, 4)], cost=100, spare_cost=5), gang("rigid", {1: 8}, cost=50)]
    found = shrinking(room(0, 0), asks(2, 4, columns=2), gangs)
    assert found.victims == ("rigid",)
    assert found.shrunk == ()
    # The rigid gang alone makes room for both workers; a third needs the elastic one, which then only shrinks.
    found = shrinking(room(0, 0), asks(3, 4, columns=2), gangs)
    assert (found.victims, shrunk(found), found.cost_gpu_seconds) == (("rigid",), {"e": (0,)}, 55)


def test_a_gang_that_may_not_be_ended_may_still_be_shrunk():
    gangs = [elastic("e", {0: 8}, [(0, 4)])]
    nobody, all_ = np.array([False]), np.array([True])
    assert isinstance(shrinking(room(0), asks(1, 4, columns=1), gangs, nobody), Hopeless)
    found = shrinking(room(0), asks(1, 4, columns=1), gangs, nobody, may_shrink=all_)
    assert shrunk(found) == {"e": (0,)}
    no = shrinking(room(0), asks(1, 8, columns=1), gangs, nobody, may_shrink=all_)
    assert isinstance(no, Hopeless)
    assert no.fitting_at_most == 0


def test_what_leaves_is_neither_ended_nor_shrunk():
    gangs = [elastic("e", {0: 8}, [(0, 4)], leaving=True), elastic("f", {1: 8}, [(1, 4)])]
    found = shrinking(room(0, 0), asks(1, 8, columns=2), gangs)
    assert (found.victims, found.shrunk, found.waits_for) == ((), (), ("e",))


@pytest.mark.parametrize(("short", "workers"), [(1, (0,)), (2, (0,)), (3, (0, 1)), (6, (0, 1, 2))])
def test_quota_is_given_back_by_the_worker(short, workers):
    gangs = [elastic("e", {0: 8}, [(0, 2), (0, 2), (0, 2)])]
    pools = Pools(np.array([short]), np.array([[8]]))
    found = shrinking(room(8), asks(1, 1, columns=1), gangs, pools=pools, worker_gives=np.array([[2]]))
    assert shrunk(found) == {"e": workers}
    pools = Pools(np.array([7]), np.array([[8]]))
    found = shrinking(room(8), asks(1, 1, columns=1), gangs, pools=pools, worker_gives=np.array([[2]]))
    assert found.victims == ("e",)


def test_all_in_one_domain():
    gangs = [
        elastic(f"e{i}", {i: 8}, [(i, 8)], spare_cost=c, cost=500) for i, c in enumerate([1, 50, 20, 20])
    ]
    found = shrinking(room(0, 0, 0, 0), asks(2, 8, columns=4, domain_of=[0, 0, 1, 1]), gangs)
    assert (found.domain, shrunk(found)) == (1, {"e2": (0,), "e3": (0,)})


def test_an_elastic_gang_ends_beside_another_that_shrinks():
    gangs = [
        elastic("e0", {0: 8}, [(0, 4)], cost=50, spare_cost=45),
        elastic("e1", {1: 8}, [(1, 4)], cost=100, spare_cost=5),
        gang("rigid", {2: 4}, cost=60),
    ]
    # All spare workers and the rigid gang are 3 workers' room; ending both elastic gangs costs 150.
    found = shrinking(room(0, 0, 0), asks(4, 4, columns=3), gangs)
    assert (found.victims, shrunk(found), found.cost_gpu_seconds) == (("e0", "rigid"), {"e1": (0,)}, 115)
