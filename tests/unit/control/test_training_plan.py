"""The whole life of a TrainingJob, case by case, on a world in memory."""

from __future__ import annotations

import dataclasses
import datetime

import pytest

from datahall.api.reasons import Cause, Reason
from datahall.api.trainingjob import TrainingJobSpec
from datahall.control import times
from datahall.control.claims import Claims, Unbound
from datahall.control.training.causes import LOG_LINES_KEPT
from datahall.control.training.endings import STRAGGLER_PATIENCE_SECONDS
from datahall.control.training.failures import BIND_PATIENCE_SECONDS
from datahall.control.training.look import FORCE_AFTER_SECONDS
from datahall.control.training.progress import PROGRESS_EVERY_SECONDS, read_progress
from datahall.control.training.running import ROOT_CAUSE_PATIENCE_SECONDS
from datahall.control.training.seen import Blocker, LeftBehind, Refusal, Report, Waiting
from datahall.planning.move_plans import Move, MovePlan
from tests.unit.control.world import DIGEST, PROGRESS, START, SUCCEEDED, UID, World, custom, failed, running

WAITS_FOR_POD = Claims(
    unbound=(
        Unbound("data", True, 'PersistentVolumeClaim "data" is Pending: its storage class "x" binds it'),
    )
)
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/2 nodes fit",
}
QUOTA = Waiting(Reason.QUOTA_EXCEEDED, "needs 2 GPUs; queue team-a has 0 of 2 left")


def report(world: World, step: int, *, generation: int | None = None) -> Report:
    generation = world.status.generation if generation is None else generation
    return Report(generation, read_progress({**PROGRESS, "step": step}, world.now), None)


# ---- waiting and admission


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


def test_a_missing_claim_is_named_and_nothing_is_made():
    world = World()
    world.claims = Claims(missing=("data", "models"))
    world.settle()
    queued = world.condition("Queued")
    assert queued.reason == "ClaimNotFound"
    assert queued.message == 'PersistentVolumeClaim "data", "models" does not exist in namespace team-a'
    assert world.created() == []
    world.claims = Claims()
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_a_claim_that_no_pod_would_bind_is_named_and_no_pod_is_made():
    world = World()
    world.claims = Claims(unbound=(Unbound("data", False, 'PersistentVolumeClaim "data" is Pending: x'),))
    world.settle()
    queued = world.condition("Queued")
    assert (queued.reason, queued.message) == ("ClaimNotBound", 'PersistentVolumeClaim "data" is Pending: x')
    assert world.created() == []
    for _ in range(10):
        world.wait(300)
        assert world.plan().status is None
    assert world.status.restarts is None
    world.claims = Claims()
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_a_claim_that_waits_for_its_first_pod_gets_one():
    world = World()
    world.claims = WAITS_FOR_POD
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_pods_that_wait_for_a_volume_say_for_which():
    world = World()
    world.claims = WAITS_FOR_POD
    world.settle()
    before = world.condition("Reconciling").message
    plan = world.plan()
    assert plan.status is None, "a volume may take a moment"
    world.wait(plan.look_again_seconds)
    world.settle()
    message = world.condition("Reconciling").message
    assert message != before
    assert message == f"2 of 2 pods have no node yet: {WAITS_FOR_POD.unbound[0].sentence}"
    world.claims = Claims()
    world.run()
    world.settle()
    assert world.condition("Reconciling").status == "False"


def test_an_object_of_an_earlier_job_of_the_name_is_named_until_it_is_gone():
    world = World()
    world.left_behind = LeftBehind("Service", "digits-workers", "uid-of-the-first")
    world.settle()
    queued = world.condition("Queued")
    assert queued.reason == "NameInUse"
    assert 'Service "digits-workers" of an earlier TrainingJob' in queued.message
    assert "uid-of-the-first" in queued.message
    assert world.created() == []
    assert world.plan().look_again_seconds is None, "its deletion is an event"
    world.left_behind = None
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_an_object_that_is_found_in_the_way_after_admission_is_named_too():
    world = World()
    world.look(crash_after=1)
    world.left_behind = LeftBehind("Service", "digits-workers", "uid-of-the-first")
    world.settle()
    assert world.condition("Reconciling").reason == "NameInUse"
    assert world.created() == []
    world.left_behind = None
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


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


def test_pods_left_by_an_earlier_job_of_the_name_go_first():
    world = running()
    world.raw["status"] = {}
    world.look()
    assert world.status.placement == ()
    assert all("deletionTimestamp" in pod["metadata"] for pod in world.pods.values())
    world.settle()
    assert world.names() == ["digits-g1-0", "digits-g1-1"]


def test_a_pod_of_an_earlier_job_of_the_name_that_still_leaves_is_named():
    world = running()
    world.raw["status"] = {}
    world.raw["metadata"]["uid"] = "second"
    world.look()
    queued = world.condition("Queued")
    assert queued.reason == "NameInUse"
    assert f'Pod "digits-g1-0" of an earlier TrainingJob of this name (uid {UID})' in queued.message
    assert "Restarting" not in world.true()


def test_an_orphan_of_an_earlier_job_of_the_name_is_named_and_stopped():
    world = running()
    world.raw["status"] = {}
    for pod in world.pods.values():
        del pod["metadata"]["ownerReferences"]
    world.look()
    message = world.condition("Queued").message
    assert message.startswith('Pod "digits-g1-0" of an earlier TrainingJob of this name is still there')
    world.settle()
    assert world.created()[-2:] == ["digits-g1-0", "digits-g1-1"]


