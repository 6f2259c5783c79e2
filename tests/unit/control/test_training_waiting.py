"""A job without a place: what is told of its wait, how often, and how it takes its place."""

from __future__ import annotations

import dataclasses
import datetime

import pytest

from datahall.api.reasons import Reason
from datahall.control import times
from datahall.control.claims import Claims
from datahall.control.training.seen import Blocker, Waiting
from datahall.planning.move_plans import Move, MovePlan
from tests.unit.control.training_samples import QUOTA
from tests.unit.control.world import START, World


def test_a_job_is_silent_until_the_planner_has_looked():
    world = World(room=False)
    plan = world.plan()
    assert plan.status is None
    assert plan.actions == ()


def test_a_waiting_job_says_why_with_the_planners_numbers():
    world = World(room=False)
    world.waiting = QUOTA
    world.settle()
    queued = world.condition("Queued")
    assert (queued.status, queued.reason, queued.message) == ("True", "QuotaExceeded", QUOTA.message)
    assert world.status.state == "Queued"
    assert world.condition("Reconciling").message == QUOTA.message
    assert world.status.queued_time == times.to_text(START)
    assert world.status.effective["training"]["learningRate"] == "1e-3"
    assert world.pods == {}
    assert world.news == [("QuotaExceeded", QUOTA.message)]


def test_numbers_that_move_are_told_but_not_every_time():
    world = World(room=False)
    world.waiting = QUOTA
    world.settle()
    world.wait(3)
    world.waiting = Waiting(Reason.QUOTA_EXCEEDED, "needs 2 GPUs; queue team-a has 1 of 2 left")
    plan = world.look()
    assert plan.status is None
    assert 0 < plan.look_again_seconds <= 15
    world.wait(plan.look_again_seconds)
    world.look()
    assert world.condition("Queued").message == world.waiting.message
    assert len(world.news) == 1


def test_who_stands_far_behind_is_told_new_numbers_seldom():
    def writes(position: int) -> int:
        world, due = World(room=False), 0.0
        for second in range(3600):
            world.waiting = Waiting(Reason.QUOTA_EXCEEDED, f"{second} of 4000 in use", position=position)
            if second >= due:
                due = second + world.look().look_again_seconds
            world.wait(1)
        return world.status_writes

    assert writes(1) == pytest.approx(240, abs=3)
    assert writes(100) == pytest.approx(3, abs=1)
    assert writes(100_000) <= 2


def test_a_wait_is_told_with_position_blockers_and_the_expected_start():
    world = World(room=False)
    long = "x" * 3000
    world.waiting = Waiting(
        Reason.NO_ROOM,
        "5 free",
        position=3,
        starts_seconds=(START + datetime.timedelta(seconds=61)).timestamp(),
        blockers=(
            Blocker(Reason.NO_ROOM, "5 free"),
            *(Blocker(Reason.QUOTA_EXCEEDED, long) for _ in range(9)),
        ),
    )
    world.settle()
    waiting = world.status.waiting
    assert (waiting.reason, waiting.position) == ("NoRoom", 3)
    assert waiting.starts_at == times.to_text(START + datetime.timedelta(minutes=2)), "to the minute"
    assert waiting.since_time == times.to_text(START)
    assert [b.reason for b in waiting.blockers] == ["NoRoom"] + 7 * ["QuotaExceeded"]
    assert len(waiting.blockers[7].message) == 1024
    world.room = True
    world.settle()
    assert world.status.waiting is None


