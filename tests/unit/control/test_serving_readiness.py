"""When a service may call itself Ready: replicas that fail, and roll-outs."""

from __future__ import annotations

import json

import pytest

from datahall.control import times
from datahall.control.serving.plan import Answers
from tests.unit.control.serving_world import AGAIN, NO_QUOTA, NO_ROOM, World, job, serving
from tests.unit.control.world import START


def test_replicas_are_ready_when_all_of_them_are():
    world = World()
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicasStarting")
    world.pod("r-1", ready=True)
    world.pod("r-2")
    world.controller(updated=2, ready=1)
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicasStarting")
    assert world.message("Ready") == "1 of 2 replicas are ready"
    assert world.condition("Reconciling")[0] == "True"
    world.pod("r-2", ready=True)
    world.settle()
    assert world.condition("Ready")[0] == "False", "the Deployment's controller does not say so yet"
    world.controller(updated=2, ready=2)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert (world.status.replicas, world.status.ready_replicas, world.status.updated_replicas) == (2, 2, 2)
    assert world.status.state == "Ready"
    assert world.news == ["ReplicasStarting", "Serving"]


CRASH = {"exitCode": 1, "reason": "Error", "message": "Traceback\nValueError: no labels"}

BAD_MODEL = {
    "exitCode": 65,
    "reason": "Error",
    "message": json.dumps(
        {"result": "Failed", "cause": "BadInput", "message": "model.uri: no manifest.json"}
    ),
}

OOM = {"exitCode": 137, "reason": "OOMKilled"}


@pytest.mark.parametrize(
    ("state", "ended", "cause", "sentence"),
    [
        ({"waiting": {"reason": "CrashLoopBackOff"}}, CRASH, "UserCode", "exit code 1"),
        ({"running": {}}, CRASH, "UserCode", "exit code 1"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, BAD_MODEL, "BadInput", "model.uri: no manifest.json"),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, OOM, "OutOfMemory", "killed for memory"),
        (
            {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}},
            None,
            "ImagePull",
            "no such tag",
        ),
        ({"waiting": {"reason": "ErrImageNeverPull", "message": "absent"}}, None, "ImagePull", "absent"),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": "x"}},
            None,
            "ImagePull",
            "ConfigError",
        ),
    ],
    ids=["back-off", "between", "bad model", "memory", "pull", "never pull", "config"],
)
def test_never_ready_while_a_replica_ends_again_and_again(state, ended, cause, sentence):
    world = serving()
    container = {"state": state, "restartCount": 3} | ({"lastState": {"terminated": ended}} if ended else {})
    world.pod("r-3", containerStatuses=[container])
    # Whatever the controller says of numbers: enough old replicas may be ready.
    world.controller(updated=2, ready=2)
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicaFailing")
    assert (world.status.failure.pod, world.status.failure.cause) == ("r-3", cause)
    assert sentence in world.status.failure.message
    assert "r-3" in world.message("Ready")
    assert sentence in world.message("Ready")


def test_the_log_of_a_failing_replica_is_told():
    world = serving()
    world.pod("r-3", containerStatuses=[{"state": {}, "restartCount": 1, "lastState": {"terminated": CRASH}}])
    world.settle()
    assert world.status.failure.last_log_lines == ("Traceback", "ValueError: no labels")
    assert world.status.failure.exit_code == 1
    del world.pods["r-3"]
    world.settle()
    assert world.status.failure is None
    assert world.condition("Ready") == ("True", "Serving")


def test_a_replica_that_was_restarted_long_ago_and_serves_is_no_failure():
    world = serving()
    world.pod("r-2", ready=True)
    world.pods["r-2"]["status"]["containerStatuses"][0] |= {
        "restartCount": 4,
        "lastState": {"terminated": CRASH},
    }
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_an_evicted_replica_that_was_replaced_is_no_failure():
    world = serving()
    # The kubelet ended it (node pressure, shutdown); its object stays until somebody sweeps it away.
    ended = {"terminated": {"exitCode": 137, "reason": "Error"}}
    world.pod("r-0", phase="Failed", reason="Evicted", containerStatuses=[{"state": ended}])
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert (world.status.replicas, world.status.failure) == (2, None)


def test_a_replica_that_leaves_is_not_counted():
    world = serving()
    world.pods["r-1"]["metadata"]["deletionTimestamp"] = times.to_text(START)
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicasStarting")
    assert (world.status.replicas, world.status.ready_replicas) == (1, 1)


def test_scaled_to_zero_is_as_asked():
    world = serving()
    world.edit(replicas={"min": 0})
    world.look()
    assert world.applied["Deployment"]["spec"]["replicas"] == 0
    world.controller(updated=0, ready=0, replicas=0)
    world.settle()
    assert world.condition("Ready")[0] == "False", "replicas are still there"
    world.pods.clear()
    world.settle()
    assert world.condition("Ready") == ("True", "ScaledToZero")
    assert world.condition("Reconciling")[0] == "False"


def rolling(*, gpus: int = 0, updated: int = 1, ready: int = 2) -> World:
    """A service that was Ready and rolls over to another model: three pods, so many of them new and ready."""
    world = serving(gpus=gpus)
    world.job = job(state="Succeeded", output=AGAIN, uid="job-2")
    world.settle()
    world.pod("s-1", ready=ready > 2, gpus=gpus)
    world.controller(updated=updated, ready=ready, replicas=3)
    return world


