"""A gang that runs: when that is told, and how it starts again, fenced, after it broke."""

from __future__ import annotations

import pytest

from datahall.control.training.running import ROOT_CAUSE_PATIENCE_SECONDS
from tests.unit.control.world import SUCCEEDED, World, failed, running


def test_running_is_told_once_every_worker_runs():
    world = World()
    world.settle()
    world.run(0)
    assert world.plan().status is None
    world.run(1)
    world.settle()
    assert world.true() == {"Admitted", "Running"}
    assert world.condition("Running").message == "2 of 2 workers run"
    assert world.condition("Reconciling").status == "False"
    assert world.status_writes == 2


def test_an_ordinary_life_needs_three_status_writes():
    world = running()
    world.end(0, 0, SUCCEEDED)
    world.end(1, 0)
    world.settle()
    assert world.status_writes == 3


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_restarts_are_counted_until_none_is_left(allowed):
    world = running(failurePolicy={"maxRestarts": allowed})
    for _ in range(allowed):
        world.end(1, 1)
        world.settle()
        world.run()
        world.settle()
    world.end(1, 1)
    world.settle()
    assert world.true() == {"Failed"}
    assert world.condition("Failed").reason == "RestartsExhausted"
    assert f"maxRestarts {allowed} reached" in world.condition("Failed").message
    assert (world.status.restarts.counted if world.status.restarts else 0) == allowed
    assert world.status.generation == allowed + 1


def test_uncounted_restarts_have_no_limit():
    world = running(failurePolicy={"maxRestarts": 0})
    for _ in range(5):
        world.delete_pod(1)
        world.settle()
        world.run()
        world.settle()
    assert world.status.restarts.uncounted == 5
    assert world.true() == {"Admitted", "Running"}


def test_a_lost_peer_waits_for_the_root_cause():
    world = running()
    world.end(0, 75, failed("PeerLost", "rank 1 went away"))
    plan = world.look()
    assert world.status.restarts is None
    assert plan.look_again_seconds <= 1
    world.wait(2)
    world.end(1, 137, reason="OOMKilled")
    world.settle()
    assert world.status.failure.cause == "OutOfMemory"
    assert world.status.failure.rank == 1


def test_a_lost_peer_without_a_root_cause_counts_after_a_while():
    world = running()
    world.end(0, 75)
    world.wait(ROOT_CAUSE_PATIENCE_SECONDS + 1)
    world.settle()
    assert world.status.failure.cause == "PeerLost"
    assert world.status.restarts.counted == 1


def test_the_fence_holds_until_every_pod_of_the_old_generation_is_gone():
    world = running()
    world.end(1, 1)
    world.look()
    assert world.status.generation == 2
    world.reap("digits-g1-1")
    for _ in range(3):
        world.look()
        assert world.names() == ["digits-g1-0"]
    world.reap()
    world.settle()
    assert world.names() == ["digits-g2-0", "digits-g2-1"]


def test_a_deleted_pod_restarts_the_gang_uncounted():
    world = running()
    world.delete_pod(1)
    world.settle()
    assert world.status.failure.cause == "PodDeleted"
    assert world.status.restarts.uncounted == 1
    assert world.names() == ["digits-g2-0", "digits-g2-1"]


def test_a_vanished_pod_restarts_the_gang_uncounted():
    world = running()
    world.vanish(0)
    world.settle()
    assert world.status.failure.cause == "PodDeleted"
    assert world.status.failure.pod == "digits-g1-0"
    assert world.names() == ["digits-g2-0", "digits-g2-1"]


def test_a_pod_that_vanishes_before_the_gang_began_is_made_again():
    world = World()
    world.settle()
    world.vanish(1)
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]
    assert world.status.restarts is None
