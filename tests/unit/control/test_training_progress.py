"""Reports of the trainer on their way into the status."""

from __future__ import annotations

from datahall.control.training.progress import PROGRESS_EVERY_SECONDS
from tests.unit.control.training_samples import report
from tests.unit.control.world import running


def test_progress_reaches_the_status_at_most_every_five_seconds():
    world = running()
    world.report = report(world, 10)
    world.settle()
    assert world.status.progress.step == 10
    writes = world.status_writes
    for step in range(11, 15):
        world.wait(1)
        world.report = report(world, step)
        plan = world.look()
        assert world.status_writes == writes
        assert 0 < plan.look_again_seconds <= PROGRESS_EVERY_SECONDS
    world.wait(1)
    world.look()
    assert world.status.progress.step == 14


def test_the_first_checkpoint_is_told_at_once_and_later_ones_with_the_progress():
    world = running()
    world.report = report(world, 10)
    world.settle()
    world.wait(1)
    world.report = report(world, 11, checkpoint=11)
    world.look()
    assert world.status.last_checkpoint.step == 11
    world.wait(1)
    world.report = report(world, 12, checkpoint=12)
    plan = world.look()
    assert world.status.last_checkpoint.step == 11
    world.wait(plan.look_again_seconds)
    world.look()
    assert world.status.last_checkpoint.step == 12


def test_a_report_of_an_earlier_generation_is_not_taken():
    world = running()
    world.report = report(world, 10, generation=7)
    world.settle()
    assert world.status.progress is None


def test_the_newest_report_is_kept_when_the_gang_breaks():
    world = running()
    world.report = report(world, 10)
    world.settle()
    world.wait(1)
    world.report = report(world, 20)
    world.end(1, 1)
    world.look()
    assert world.status.progress.step == 20
