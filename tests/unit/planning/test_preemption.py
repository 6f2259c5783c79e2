"""Whom a preemption ends: against brute force on small halls, and its promises on all of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datahall.planning import alone, victims
from datahall.planning.candidates import Candidates, all_made_way_for, evictable, reclaimable
from datahall.planning.preemption import Hopeless, Plan, Pools, hopeless_text, plan, plan_text
from tests.unit.planning.halls import Judge, asks, gang, halls, planned, room


@pytest.fixture(params=["all combinations", "search"])
def way(request, monkeypatch):
    """Both ways to find victims, whatever the number of candidates."""
    if request.param == "search":
        monkeypatch.setattr(victims, "ALL_COMBINATIONS_UP_TO", -1)
        monkeypatch.setattr(alone, "TRIES", 0)


@pytest.fixture
def search_only(monkeypatch):
    monkeypatch.setattr(victims, "ALL_COMBINATIONS_UP_TO", -1)
    monkeypatch.setattr(alone, "TRIES", 0)


same_fixture_for_all = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

# ---- promises, on any hall


@pytest.mark.usefixtures("way")
@same_fixture_for_all
@given(halls(most_gangs=12))
def test_a_plan_starts_the_preemptor_and_nobody_ends_in_vain(hall):
    free, preemptor, gangs, allowed, pools = hall
    judge = Judge(free, preemptor, gangs, pools)
    found = plan(free, preemptor, Candidates.of(gangs, 2), allowed, pools=pools)
    may = {g.key for g, ok in zip(gangs, allowed, strict=True) if ok and not g.leaving}
    if isinstance(found, Hopeless):
        assert not judge.starts(may), "no was wrong"
        return
    assert set(found.victims) <= may
    assert judge.starts(found.victims)
    for spared in found.victims:
        assert not judge.starts(set(found.victims) - {spared}), f"{spared} ends in vain"
    assert found.cost_gpu_seconds == judge.key(found.victims)[0]


@given(halls(most_gangs=12))
def test_what_is_held_is_room_for_the_whole_gang_in_one_domain(hall):
    free, preemptor, gangs, allowed, pools = hall
    found = plan(free, preemptor, Candidates.of(gangs, 2), allowed, pools=pools)
    if isinstance(found, Hopeless):
        return
    assert int(found.workers.sum()) == preemptor.workers
    assert found.workers.min() >= 1
    assert found.columns.tolist() == sorted(set(found.columns.tolist()))
    assert preemptor.eligible[found.columns].all()
    if preemptor.most_workers is not None:
        assert (found.workers <= preemptor.most_workers[found.columns]).all()
    if preemptor.domain_of is None:
        assert found.domain is None
    else:
        assert set(preemptor.domain_of[found.columns].tolist()) == {found.domain}
    assert (found.amounts == preemptor.amounts[:, None] * found.workers).all()
    after = free.copy()
    for g in gangs:
        if g.leaving or g.key in found.victims:
            np.add.at(after[0], g.columns, g.amounts[0])
            np.add.at(after[1], g.columns, g.amounts[1])
    asked = preemptor.amounts > 0
    assert (after[:, found.columns] >= found.amounts)[asked].all()
    waits = {g.key for g in gangs if g.leaving and set(g.columns.tolist()) & set(found.columns.tolist())}
    assert set(found.waits_for) == waits


@given(halls(most_gangs=victims.ALL_COMBINATIONS_UP_TO))
def test_up_to_eight_candidates_no_choice_is_better(hall):
    free, preemptor, gangs, allowed, pools = hall
    best = Judge(free, preemptor, gangs, pools).best(allowed)
    found = plan(free, preemptor, Candidates.of(gangs, 2), allowed, pools=pools)
    if best is None:
        assert isinstance(found, Hopeless)
        return
    assert isinstance(found, Plan)
    assert found.exact
    assert Judge(free, preemptor, gangs, pools).key(found.victims) == best


@pytest.mark.usefixtures("search_only")
@same_fixture_for_all
@given(halls(most_gangs=9, most_columns=5))
def test_the_search_costs_at_most_twice_the_least(hall):
    """It is rarely off at all, see below."""
    free, preemptor, gangs, allowed, pools = hall
    best = Judge(free, preemptor, gangs, pools).best(allowed)
    found = plan(free, preemptor, Candidates.of(gangs, 2), allowed, pools=pools)
    if best is not None:
        assert isinstance(found, Plan)
        assert found.cost_gpu_seconds <= 2 * best[0]


def random_hall(rng, gangs):
    """A full hall where gangs of several nodes share nodes with others."""
    columns = int(rng.integers(4, 10))
    free = room(*rng.integers(0, 2, columns).tolist())
    used = np.zeros(columns, dtype=np.int64)
    made = []
    for i in range(gangs):
        gpus = int(rng.choice([1, 2, 4, 8]))
        where = np.unique(rng.integers(0, columns, int(rng.integers(1, 5))))
        where = where[used[where] + gpus <= 8]
        used[where] += gpus
        if len(where):
            made.append(gang(f"g{i}", dict.fromkeys(where.tolist(), gpus), cost=int(rng.integers(1, 100))))
    domain_of = rng.integers(0, 3, columns).tolist() if rng.random() < 0.5 else None
    return (
        free,
        asks(int(rng.integers(1, 6)), int(rng.choice([2, 4, 8])), columns=columns, domain_of=domain_of),
        made,
    )


@pytest.mark.usefixtures("search_only")
def test_the_search_finds_the_least_cost_nearly_always():
    rng = np.random.default_rng(7)
    costs = []
    for _ in range(150):
        free, preemptor, gangs = random_hall(rng, 10)
        best = Judge(free, preemptor, gangs).best([True] * len(gangs))
        found = planned(free, preemptor, gangs)
        if best is not None and best[0] > 0:
            assert isinstance(found, Plan)
            assert not found.exact
            costs.append((found.cost_gpu_seconds, best[0]))
    ratios = [ours / least for ours, least in costs]
    assert len(costs) > 50
    assert sum(ratios) / len(ratios) < 1.01
    assert sum(ours == least for ours, least in costs) > 0.95 * len(costs)
    assert max(ratios) < 1.6


def test_one_victim_that_is_seen_to_be_best_is_best():
    """Without the search: the answer is that of brute force, and most small preemptors get one so."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(200):
        free, preemptor, gangs = random_hall(rng, 10)
        judge = Judge(free, preemptor, gangs)
        candidates = Candidates.of(gangs, 2)
        answer = alone.cheapest_alone(
            candidates,
            ~candidates.leaving,
            base=free,
            ask=preemptor.amounts,
            most=preemptor.most_slots(),
            slots=preemptor.slots(free),
            domains=preemptor.domains(),
            missing=preemptor.workers
            - np.bincount(preemptor.domains(), weights=preemptor.slots(free), minlength=1).astype(np.int64),
            short=np.zeros(0, dtype=np.int64),
            gives=np.zeros((len(gangs), 0), dtype=np.int64),
        )
        if answer is not None and not judge.starts():
            key = candidates.keys[answer[0]]
            assert judge.starts([key])
            assert judge.key([key]) == judge.best([True] * len(gangs))
            found.append(key)
    assert len(found) > 20


