"""A job that ends for another: what it says, in which order, and that nothing gets stuck whatever else happens."""

from __future__ import annotations

import pytest

from datahall.api.reasons import Reason
from datahall.control import times
from datahall.control.training.plan import Eviction, Refusal, Waiting
from tests.unit.control.world import SUCCEEDED, World, custom, failed, running

BY_PRIORITY = Eviction("team-a/urgent", 1000, "makes room for team-a/urgent: its priority, 1000, is higher")
BY_QUOTA = Eviction("team-b/own", None, "queue team-b takes back what was borrowed")
FULL = Waiting(Reason.QUOTA_EXCEEDED, "0 of 16 left", position=1)


def evicted(**options: object) -> World:
    """A world whose gang was told to end; its pods are leaving."""
    world = running(**options)
    world.room, world.waiting = False, FULL
    world.eviction = BY_PRIORITY
    world.look()
    return world


def test_the_status_says_it_before_a_pod_is_touched():
    world = running()
    world.room = False
    world.eviction = BY_PRIORITY
    world.look(crash_after=1)
    assert world.history[-1] == ("status", "Queued")
    status = world.status
    assert status.placement == ()
    assert (status.workers, status.spread) == (None, None)
    assert (status.preemptions, status.restarts.uncounted, status.restarts.counted) == (1, 1, 0)
    by = status.preempted_by
    assert (by.job, by.priority, by.message) == ("team-a/urgent", 1000, BY_PRIORITY.message)
    assert by.time == times.to_text(world.now) == status.queued_time
    assert world.true() == {"Queued", "Restarting"}
    for condition in ("Queued", "Admitted", "Running", "Restarting"):
        assert world.condition(condition).reason == "Preempted"
    assert (status.waiting.reason, status.waiting.since_time) == ("Preempted", status.queued_time)


def test_priority_is_told_only_where_it_decided():
    world = running()
    world.room = False
    world.eviction = BY_QUOTA
    world.look()
    assert (world.status.preempted_by.job, world.status.preempted_by.priority) == ("team-b/own", None)


def test_workers_have_their_grace_and_the_job_waits_in_line_when_they_are_gone():
    world = evicted()
    assert [entry for entry in world.history if entry[0] == "delete"] == [
        ("delete", "digits-g1-0"),
        ("delete", "digits-g1-1"),
    ]
    assert world.news[-1] == ("Preempted", BY_PRIORITY.message)
    writes = world.status_writes
    plan = world.look()
    assert plan.actions == (), "each pod is told once"
    assert plan.look_again_seconds is not None
    world.end(0, 143)
    world.look()
    assert world.status_writes == writes, "while they leave there is nothing new to say"
    world.reap()
    world.settle()
    assert world.condition("Queued").reason == "QuotaExceeded"
    assert world.status.restarts.uncounted == 1
    assert world.status.failure is None, "a worker that ends because it was told to has not failed"


def test_it_goes_on_with_the_next_generation():
    world = evicted()
    world.reap()
    world.settle()
    world.room = True
    world.settle()
    assert world.names() == ["digits-g2-0", "digits-g2-1"]
    world.run()
    world.settle()
    assert world.true() == {"Admitted", "Running"}
    assert world.status.preemptions == 1
    assert world.status.preempted_by.job == "team-a/urgent", "the newest is kept"
    assert [reason for reason, _ in world.news] == ["Preempted", "QuotaExceeded", "Restarted"]


def test_each_time_counts():
    world = evicted()
    for times_before in (1, 2):
        assert world.status.preemptions == times_before
        world.reap()
        world.room = True
        world.settle()
        world.run()
        world.settle()
        world.room, world.eviction = False, BY_QUOTA
        world.look()
    assert (world.status.preemptions, world.status.restarts.uncounted) == (3, 3)
    assert world.status.preempted_by.job == "team-b/own"