def test_who_would_move_for_it_is_told_in_numbers_that_do_not_change_at_every_look():
    world = World(room=False)
    plan = MovePlan(
        (Move("team-b/small", tuple(f"n{i}" for i in range(9)), ("n12",), 1234),),
        1234,
        due_seconds=START.timestamp() + 61,
        planned_seconds=START.timestamp(),
    )
    world.waiting = Waiting(Reason.NO_ROOM, "the best node has 1 free", position=1, moves=plan)
    world.settle()
    moves = world.status.waiting.moves
    assert moves.due_time == times.to_text(START + datetime.timedelta(minutes=2))
    (move,) = moves.jobs
    assert (move.job, move.to_nodes, len(move.from_nodes)) == ("team-b/small", ("n12",), 8)
    assert move.gpu_seconds == moves.gpu_seconds == 1300
    for price, told in ((71, 71), (99, 99), (101, 110), (0, 0)):
        few = dataclasses.replace(plan, gpu_seconds=price)
        world = World(room=False)
        world.waiting = Waiting(Reason.NO_ROOM, "x", position=1, moves=few)
        world.settle()
        assert world.status.waiting.moves.gpu_seconds == told


def test_what_is_in_the_way_besides_the_planner_is_a_blocker_too():
    world = World()
    world.claims = Claims(missing=("data",))
    world.settle()
    waiting = world.status.waiting
    assert (waiting.reason, waiting.position) == ("ClaimNotFound", None)
    assert waiting.blockers[0].message == world.condition("Queued").message


@pytest.mark.parametrize("end", ["suspend", "deadline"])
def test_who_waits_no_more_has_no_reason_to(end):
    world = World(room=False, activeDeadlineSeconds=60 if end == "deadline" else None)
    world.waiting = QUOTA
    world.settle()
    assert world.status.waiting is not None
    if end == "suspend":
        world.edit(suspend=True)
    else:
        world.room = True
        world.settle()
        world.wait(100)
    world.settle()
    assert world.status.waiting is None


@pytest.mark.parametrize("reason", [Reason.MAKING_ROOM, Reason.QUEUE_NOT_FOUND, Reason.NO_SUCH_NODES])
def test_another_reason_to_wait_is_told_at_once(reason):
    world = World(room=False)
    world.waiting = Waiting(Reason.QUOTA_EXCEEDED, "2 of 2 in use", position=9)
    world.settle()
    world.wait(3)
    world.waiting = Waiting(reason, "something else", position=9)
    world.settle()
    assert world.condition("Queued").reason == reason
    assert len(world.news) == 1


def test_reasons_of_those_in_line_change_into_each_other_like_numbers():
    world = World(room=False)
    world.waiting = Waiting(Reason.QUOTA_EXCEEDED, "2 of 2 in use", position=1)
    world.settle()
    world.wait(3)
    world.waiting = Waiting(Reason.NO_ROOM, "the best node has 1 free", position=1)
    plan = world.look()
    assert plan.status is None
    world.wait(plan.look_again_seconds)
    world.look()
    assert world.condition("Queued").reason == "NoRoom"
    assert len(world.news) == 1


@pytest.mark.parametrize(("position", "events"), [(None, 1), (3, 1), (4, 0)])
def test_an_event_tells_of_a_wait_at_the_head_of_the_line_only(position, events):
    world = World(room=False)
    world.waiting = Waiting(Reason.QUOTA_EXCEEDED, "2 of 2 in use", position=position)
    world.settle()
    assert len(world.news) == events


def test_admission_writes_the_place_down_before_any_pod():
    world = World()
    plan = world.plan()
    assert plan.status["placement"] == [
        {"rank": 0, "node": "node-0", "gpuModel": "H100"},
        {"rank": 1, "node": "node-1", "gpuModel": "H100"},
    ]
    assert plan.status["generation"] == 1
    world.settle()
    assert world.history == [("status", "Starting"), ("create", "digits-g1-0"), ("create", "digits-g1-1")]
    assert world.condition("Admitted").message == "2 workers on 2 nodes"
    assert world.status.start_time == times.to_text(START)


def test_a_gang_of_one_needs_no_service():
    assert {a.resource.kind for a in World(workers=1).plan().actions} == {"Pod"}
    assert {a.resource.kind for a in World(workers=2).plan().actions} == {"Pod", "Service"}
