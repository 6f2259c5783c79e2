"""Why a worker ended: from exit code, last words and what the kubelet says."""

from __future__ import annotations

import pytest

from datahall.api.reasons import Cause
from datahall.control.training.causes import LOG_LINES_KEPT
from tests.unit.control.world import failed, running

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