def test_an_eviction_that_was_not_written_is_forgotten():
    world = running()
    world.eviction = BY_PRIORITY
    world.look(crash_after=0)
    world.eviction = None  # another leader knows nothing of it
    world.settle()
    assert world.true() == {"Admitted", "Running"}
    assert world.status.preemptions is None


def test_an_eviction_that_was_written_is_carried_on():
    world = running()
    world.room, world.waiting = False, FULL
    world.eviction = BY_PRIORITY
    world.look(crash_after=2)
    world.settle()
    assert world.pods == {}
    assert (world.status.preemptions, world.status.restarts.uncounted) == (1, 1)


def test_a_gang_without_pods_yet_gives_its_place_up_at_once():
    world = World()
    world.look(crash_after=1)
    assert world.status.placement
    world.room, world.waiting = False, FULL
    world.eviction = BY_PRIORITY
    world.look()
    world.settle()
    assert world.created() == []
    assert world.condition("Queued").reason == "QuotaExceeded"


def test_a_result_that_is_there_counts_and_the_job_is_left_alone():
    world = running()
    world.end(0, 0, SUCCEEDED)
    world.end(1, 0)
    world.eviction = BY_PRIORITY
    world.settle()
    assert world.true() == {"Succeeded"}
    assert world.status.preemptions is None


def test_a_result_that_comes_while_it_leaves_counts_too():
    world = evicted()
    world.end(0, 0, SUCCEEDED)
    world.end(1, 143)
    world.settle()
    assert world.true() == {"Succeeded"}
    assert world.status.waiting is None


def test_a_worker_that_leaves_in_order_without_a_result_is_no_failure():
    world = evicted()
    world.end(0, 0)
    world.end(1, 0)
    world.settle()
    assert world.true() == {"Queued", "Restarting"}


@pytest.mark.parametrize("what", ["suspend", "deadline", "delete"])
def test_what_else_happens_to_it_goes_first(what):
    world = running(activeDeadlineSeconds=600)
    world.room = False
    world.eviction = BY_PRIORITY
    if what == "suspend":
        world.edit(suspend=True)
    elif what == "deadline":
        world.wait(601)
    else:
        world.deleting = True
    world.settle()
    assert world.status.preemptions is None
    assert (
        world.true()
        == {
            "suspend": {"Suspended"},
            "deadline": {"Failed"},
            "delete": {"Admitted", "Running"},
        }[what]
    )


def test_a_job_that_is_suspended_while_it_leaves_is_suspended():
    world = evicted()
    world.edit(suspend=True)
    world.settle()
    assert world.true() == {"Suspended"}
    assert world.pods == {}
    assert world.status.waiting is None


def test_a_failure_of_its_own_at_the_same_time_is_told_and_the_place_given_up():
    world = running()
    world.room, world.waiting = False, FULL
    world.eviction = BY_PRIORITY
    world.end(1, 1, failed("UserCode", "ValueError: no"))
    world.look()
    assert world.status.placement == ()
    assert (world.status.restarts.counted, world.status.preemptions) == (1, None)
    world.settle()
    assert world.true() == {"Queued", "Restarting"}


def test_input_that_can_never_work_fails_the_job_all_the_same():
    world = running()
    world.eviction = BY_PRIORITY
    world.end(1, 65, failed("BadInput", "data.train: no such directory"))
    world.settle()
    assert world.true() == {"Failed"}


def test_a_gang_whose_older_pods_still_leave_gives_its_place_up():
    world = running()
    world.end(0, 1, failed("UserCode", "x"))
    world.look()  # generation 2 is due, generation 1 still leaves
    assert world.status.generation == 2
    world.room, world.waiting = False, FULL
    world.eviction = BY_PRIORITY
    world.look()
    world.settle()
    assert world.true() == {"Queued", "Restarting"}
    world.room = True
    world.settle()
    assert world.names() == ["digits-g3-0", "digits-g3-1"]


def test_a_refusal_of_a_child_gives_the_place_back_anyway():
    world = World()
    world.look()
    world.refusal = Refusal("quota", final=False)
    world.eviction = BY_PRIORITY
    world.room = False
    world.look()
    assert world.status.placement == ()
    assert world.status.preemptions is None


