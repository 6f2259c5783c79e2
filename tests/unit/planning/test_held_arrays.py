"""Arrays that are brought up to date say the same as arrays made anew, whatever came, changed and left."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datahall.planning import GangProgress, Placement
from datahall.planning.hall import Hall
from datahall.planning.holdings import Holdings
from datahall.planning.queues.tree import QueueTree
from tests.unit.planning.planners import gang, node

KEYS = [f"g{i}" for i in range(6)]
NODES = ["a", "b", "c"]

changes = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from(["take", "take", "take a share", "let go", "leave", "progress", "look"]),
        st.lists(st.sampled_from(NODES), min_size=1, max_size=3),
        st.integers(0, 3),
    ),
    max_size=30,
)


def holdings():
    hall = Hall()
    for name in NODES:
        hall.upsert(node(name, watts=700))
    return Holdings(hall, QueueTree())


def seen(found, minimum):
    """What arrays say, by key: order is not theirs to keep."""
    candidates, running = found.candidates(1000.0, minimum), found.running(1000.0)
    order = np.argsort(candidates.rank)
    said = {}
    for i, key in enumerate(candidates.keys):
        mine, also = candidates.gang == i, running.gang == i
        said[key] = (
            int(candidates.cost_gpu_seconds[i]),
            int(candidates.priority[i]),
            int(candidates.evictions[i]),
            float(candidates.started_seconds[i]),
            float(candidates.minimum_run_seconds[i]),
            bool(candidates.leaving[i]),
            bool(found.preemptible()[i]),
            bool(found.of_queue("team-b")[i]),
            [int(found.charged(resource)[i]) for resource in ("gpu_milli:H100", "watts")],
            candidates.column[mine].tolist(),
            candidates.amounts[:, mine].tolist(),
            running.names[i],
            float(running.end_seconds[i]),
            running.columns[also].tolist(),
            running.amounts[:, also].tolist(),
        )
    return (
        said,
        [candidates.keys[i] for i in order],
        [candidates.keys[i] for i in found.first_to_give_back().tolist()],
    )


@given(changes)
@settings(max_examples=200)
def test_what_was_kept_up_is_what_is_made_anew(history):
    lived = holdings()
    for step, (key, change, where, number) in enumerate(history):
        held = lived.get(key)
        if change.startswith("take"):
            share = change == "take a share"
            request = gang(
                key,
                len(where),
                1 if share else number,
                gpu_milli=400 if share else 1000,
                queue="team-b" if number % 2 else "team-a",
                priority=number,
                evictions=number,
                preemptible=number != 3,
                run_seconds=50.0 * number if number else None,
            )
            card = number if share else None
            places = tuple(Placement(rank, name, "H100", card) for rank, name in enumerate(where))
            lived.take(request, places, float(step))
        elif change == "let go":
            lived.let_go(key)
        elif change == "leave" and held is not None:
            lived.leave(held)
        elif change == "progress":
            lived.progress(key, GangProgress(float(step), float(step + number), 500.0 * number or None, 10.0))
        elif change == "look":
            lived.candidates(float(step), {})
    # Last: who ends last on a shared GPU is found out when somebody comes or goes.
    lived.take(gang("last", gpus=8), (Placement(0, "a", "H100"),), 99.0)
    fresh = holdings()
    for held in lived:
        fresh.take(held.gang, held.placements, held.since_seconds, leaving=held.leaving)
        if held.progress is not None:
            fresh.progress(held.gang.key, held.progress)
    minimum = {"team-a": 5.0, "team-b": 7.0}
    assert seen(lived, minimum) == seen(fresh, minimum)


def test_nobody_holds_anything():
    said = seen(holdings(), {"team-a": 5.0})
    assert said == ({}, [], [])


def test_a_queue_that_does_not_exist_protects_nobody():
    found = holdings()
    found.take(gang("g"), (Placement(0, "a", "H100"),), 0.0)
    assert found.candidates(1.0, {"other": 9.0}).minimum_run_seconds.tolist() == [0.0]