def test_a_pod_of_an_earlier_job_is_never_taken_for_one_of_this_job():
    world = running()
    for rank in (0, 1):
        world.end(rank, 0, SUCCEEDED if rank == 0 else None)
    world.raw["metadata"]["uid"] = "second"  # as if its own pods had these names, generation and ranks
    world.look()
    assert world.true() == {"Admitted", "Running"}
    assert all("deletionTimestamp" in pod["metadata"] for pod in world.pods.values())


def test_finished_pods_left_by_an_earlier_job_of_the_name_are_fenced():
    world = running()
    for rank in (0, 1):
        world.end(rank, 1)
    world.raw["status"] = {}
    world.settle()
    assert world.status.generation == 2
    assert world.names() == ["digits-g2-0", "digits-g2-1"]


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


# ---- running


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


# ---- progress


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


# ---- causes

ENDS = [
    # exit, said, kubelet, cause, counted
    (1, None, {}, Cause.USER_CODE, True),
    (3, "Traceback\nValueError: x", {}, Cause.USER_CODE, True),
    (1, failed("UserCode", "ValueError: x", "a", "b"), {}, Cause.USER_CODE, True),
    (65, None, {}, Cause.USER_CODE, True),
    (75, failed("PeerLost", "rank 1 went away"), {}, Cause.PEER_LOST, True),
    (137, None, {"reason": "OOMKilled"}, Cause.OUT_OF_MEMORY, True),
    (137, None, {}, Cause.KILLED, True),
    (143, failed("Interrupted", "SIGTERM"), {}, Cause.INTERRUPTED, False),
    (137, None, {"pod_reason": "Evicted", "pod_message": "low on memory"}, Cause.EVICTED, False),
    (137, None, {"pod_reason": "NodeShutdown"}, Cause.NODE_LOST, False),
    (137, None, {"pod_reason": "UnexpectedAdmissionError"}, Cause.UNSCHEDULABLE, False),
    (137, None, {"pod_reason": "OutOfnvidia.com/gpu"}, Cause.UNSCHEDULABLE, False),
    (143, None, {"disruption": "EvictionByEvictionAPI"}, Cause.EVICTED, False),
    (143, None, {"disruption": "PreemptionByScheduler"}, Cause.PREEMPTED, False),
    (143, None, {"disruption": "DeletionByTaintManager"}, Cause.NODE_LOST, False),
    (143, None, {"disruption": "DeletionByPodGC"}, Cause.NODE_LOST, False),
    (143, None, {"disruption": "TerminationByKubelet"}, Cause.EVICTED, False),
]


@pytest.mark.parametrize(("exit_code", "said", "kubelet", "cause", "counted"), ENDS)
def test_a_worker_that_ends_early_restarts_the_gang(exit_code, said, kubelet, cause, counted):
    world = running()
    world.end(0, 75)
    world.end(1, exit_code, said, **kubelet)
    world.settle()
    status = world.status
    assert status.failure.cause == cause
    assert status.failure.exit_code == (75 if cause is Cause.PEER_LOST else exit_code)
    assert (status.restarts.counted, status.restarts.uncounted) == (int(counted), int(not counted))
    assert status.generation == 2
    assert world.names() == ["digits-g2-0", "digits-g2-1"]
    world.run()
    world.settle()
    assert world.true() == {"Admitted", "Running"}
    assert world.condition("Restarting").reason == "Restarted"
    assert world.news[-1][0] == "Restarted"


def test_a_failure_says_where_and_why_with_the_last_lines():
    world = running()
    world.end(1, 1, failed("UserCode", "ValueError: x", "line 1", "line 2"))
    world.look()
    failure = world.status.failure
    assert failure.pod == "digits-g1-1"
    assert failure.node == "node-1"
    assert failure.rank == 1
    assert failure.generation == 1
    assert failure.message == "ValueError: x"
    assert failure.last_log_lines == ("line 1", "line 2")
    text = world.condition("Restarting").message
    assert text == "worker 1 (digits-g1-1 on node-1): UserCode: ValueError: x; generation 2 follows"


def test_a_killed_worker_has_its_signal():
    world = running()
    world.end(1, 137)
    world.look()
    assert world.status.failure.signal == 9


def test_without_a_termination_message_the_log_speaks():
    world = running()
    world.end(1, 1, "\n".join(f"line {n}" for n in range(40)))
    world.look()
    assert len(world.status.failure.last_log_lines) == LOG_LINES_KEPT
    assert world.status.failure.last_log_lines[-1] == "line 39"


@pytest.mark.parametrize("lines", [5, {"a": 1}, "text", [None, 3], ["x" * 9000] * 90], ids=range(5))
def test_odd_log_lines_of_a_foreign_program_do_no_harm(lines):
    world = running()
    world.end(1, 1, {"result": "Failed", "message": "m", "lastLogLines": lines})
    world.settle()
    assert world.status.generation == 2
    assert len(world.status.failure.last_log_lines) <= LOG_LINES_KEPT


def test_bad_input_fails_at_once_with_the_sentence():
    world = running(failurePolicy={"maxRestarts": 3})
    sentence = "data.train: pvc://data/digits/7/x.png: cannot identify image file"
    world.end(1, 65, failed("BadInput", sentence))
    world.settle()
    assert world.true() == {"Failed"}
    failed_condition = world.condition("Failed")
    assert (failed_condition.reason, failed_condition.message) == ("BadInput", sentence)
    assert world.condition("Stalled").status == "True"
    assert world.status.restarts is None
    assert world.status.failure.message == sentence
    assert world.names() == ["digits-g1-1"], "the others are stopped, the one that failed keeps its log"


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


# ---- nodes


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


# ---- images


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


# ---- the end


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


# ---- suspension


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


# ---- refusals


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


# ---- restarts of the operator


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