@pytest.mark.usefixtures("way")
@same_fixture_for_all
@given(halls(most_gangs=12), st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(hall, random):
    free, preemptor, gangs, allowed, pools = hall
    order = list(range(len(gangs)))
    random.shuffle(order)
    again = None if pools is None else Pools(pools.short, pools.gives[order])
    first = plan(free, preemptor, Candidates.of(gangs, 2), allowed, pools=pools)
    second = plan(free, preemptor, Candidates.of([gangs[i] for i in order], 2), allowed[order], pools=again)
    assert type(first) is type(second)
    if isinstance(first, Plan):
        assert (first.victims, first.domain) == (second.victims, second.domain)
        assert first.columns.tolist() == second.columns.tolist()


@pytest.mark.usefixtures("search_only")
@same_fixture_for_all
@given(halls(most_gangs=12))
def test_a_spent_budget_still_gives_a_sound_plan(hall):
    free, preemptor, gangs, allowed, pools = hall
    judge = Judge(free, preemptor, gangs, pools)
    rich = plan(free, preemptor, Candidates.of(gangs, 2), allowed, pools=pools)
    poor = plan(free, preemptor, Candidates.of(gangs, 2), allowed, pools=pools, budget=victims.Budget(0))
    assert type(rich) is type(poor)
    if isinstance(poor, Plan):
        assert rich.cost_gpu_seconds <= poor.cost_gpu_seconds
        assert judge.starts(poor.victims)
        assert not any(judge.starts(set(poor.victims) - {spared}) for spared in poor.victims)


@pytest.mark.usefixtures("search_only")
def test_more_search_finds_what_offers_miss():
    rng = np.random.default_rng(3)
    better = 0
    for _ in range(200):
        free, preemptor, gangs = random_hall(rng, 14)
        rich, poor = (planned(free, preemptor, gangs, budget=victims.Budget(b)) for b in (500_000, 0))
        better += isinstance(rich, Plan) and rich.cost_gpu_seconds < poor.cost_gpu_seconds
    assert better > 0


@pytest.mark.parametrize("domains", [None, 5])
def test_a_large_hall_is_cut_down_to_a_shortlist_and_stays_sound(domains):
    rng = np.random.default_rng(11)
    columns = 1500
    gangs = [
        gang(f"g{i}-{j}", {i: gpus}, cost=int(rng.integers(50, 1000)))
        for i in range(columns)
        for j, gpus in enumerate([4, 2, 2])
    ]
    cheap = set(rng.choice(columns, 40, replace=False).tolist())
    for i in cheap:
        gangs[3 * i] = gang(f"g{i}-0", {i: 4}, cost=1)
    free = room(*[0] * columns)
    domain_of = None if domains is None else [i % domains for i in range(columns)]
    found = planned(free, asks(8, 4, columns=columns, domain_of=domain_of), gangs)
    assert isinstance(found, Plan)
    # Eight of the forty at 1 each, as long as one domain has eight.
    assert found.cost_gpu_seconds == 8
    assert len(found.victims) == 8


# ---- cases


def test_a_gang_is_paid_once_for_all_its_nodes():
    wide = gang("wide", {0: 8, 1: 8, 2: 8, 3: 8}, cost=100)
    narrow = [gang(f"narrow-{i}", {i: 8}, cost=30) for i in range(4, 8)]
    found = planned(room(*[0] * 8), asks(4, 8, columns=8), [wide, *narrow])
    assert found.victims == ("wide",)
    found = planned(room(*[0] * 8), asks(3, 8, columns=8), [wide, *narrow])
    assert found.victims == ("narrow-4", "narrow-5", "narrow-6")
    assert found.cost_gpu_seconds == 90


@pytest.mark.parametrize(
    ("gangs", "victims_"),
    [
        ([gang("one", {0: 8}, cost=20), gang("a", {1: 4}, cost=10), gang("b", {1: 4}, cost=10)], ("one",)),
        ([gang("often", {0: 8}, cost=10, evictions=1), gang("never", {1: 8}, cost=20)], ("never",)),
        ([gang("old", {0: 8}, started=10.0), gang("new", {1: 8}, started=20.0)], ("new",)),
        ([gang("b", {0: 8}), gang("a", {1: 8})], ("a",)),
    ],
    ids=["fewer victims", "fewer earlier evictions", "latest started", "key"],
)
def test_ties(gangs, victims_):
    assert planned(room(0, 0), asks(1, 8, columns=2), gangs).victims == victims_


def test_of_equal_choices_the_later_started_wins_as_a_whole():
    node_0 = [gang("a", {0: 4}, started=0.0), gang("d", {0: 4}, started=8.0)]
    node_1 = [gang("b", {1: 4}, started=5.0), gang("c", {1: 4}, started=4.0)]
    assert planned(room(0, 0), asks(1, 8, columns=2), node_0 + node_1).victims == ("b", "c")


def test_a_domain_that_looks_equal_is_compared_to_the_end():
    gangs = [gang("old", {0: 8}, started=0.0), gang("new", {1: 8}, started=9.0)]
    found = planned(room(0, 0), asks(1, 8, columns=2, domain_of=[0, 1]), gangs)
    assert (found.domain, found.victims) == (1, ("new",))


def test_each_earlier_eviction_makes_the_next_dearer():
    once, never = gang("once", {0: 8}, cost=60, evictions=1), gang("never", {1: 8}, cost=100)
    assert planned(room(0, 0), asks(1, 8, columns=2), [once, never]).victims == ("never",)
    assert gang("x", {0: 8}, cost=60, evictions=2).cost_gpu_seconds == 180


def test_lost_work_and_restart_both_count():
    candidate = gang("x", {0: 8}, cost=60)
    assert candidate.cost_gpu_seconds == 60
    assert replace(candidate, restart_gpu_seconds=40.4).cost_gpu_seconds == 100


def test_a_domain_is_chosen_whole_and_the_cheaper_one_wins():
    gangs = [gang(f"g{i}", {i: 8}, cost=cost) for i, cost in enumerate([10, 50, 30, 20, 5, 90])]
    found = planned(room(*[0] * 6), asks(2, 8, columns=6, domain_of=[0, 0, 1, 1, 2, 2]), gangs)
    assert found.domain == 1
    assert found.victims == ("g3", "g2")
    assert found.columns.tolist() == [2, 3]
    # To stick to a domain, only its columns are eligible.
    only = [True, True, False, False, False, False]
    stuck = planned(room(*[0] * 6), asks(2, 8, columns=6, domain_of=[0, 0, 1, 1, 2, 2], eligible=only), gangs)
    assert (stuck.domain, stuck.victims) == (0, ("g0", "g1"))


def test_room_that_is_there_is_held_before_room_to_come():
    found = planned(room(0, 8, 4, 4), asks(3, 4, columns=4), [gang("x", {0: 8})])
    assert found.victims == ()
    assert found.columns.tolist() == [1, 2]
    assert found.workers.tolist() == [2, 1]
    found = planned(room(0, 8, 4, 4), asks(5, 4, columns=4), [gang("x", {0: 8})])
    assert found.victims == ("x",)
    assert dict(zip(found.columns.tolist(), found.workers.tolist(), strict=True)) == {0: 1, 1: 2, 2: 1, 3: 1}
    assert found.amounts[0].tolist() == [4, 8, 4, 4]
    assert found.freed.tolist() == [8, 0]


def test_quota_may_be_all_that_is_missing():
    gangs = [gang("a", {0: 4}, cost=50), gang("b", {0: 2}, cost=30), gang("c", {1: 4}, cost=10)]
    # c is cheapest and gives nothing to the queue that is short.
    pools = Pools(np.array([2]), np.array([[4], [2], [0]]))
    assert planned(room(4, 4), asks(1, 4, columns=2), gangs, pools=pools).victims == ("b",)
    pools = Pools(np.array([5]), np.array([[4], [2], [0]]))
    assert planned(room(4, 4), asks(1, 4, columns=2), gangs, pools=pools).victims == ("b", "a")
    pools = Pools(np.array([7]), np.array([[4], [2], [0]]))
    no = planned(room(4, 4), asks(1, 4, columns=2), gangs, pools=pools)
    assert no.short == (1,)
    assert hopeless_text(no) == "even with 3 jobs ended for it, 1 of quota would be missing"


def test_one_victim_serves_room_and_quota():
    gangs = [gang("room", {0: 8}, cost=10), gang("quota", {1: 4}, cost=10), gang("both", {2: 8}, cost=15)]
    pools = Pools(np.array([8]), np.array([[0], [8], [8]]))
    assert planned(room(0, 0, 0), asks(1, 8, columns=3), gangs, pools=pools).victims == ("both",)


def test_a_cap_for_other_reasons_is_kept():
    gangs = [gang("a", {0: 8}), gang("b", {1: 8})]
    assert len(planned(room(0, 0), asks(2, 4, columns=2, most=[1, 1]), gangs).victims) == 2
    assert isinstance(planned(room(0, 0), asks(3, 4, columns=2, most=[1, 1]), gangs), Hopeless)


def test_a_node_that_comes_again_in_a_gang_counts_once_with_its_sum():
    twice = gang("x", {0: 4})
    doubled = type(twice)(
        key="x",
        columns=np.array([1, 0, 1]),
        amounts=np.array([[2, 1, 2], [0, 0, 0]]),
        priority=0,
        started_seconds=0.0,
        lost_gpu_seconds=1.0,
        restart_gpu_seconds=0.0,
    )
    candidates = Candidates.of([doubled], 2)
    assert candidates.column.tolist() == [0, 1]
    assert candidates.amounts[0].tolist() == [1, 4]
    assert planned(room(0, 0), asks(1, 4, columns=2), [doubled]).victims == ("x",)


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_runs_and_nothing_fits(workers):
    no = planned(room(2, 1), asks(workers, 4, columns=2), [])
    assert isinstance(no, Hopeless)
    assert hopeless_text(no).startswith("no job that runs may be ended for it (0 protected): 0 of ")


def test_an_over_committed_node_must_first_be_paid_back():
    gangs = [gang("a", {0: 4}, cost=1), gang("b", {0: 4}, cost=1), gang("c", {1: 4}, cost=5)]
    assert planned(room(-4, 0), asks(1, 4, columns=2), gangs[:2]).victims == ("a", "b")
    assert planned(room(-6, 0), asks(1, 4, columns=2), gangs).victims == ("c",)


def test_no_has_numbers():
    gangs = [gang(f"g{i}", {i: 8}) for i in range(4)]
    no = planned(
        room(1, 0, 2, 0), asks(3, 8, columns=4, domain_of=[0, 0, 1, 1]), gangs, [True, True, True, False]
    )
    assert (no.workers, no.fitting_now, no.fitting_at_most, no.domain) == (3, 0, 2, 0)
    assert hopeless_text(no, domain="rack") == (
        "even with 3 jobs ended for it (1 protected), 2 of 3 workers would fit in the best rack"
    )


def test_a_plan_says_what_it_does():
    gangs = [gang(f"ns/g{i}", {i: 8}, cost=10 * i + 10) for i in range(5)]
    gangs.append(gang("ns/gone", {5: 8}, leaving=True))
    found = planned(room(*[0] * 6), asks(5, 8, columns=6), gangs)
    assert plan_text(found) == (
        "ends 4 jobs (ns/g0, ns/g1, ns/g2, ...) at a cost of 100 GPU-seconds, "
        "waits for 1 job already ending (ns/gone); 5 nodes held for 5 workers"
    )


# ---- who may be ended


def test_only_lower_priority_past_its_minimum_run_time():
    gangs = [
        gang("lower", {0: 8}, priority=1),
        gang("equal", {0: 8}, priority=2),
        gang("higher", {0: 8}, priority=3),
        gang("young", {0: 8}, priority=1, started=950.0, minimum_run=60.0),
        gang("old", {0: 8}, priority=1, started=940.0, minimum_run=60.0),
        gang("leaving", {0: 8}, priority=1, leaving=True),
        gang("future", {0: 8}, priority=1, started=2000.0),
    ]
    candidates = Candidates.of(gangs, 2)
    may = evictable(candidates, priority=2, now_seconds=1000.0)
    assert [key for key, ok in zip(candidates.keys, may, strict=True) if ok] == ["lower", "old"]
    may = reclaimable(candidates, priority=2, now_seconds=1000.0, made_way_for=frozenset({"equal", "lower"}))
    # For its quota's sake it may end equals and betters, but not the one that it made way for; the lower one, yes.
    assert [key for key, ok in zip(candidates.keys, may, strict=True) if ok] == ["lower", "higher", "old"]


def test_made_way_for_follows_the_chain():
    preemptors = {
        "c": frozenset({"b"}),
        "b": frozenset({"a", "x"}),
        "a": frozenset({"c"}),
        "z": frozenset({"c"}),
    }
    assert all_made_way_for("z", preemptors) == {"a", "b", "c", "x"}
    assert all_made_way_for("c", preemptors) == {"a", "b", "x"}
    assert all_made_way_for("new", preemptors) == frozenset()


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60),
    st.lists(st.integers(0, 1), min_size=5),
)
def test_no_two_gangs_take_turns(tries, priorities):
    """Whatever is tried: among equals, no chain of reclaims comes back to where it began."""
    keys = [f"g{i}" for i in range(5)]
    gangs = [gang(key, {0: 8}, priority=priorities[i]) for i, key in enumerate(keys)]
    candidates = Candidates.of(gangs, 2)
    preemptors: dict[str, frozenset[str]] = {}
    ended: list[tuple[int, int]] = []
    for taker, victim in tries:
        if taker == victim:
            continue
        made_way = all_made_way_for(keys[taker], preemptors)
        may = reclaimable(candidates, priority=priorities[taker], now_seconds=1.0, made_way_for=made_way)
        if may[victim]:
            preemptors[keys[victim]] = preemptors.get(keys[victim], frozenset()) | {keys[taker]}
            ended.append((taker, victim))
    for taker, victim in ended:
        seen, ahead = set(), [taker]
        while ahead:
            key = ahead.pop()
            seen.add(key)
            ahead += [t for t, v in ended if v == key and priorities[t] == priorities[v] and t not in seen]
        assert priorities[taker] != priorities[victim] or victim not in seen