def test_who_makes_others_end_says_so_once():
    world = World(room=False)
    world.waiting = Waiting(
        Reason.MAKING_ROOM, "1 job of lower standing (team-a/old) must save and end first"
    )
    world.settle()
    assert world.condition("Queued").reason == "MakingRoom"
    world.wait(20)
    world.settle()
    assert world.news == [("Preempting", world.waiting.message)]


def test_a_preemptor_that_is_suspended_or_deleted_leaves_nothing_behind():
    world = World(room=False)
    world.waiting = Waiting(Reason.MAKING_ROOM, "1 job must save and end first", position=1)
    world.settle()
    world.edit(suspend=True)
    world.settle()
    assert world.true() == {"Suspended"}
    assert world.status.waiting is None


# ---- gangs that start with fewer workers


def test_a_gang_has_the_size_that_it_was_placed_with():
    world = World(workers=8, fewest=1)
    world.placed = 3
    world.settle()
    assert (world.status.workers, world.status.spread) == (3, "on one rack")
    assert world.names() == [f"digits-g1-{rank}" for rank in range(3)]
    variables = [
        {v["name"]: v["value"] for v in pod["spec"]["containers"][0]["env"]} for pod in world.pods.values()
    ]
    assert {v["PET_NNODES"] for v in variables} == {"3"}
    assert len({v["PET_MASTER_ADDR"] for v in variables}) == 1
    world.run()
    world.settle()
    assert world.condition("Running").message == "3 of 3 workers run"


def test_a_gang_that_restarts_in_its_place_keeps_its_size_and_a_new_place_has_its_own():
    world = World(workers=4, fewest=1)
    world.placed = 2
    world.settle()
    world.run()
    world.settle()
    world.end(0, 1, failed("UserCode", "x"))
    world.settle()
    assert (world.status.generation, world.status.workers) == (2, 2)
    world.run()
    world.settle()
    world.room, world.waiting, world.eviction = False, FULL, BY_PRIORITY
    world.look()
    world.settle()
    assert world.status.workers is None
    world.placed, world.room = 4, True
    world.settle()
    assert world.status.workers == 4
    assert len(world.names()) == 4


def test_an_elastic_gang_of_one_needs_no_name_for_its_first_worker():
    world = World(workers=4, fewest=1)
    world.placed = 1
    plan = world.look()
    assert [action.body["kind"] for action in plan.actions] == ["Pod"]
    (pod,) = world.pods.values()
    assert "PET_MASTER_ADDR" not in {v["name"] for v in pod["spec"]["containers"][0]["env"]}


def test_a_custom_gang_of_fewer_workers_has_succeeded_when_these_have():
    world = World(workers=4, fewest=2, **custom())
    world.placed = 2
    world.settle()
    world.run()
    world.end(0, 0)
    world.settle()
    assert world.true() == {"Admitted", "Running"}
    world.end(1, 0)
    world.settle()
    assert world.true() == {"Succeeded"}
    assert (world.status.workers, world.status.spread) == (2, None), "how many it ended with is kept"


@pytest.mark.parametrize("reason", [Reason.MOVED, Reason.RESIZED])
def test_a_run_that_ends_for_the_gangs_own_sake_is_no_preemption(reason):
    world = running()
    world.eviction = Eviction("team-a/large", None, "it saves, and goes on elsewhere", reason)
    world.look()
    assert {
        c: world.condition(c).reason for c in ("Queued", "Admitted", "Running", "Restarting")
    } == dict.fromkeys(("Queued", "Admitted", "Running", "Restarting"), str(reason))
    assert (world.status.preemptions, world.status.preempted_by) == (None, None)
    assert world.status.restarts.uncounted == 1
    world.settle()
    world.run()
    world.settle()
    assert world.true() == {"Admitted", "Running"}
    assert world.status.generation == 2
    assert [told for told, _ in world.news] == [str(reason), "Restarted"]