def test_a_roll_out_stays_ready_while_enough_replicas_answer_and_says_how_far_it_is():
    world = serving()
    world.job = job(state="Succeeded", output=AGAIN, uid="job-2")
    world.settle()
    for updated, ready, gone in ((0, 2, None), (1, 3, None), (1, 2, "r-1"), (2, 3, None)):
        if updated:
            world.pod(f"s-{updated}", ready=True)
            world.pods.pop(gone, None)
            world.controller(updated=updated, ready=ready, replicas=3)
            world.settle()
        text = f"{updated} of 2 replicas run the present version, {ready} are available"
        assert world.condition("Ready") == ("True", "Serving")
        assert world.condition("ReplicasReady") == ("True", "RollingOut")
        assert world.condition("Reconciling") == ("True", "RollingOut")
        assert world.message("Ready") == world.message("Reconciling") == text
        assert world.status.updated_replicas == updated
        assert world.status.state == "Ready"
    del world.pods["r-2"]
    world.controller(updated=2, ready=2)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("False", "UpToDate")
    assert world.news == ["ReplicasStarting", "Serving"]


def test_a_roll_out_is_not_ready_once_fewer_than_asked_for_answer():
    world = rolling()
    world.pod("r-2")
    world.settle()
    assert world.condition("Ready") == ("False", "RollingOut")
    assert world.message("Ready") == "1 of 2 replicas run the present version, 1 are available"
    world.pod("r-2", ready=True)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_roll_out_is_not_ready_while_the_new_version_ends_again_and_again():
    world = rolling()
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    ended = {"state": waiting, "restartCount": 2, "lastState": {"terminated": BAD_MODEL}}
    world.pod("s-1", containerStatuses=[ended])
    world.settle()
    assert world.condition("Ready") == ("False", "ReplicaFailing")
    assert "model.uri: no manifest.json" in world.message("Ready")


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("why", [NO_ROOM, NO_QUOTA])
def test_a_roll_out_without_room_for_one_more_stays_ready_and_says_so(gpus, why):
    world = rolling(gpus=gpus)
    world.gated("s-1", gpus=gpus, why=why)
    world.settle()
    assert world.condition("GPUAvailable")[0] == ("False" if gpus else "True")
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("True", str(why.reason))
    updated = "1 of 2 replicas run the present version, 2 are available"
    between = "; the next has no room: " if gpus else "; "
    assert world.message("Reconciling") == f"{updated}{between}1 replica waits: {why.message}"
    world.pod("r-2", gpus=gpus)
    world.settle()
    assert world.condition("Ready") == ("False", str(why.reason))


def test_a_roll_out_waits_for_no_replica_that_has_no_place_itself():
    def may_be_missing() -> int:
        strategy = world.applied["Deployment"]["spec"]["strategy"]
        assert strategy["rollingUpdate"]["maxSurge"] == 1
        return strategy["rollingUpdate"]["maxUnavailable"]

    world = serving(gpus=1)
    world.edit(replicas={"min": 3})
    world.gated("r-3", gpus=1, why=NO_QUOTA)
    world.controller(updated=3, ready=2, replicas=3)
    world.settle()
    assert may_be_missing() == 0, "nothing is replaced"
    world.edit(timeoutSeconds=20)
    world.settle()
    world.gated("s-1", gpus=1, why=NO_QUOTA)
    world.controller(updated=1, ready=2, replicas=4)
    world.settle()
    assert may_be_missing() == 1, "the two that answer go on answering, and the third is replaced first"
    world.pod("s-1", gpus=1, ready=True)
    world.seen["answers"] = Answers(waits={"r-3": NO_QUOTA}, one_too_many="s-1")
    world.controller(updated=1, ready=3, replicas=4)
    world.settle()
    assert may_be_missing() == 1, "three answer now, and the queue pays for two"
    world.pods["r-1"]["metadata"]["deletionTimestamp"] = times.to_text(START)
    world.settle()
    assert may_be_missing() == 1, "it counts until it is gone: else r-2 would go, too"
    world.pod("s-2", gpus=1, ready=True)
    world.seen["answers"] = Answers()
    world.controller(updated=2, ready=4, replicas=4)
    world.settle()
    assert may_be_missing() == 0


def test_a_roll_out_that_is_refused_stays_ready_and_says_so():
    world = serving()
    world.edit(timeoutSeconds=20)
    world.seen["refusal"] = "deployments.apps: exceeded quota"
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("True", "RequestRefused")
    assert "exceeded quota" in world.message("Reconciling")


def test_more_replicas_are_not_ready_before_they_answer():
    world = serving()
    world.edit(replicas={"min": 3})
    world.settle()
    assert world.condition("Ready")[0] == "False"
    world.pod("r-3", ready=True)
    world.controller(updated=3, ready=3)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_restart_by_somebody_else_leaves_it_ready_while_all_answer():
    world = serving()
    world.applied["Deployment"]["metadata"]["generation"] += 1  # kubectl rollout restart
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reconciling") == ("True", "RollingOut")
    world.pod("r-2")
    world.settle()
    assert world.condition("Ready") == ("False", "RollingOut")
