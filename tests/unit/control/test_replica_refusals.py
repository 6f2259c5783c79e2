"""Nodes that refuse a replica: they are avoided for a while, and nothing is tried in a hot loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahall.control.serving import patience
from datahall.control.serving.patience import Trouble
from tests.unit.control.replica_world import Json, Service

pytestmark = pytest.mark.looptime


def unschedulable(message: str = "0/2 nodes are available") -> Json:
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"status": {"conditions": [said]}}


async def test_a_node_that_does_not_take_a_replica_is_avoided_by_the_next():
    service = Service(nodes=2)
    service.make("r-1")
    service.cycle()
    service.lift()
    first = service.view("r-1").node
    service.change("r-1", **unschedulable())
    answers = service.review()
    assert answers.refused == {}
    assert answers.look_again_seconds == patience.BIND_PATIENCE_SECONDS + 1
    service.pass_time(31)
    assert service.review().refused == {"r-1": f"node {first}: 0/2 nodes are available"}
    assert service.review().refused, "until it is gone, and it is counted once"
    service.gone("r-1")
    service.make("r-2")
    service.cycle()
    service.lift()
    assert service.view("r-2").node != first
    service.bind("r-2")
    service.pass_time(patience.AVOID_SECONDS)
    service.make("r-3")
    service.make("r-4", gpus=8)
    service.cycle()
    service.lift()
    assert service.view("r-3").node


async def test_after_the_second_refusal_in_a_row_the_next_start_waits_and_a_bound_one_ends_that():
    service = Service(nodes=1, gpus=1)
    service.pass_time(1)
    for number in (1, 2):
        name = f"r-{number}"
        service.make(name)
        service.cycle()
        service.lift()
        assert service.view(name).node == "node-0"
        service.change(name, **unschedulable())
        service.pass_time(31)
        service.review()
        service.gone(name)
        service.pass_time(patience.AVOID_SECONDS if number == 1 else 0)
    service.make("r-3")
    service.cycle()
    assert service.waits() == {"r-3": "PlaceRefused"}
    answers = service.review()
    assert answers.look_again_seconds == patience.BACK_OFF_FIRST_SECONDS + 1
    text = answers.waits["r-3"].message
    assert text.startswith(
        "2 starts in a row were refused; the next is tried at 2026-11-22T16:06:33Z. The last:"
    )
    service.pass_time(31)
    service.review()
    service.cycle()
    assert service.waits() == {"r-3": "NoRoom"}, "the only node is avoided a while longer"
    service.pass_time(patience.AVOID_SECONDS)
    service.review()
    service.cycle()
    assert service.lift() == {"r-3"}
    service.bind("r-3")
    service.make("r-4")
    service.cycle()
    service.lift()
    service.change("r-4", **unschedulable())
    service.pass_time(31)
    service.review()
    service.gone("r-4")
    service.hall.node("node-1")
    service.make("r-5")
    service.cycle()
    assert service.lift() == {"r-5"}, "the first refusal since one was bound"


@pytest.mark.parametrize(("reason", "counts"), [("OutOfcpu", True), ("UnexpectedAdmissionError", True)])
async def test_a_replica_that_the_kubelet_turns_away_is_a_refusal(reason, counts):
    service = Service(nodes=2)
    service.start("r-1")
    first = service.view("r-1").node
    service.change("r-1", status={"phase": "Failed", "reason": reason, "message": "no"})
    answers = service.review()
    assert answers.refused == {}, "it has ended: there is nothing to delete"
    service.make("r-2")
    service.cycle()
    service.lift()
    assert (service.view("r-2").node != first) is counts


async def test_a_gate_that_cannot_be_lifted_gives_the_place_back_and_is_tried_again_later():
    service = Service(nominal=4)
    service.make("r-1")
    service.cycle()
    for _ in range(2):
        assert set(service.review().places) == {"r-1"}
        assert service.hall.replicas.refused_by_api("r-1", "Pod is invalid") == ("team-a", "digits")
        assert service.held("r-1") is None
        service.review()
        service.cycle()
    assert service.waits() == {"r-1": "PlaceRefused"}
    service.pass_time(31)
    service.review()
    service.cycle()
    assert service.lift() == {"r-1"}
    assert service.hall.replicas.refused_by_api("unknown", "x") is None


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", ""]), st.floats(0, 2000), st.booleans()), min_size=1, max_size=30
    )
)
def test_refusals_never_come_in_a_hot_loop_and_nothing_is_avoided_for_ever(story):
    trouble, now, row = Trouble(), 0.0, 0
    for node, gap, bound in story:
        now += gap
        if bound:
            trouble, row = trouble.bound(), 0
        trouble, row = trouble.refused(node, "no", now), row + 1
        wait = max(trouble.until_seconds - now, 0.0)
        assert (wait > patience.BACK_OFF_FIRST_SECONDS - 0.001) == (row > 1)
        assert wait < patience.BACK_OFF_LONGEST_SECONDS + 0.001
        assert "" not in trouble.avoided(now)
        assert trouble.avoided(now + patience.AVOID_SECONDS + 0.001) == frozenset()
