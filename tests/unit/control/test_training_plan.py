"""A TrainingJob looked at as a whole: what is effective, suspension, refusals, crashes in the middle of a plan."""

from __future__ import annotations

import pytest

from datahall.api.trainingjob import TrainingJobSpec
from datahall.control.training.seen import Refusal
from tests.unit.control.training_samples import report
from tests.unit.control.world import SUCCEEDED, World, running


def test_what_is_effective_follows_the_spec():
    world = running()
    world.edit(priority=7, failurePolicy={"maxRestarts": 1}, activeDeadlineSeconds=600)
    world.settle()
    effective = world.status.effective
    assert (effective["priority"], effective["failurePolicy"]) == (7, {"maxRestarts": 1})
    assert effective["activeDeadlineSeconds"] == 600
    del world.raw["spec"]["activeDeadlineSeconds"]
    world.edit()
    world.settle()
    assert "activeDeadlineSeconds" not in world.status.effective


def test_what_is_effective_loses_nothing_of_what_the_trainer_is_told():
    world = running()
    shown = TrainingJobSpec.model_validate(world.status.effective)
    assert shown.effective() == world.job.spec.effective()


def test_suspend_stops_and_resume_starts_the_next_generation():
    world = running()
    world.report = report(world, 10)
    world.settle()
    world.edit(suspend=True)
    world.look()
    assert world.true() == {"Suspended"}
    assert world.status.placement == ()
    assert "2 workers are stopping" in world.condition("Reconciling").message
    world.settle()
    assert world.pods == {}
    assert world.condition("Reconciling").status == "False"
    assert world.status.observed_generation == 2
    world.edit(suspend=False)
    world.settle()
    assert world.names() == ["digits-g2-0", "digits-g2-1"]
    world.run()
    world.settle()
    assert world.true() == {"Admitted", "Running"}
    assert world.condition("Suspended").reason == "Resumed"
    assert world.status.progress.step == 10


def test_a_job_that_is_born_suspended_makes_nothing():
    world = World(suspend=True)
    world.settle()
    assert world.true() == {"Suspended"}
    assert world.history == [("status", "Suspended")]


def test_resumed_while_workers_still_leave():
    world = running()
    world.edit(suspend=True)
    world.look()
    world.edit(suspend=False)
    world.look()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]
    assert world.status.placement == ()
    world.reap()
    world.settle()
    assert world.names() == ["digits-g2-0", "digits-g2-1"]


def test_the_deadline_counts_anew_after_a_suspension():
    world = running(activeDeadlineSeconds=100)
    world.wait(90)
    world.edit(suspend=True)
    world.settle()
    world.wait(500)
    world.edit(suspend=False)
    world.settle()
    world.run()
    world.settle()
    assert world.true() == {"Admitted", "Running"}


def test_a_final_refusal_fails_the_job_with_the_servers_sentence():
    world = World()
    world.look()
    world.refusal = Refusal('Pod "digits-g1-0" is invalid: spec.x: bad', final=True)
    world.settle()
    assert world.true() == {"Failed"}
    assert world.condition("Failed").message == world.refusal.message
    assert world.status.failure.message == world.refusal.message
    assert world.pods == {}


def test_a_refusal_that_may_pass_gives_the_place_back_and_tries_again():
    world = World()
    world.look()
    world.refusal = Refusal("exceeded quota: pods", final=False)
    world.settle()
    assert world.pods == {}
    assert world.status.placement == ()
    assert world.condition("Queued").reason == "RequestRefused"
    world.refusal = None
    world.settle()
    assert world.names() == ["digits-g2-0", "digits-g2-1"]


@pytest.mark.parametrize("crash_after", [0, 1, 2, 3])
def test_a_crash_in_the_middle_of_a_plan_changes_nothing_in_the_end(crash_after):
    def life(crash: int | None) -> tuple[list[str], object]:
        world = World()
        world.look(crash_after=crash)
        world.settle()
        world.run()
        world.look(crash_after=crash)
        world.settle()
        world.end(1, 1)
        world.look(crash_after=crash)
        world.settle()
        world.run()
        world.settle()
        world.end(0, 0, SUCCEEDED)
        world.end(1, 0)
        world.look(crash_after=crash)
        world.settle()
        return world.created(), world.status

    assert life(crash_after) == life(None)
