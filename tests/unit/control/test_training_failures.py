"""Failures of nodes and images: lost nodes, starts that find no place, images that do not come."""

from __future__ import annotations

import pytest

from datahall.control.claims import Claims
from datahall.control.training.failures import BIND_PATIENCE_SECONDS
from datahall.control.training.look import FORCE_AFTER_SECONDS
from tests.unit.control.training_samples import UNSCHEDULABLE, WAITS_FOR_POD
from tests.unit.control.world import World, running


def test_a_lost_node_moves_the_gang_and_its_pod_goes_by_force():
    world = running()
    world.lost = frozenset({"node-1"})
    world.room = False
    world.look()
    status = world.status
    assert status.failure.cause == "NodeLost"
    assert status.placement == ()
    assert world.true() == {"Queued", "Restarting"}
    world.reap("digits-g1-0")
    world.wait(FORCE_AFTER_SECONDS + 1)
    world.look()
    assert world.names() == [], "nobody is left on the node to confirm the end"
    world.lost = frozenset()
    world.room = True
    world.settle()
    assert world.names() == ["digits-g2-0", "digits-g2-1"]
    assert world.status.restarts.uncounted == 1


def test_a_gang_that_breaks_on_a_cordoned_node_is_placed_anew():
    world = running()
    world.unfit = frozenset({"node-0"})
    world.settle()
    assert world.true() == {"Admitted", "Running"}, "a cordon alone stops nobody"
    world.end(1, 1)
    world.look()
    assert world.status.placement == ()
    assert "waits for a new place" in world.condition("Queued").message


def test_a_pod_that_cannot_be_bound_gives_its_place_back():
    world = World()
    world.settle()
    raw = world.pods["digits-g1-1"]
    raw["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes fit"}
    ]
    world.look()
    assert world.status.placement
    world.wait(BIND_PATIENCE_SECONDS + 1)
    world.room = False
    world.settle()
    assert world.status.failure.cause == "Unschedulable"
    assert "0/2 nodes fit" in world.status.failure.message
    assert world.status.placement == ()
    assert world.pods == {}


def refused_starts(world: World, count: int) -> list[float]:
    """The nodes refuse so many starts in a row; how long each start was waited for."""
    waits = []
    for _ in range(count):
        began = world.now
        while not world.pods:
            plan = world.settle()
            if not world.pods:
                assert plan.look_again_seconds is not None, "nobody looks again"
                world.wait(plan.look_again_seconds)
        waits.append((world.now - began).total_seconds())
        for raw in world.pods.values():
            raw["status"]["conditions"] = [UNSCHEDULABLE]
        refused = world.names()
        while world.names() == refused:
            plan = world.settle()
            if world.names() == refused:
                assert plan.look_again_seconds is not None, "nobody looks again"
                world.wait(plan.look_again_seconds)
    return waits


def test_a_pod_that_is_not_bound_is_looked_at_again_in_time():
    world = World()
    world.settle()
    world.pods["digits-g1-1"]["status"]["conditions"] = [UNSCHEDULABLE]
    assert world.settle().look_again_seconds == pytest.approx(BIND_PATIENCE_SECONDS, abs=2)


@pytest.mark.parametrize("claims", [Claims(), WAITS_FOR_POD], ids=["nodes", "claims"])
def test_each_start_that_finds_no_node_is_waited_for_longer(claims):
    world = World()
    world.claims = claims
    waits = refused_starts(world, 9)
    assert waits[:2] == [0, 0], "the first refusal may be one node's alone"
    assert waits[2:] == pytest.approx([30, 60, 120, 240, 480, 600, 600], abs=2)
    assert world.status.restarts.uncounted == 9
    queued = world.condition("Queued")
    assert queued.status == "True"
    assert queued.message.startswith("9 starts in a row found no node; the next is tried at 2026-11-22T")
    assert "0/2 nodes fit" in queued.message


def test_a_start_that_failed_for_a_claim_names_it_and_goes_on_when_it_is_bound():
    world = World()
    world.claims = WAITS_FOR_POD
    refused_starts(world, 4)
    assert WAITS_FOR_POD.unbound[0].sentence in world.status.failure.message
    queued = world.condition("Queued")
    assert queued.reason == "ClaimNotBound"
    assert WAITS_FOR_POD.unbound[0].sentence in queued.message
    assert world.pods == {}
    world.claims = Claims()
    world.settle()
    assert len(world.pods) == 2


def test_a_gang_that_runs_ends_the_back_off():
    world = World()
    refused_starts(world, 4)
    world.wait(1000)
    world.settle()
    world.run()
    world.settle()
    assert world.status.restarts.unschedulable is None
    world.delete_pod(0)
    world.settle()
    assert len(world.pods) == 2


def test_a_suspension_ends_the_back_off():
    world = World()
    refused_starts(world, 4)
    world.edit(suspend=True)
    world.settle()
    world.edit(suspend=False)
    world.settle()
    assert len(world.pods) == 2


def test_an_image_that_cannot_be_pulled_is_told_and_then_fails_the_job():
    world = World()
    world.settle()
    world.waits(1, "ErrImagePull", "no such image team-a/x")
    world.settle()
    condition = world.condition("Running")
    assert (condition.status, condition.reason) == ("False", "ImagePullFailed")
    assert condition.message == "worker 1 (digits-g1-1): ErrImagePull: no such image team-a/x"
    world.waits(1, "ImagePullBackOff", "back-off")
    assert world.plan().status is None, "the kubelet changes its word all the time; that is no news"
    world.wait(301)
    world.settle()
    assert world.true() == {"Failed"}
    assert world.status.failure.cause == "ImagePull"
    assert world.pods == {}


def test_an_image_that_comes_in_time_is_forgiven():
    world = World()
    world.settle()
    world.waits(1, "ErrImagePull", "no such image team-a/x")
    world.settle()
    world.run()
    world.settle()
    assert world.true() == {"Admitted", "Running"}


def test_an_impossible_image_name_fails_at_once():
    world = World()
    world.settle()
    world.waits(0, "InvalidImageName", "invalid reference format")
    world.settle()
    assert world.true() == {"Failed"}


def test_a_container_that_cannot_be_configured_is_told():
    world = World()
    world.settle()
    world.waits(0, "CreateContainerConfigError", "secret not found")
    world.settle()
    assert "secret not found" in world.condition("Running").message
