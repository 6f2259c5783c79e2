"""How a job ends: success and its last word, deadline, TTL, deletion; and terminal is final."""

from __future__ import annotations

import pytest

from datahall.control import times
from datahall.control.claims import Claims
from datahall.control.training.endings import STRAGGLER_PATIENCE_SECONDS
from datahall.control.training.seen import Refusal
from tests.unit.control.training_samples import QUOTA
from tests.unit.control.world import DIGEST, PROGRESS, SUCCEEDED, World, custom, running


def test_success_has_output_metrics_and_last_word():
    world = running()
    world.wait(60)
    world.end(0, 0, SUCCEEDED)
    world.end(1, 0)
    world.settle()
    status = world.status
    assert world.true() == {"Succeeded"}
    assert status.state == "Succeeded"
    assert status.output.digest == DIGEST
    assert status.output.metrics == PROGRESS["metrics"]
    assert status.progress.percent == 100
    assert status.last_checkpoint.step == 600
    assert status.completion_time == times.to_text(world.now)
    assert status.placement == ()
    assert world.names() == ["digits-g1-0", "digits-g1-1"], "finished pods stay for their logs"


def test_success_waits_for_stragglers_and_then_stops_them():
    world = running()
    world.end(0, 0, SUCCEEDED)
    plan = world.look()
    assert "Succeeded" not in world.true()
    assert plan.look_again_seconds == pytest.approx(STRAGGLER_PATIENCE_SECONDS, abs=2)
    world.wait(STRAGGLER_PATIENCE_SECONDS + 1)
    world.settle()
    assert world.true() == {"Succeeded"}
    assert world.names() == ["digits-g1-0"]


def test_a_straggler_that_fails_after_the_result_spoils_nothing():
    world = running()
    world.end(0, 0, SUCCEEDED)
    world.end(1, 75)
    world.settle()
    assert world.true() == {"Succeeded"}


def test_worker_0_that_ends_well_without_a_result_is_a_failure():
    world = running()
    world.end(0, 0)
    world.settle()
    assert world.true() == {"Failed"}
    assert "left no result" in world.condition("Failed").message


@pytest.mark.parametrize(
    "said",
    [
        {"result": "Succeeded", "output": {"uri": "pvc://m", "digest": "md5:1"}},
        {"result": "Succeeded", "output": {"uri": 5, "digest": DIGEST}},
        {"result": "Succeeded", "output": "pvc://m"},
        {"result": "Failed"},
        "{cut off",
        "{}",
    ],
    ids=range(6),
)
def test_a_result_that_cannot_be_read_ends_the_job_with_a_sentence(said):
    world = running()
    world.end(0, 0, said)
    world.end(1, 0)
    world.settle()
    assert world.true() == {"Failed"}
    assert "left no result" in world.condition("Failed").message


@pytest.mark.parametrize(
    "progress", [{"step": -4}, {"metrics": 7}, 5, {"metrics": {"loss": "nan"}}], ids=repr
)
def test_an_unreadable_last_word_beside_a_good_output_is_left_out(progress):
    world = running()
    world.end(0, 0, {**SUCCEEDED, "progress": progress, "checkpoint": {"step": "many"}})
    world.end(1, 0)
    world.settle()
    assert world.true() == {"Succeeded"}
    assert world.status.output.digest == DIGEST


def test_a_custom_job_needs_every_worker_to_end_well_and_no_result():
    world = running(**custom())
    world.end(0, 0, "anything")
    world.settle()
    assert world.true() == {"Admitted", "Running"}
    world.end(1, 0)
    world.settle()
    assert world.true() == {"Succeeded"}
    assert world.status.output is None
    assert world.condition("Succeeded").message == "all workers ended with exit code 0"


def test_a_custom_job_may_leave_an_output():
    world = running(workers=1, **custom())
    world.end(0, 0, SUCCEEDED)
    world.settle()
    assert world.status.output.digest == DIGEST


def test_the_last_worker_of_a_custom_job_may_fail_after_the_first_ended():
    world = running(**custom())
    world.end(0, 0)
    world.end(1, 1)
    world.settle()
    assert world.status.generation == 2
    assert world.status.restarts.counted == 1


def test_the_deadline_ends_a_job_that_runs():
    world = running(activeDeadlineSeconds=100)
    assert world.plan().look_again_seconds == pytest.approx(101, abs=1)
    world.wait(101)
    world.settle()
    assert world.true() == {"Failed"}
    assert world.condition("Failed").reason == "DeadlineExceeded"
    assert world.status.failure.cause == "Deadline"
    assert world.pods == {}


def test_a_result_that_is_there_beats_the_deadline_and_the_suspension():
    for change in ({"activeDeadlineSeconds": 100}, {"suspend": True}):
        world = running()
        world.end(0, 0, SUCCEEDED)
        world.end(1, 0)
        world.edit(**change)
        world.wait(200)
        world.settle()
        assert world.true() == {"Succeeded"}, change


def test_a_job_that_only_waits_has_no_deadline_yet():
    world = World(room=False, activeDeadlineSeconds=1)
    world.waiting = QUOTA
    world.settle()
    world.wait(100)
    world.settle()
    assert world.true() == {"Queued"}


def test_ttl_deletes_the_job_and_nothing_before():
    world = running(ttlSecondsAfterFinished=50)
    world.end(0, 0, SUCCEEDED)
    world.end(1, 0)
    world.settle()
    assert world.plan().look_again_seconds == pytest.approx(51, abs=1)
    world.wait(51)
    world.settle()
    assert world.raw is None


@pytest.mark.parametrize("after", ["delete pods", "suspend", "deadline", "refusal", "claims"])
def test_terminal_is_final(after):
    world = running(activeDeadlineSeconds=1000)
    world.end(0, 0, SUCCEEDED)
    world.end(1, 0)
    world.settle()
    before = world.status
    observed = {"observed_generation": 2 if after == "suspend" else 1}
    if after == "delete pods":
        world.pods.clear()
    elif after == "suspend":
        world.edit(suspend=True)
    elif after == "deadline":
        world.wait(2000)
    elif after == "refusal":
        world.refusal = Refusal("no", final=True)
    else:
        world.claims = Claims(missing=("data",))
    world.settle()
    created = world.created()
    assert created == ["digits-g1-0", "digits-g1-1"]
    conditions = tuple(c.model_copy(update=observed) for c in before.conditions)
    assert world.status == before.model_copy(update={**observed, "conditions": conditions})


def test_a_job_that_is_being_deleted_is_left_to_the_garbage_collector():
    world = running()
    world.deleting = True
    world.end(0, 1)
    plan = world.plan()
    assert (plan.status, plan.actions) == (None, ())
