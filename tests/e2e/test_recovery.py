"""Whatever dies, the job ends the same: equal digests mean equal weights, bit for bit."""

from typing import Any

import pytest

from hall import SYSTEM, Hall
from jobs import digits_job

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

EPOCHS = 2
"""Long enough that whatever a test does still finds the job in the middle, on a fast machine too."""


def past_a_checkpoint(hall: Hall, name: str) -> None:
    """Wait until the job runs and has saved at least once."""

    def look() -> Any:
        status = hall.get("trainingjob", name, "team-a").get("status", {})
        return status.get("state") == "Running" and status.get("lastCheckpoint")

    hall.wait(f"{name} past a checkpoint", look, 180)


def finish(hall: Hall, name: str) -> dict[str, Any]:
    status = hall.job_in(name, "team-a", "Succeeded", "Failed", seconds=400)
    assert status["state"] == "Succeeded", status.get("failure")
    return status


@pytest.fixture(scope="module")
def unbroken(hall_up: Hall, team: str) -> dict[str, Any]:
    """The run that nothing happens to."""
    hall_up.apply(digits_job("unbroken", epochs=EPOCHS))
    return finish(hall_up, "unbroken")


def test_gang_restarts_once_from_its_checkpoint_when_a_worker_is_killed(
    hall_up: Hall, unbroken: dict[str, Any]
) -> None:
    hall_up.apply(digits_job("killed", epochs=EPOCHS))
    past_a_checkpoint(hall_up, "killed")
    hall_up.kill_worker("killed-g1-1")
    status = finish(hall_up, "killed")
    assert status["restarts"] == {"counted": 1, "uncounted": 0}
    assert status["generation"] == 2
    assert status["failure"]["rank"] == 1
    assert status["failure"]["signal"] == 9
    assert "resum" in hall_up.kubectl("logs", "-n", "team-a", "killed-g2-0").lower()
    assert status["output"]["digest"] == unbroken["output"]["digest"]


def test_gang_restarts_once_uncounted_when_a_pod_is_deleted(hall_up: Hall, unbroken: dict[str, Any]) -> None:
    hall_up.apply(digits_job("deleted", epochs=EPOCHS))
    past_a_checkpoint(hall_up, "deleted")
    hall_up.kubectl("delete", "pod", "-n", "team-a", "deleted-g1-0", "--wait=false")
    status = finish(hall_up, "deleted")
    assert status["restarts"] == {"counted": 0, "uncounted": 1}
    assert status["generation"] == 2
    assert status["output"]["digest"] == unbroken["output"]["digest"]


def test_job_ends_the_same_when_the_leading_operator_is_killed(
    hall_up: Hall, unbroken: dict[str, Any]
) -> None:
    hall_up.apply(digits_job("orphaned", epochs=EPOCHS))
    past_a_checkpoint(hall_up, "orphaned")
    leader = hall_up.leader()
    assert leader
    before = hall_up.get("lease", "datahall-operator", SYSTEM)["spec"]["renewTime"]
    hall_up.kill_operator(leader)

    def led_again() -> Any:
        # Either the standby takes over, or the kubelet restarts the container sooner and it leads again.
        return (
            hall_up.get("lease", "datahall-operator", SYSTEM)["spec"]["renewTime"] > before
            and hall_up.leader()
        )

    hall_up.wait("a leader again", led_again, 20)
    status = finish(hall_up, "orphaned")
    assert status["generation"] == 1
    assert status["output"]["digest"] == unbroken["output"]["digest"]
    pods = hall_up.list("pods", "team-a", "datahall.dev/training-job=orphaned")
    assert sorted(pod["metadata"]["name"] for pod in pods) == ["orphaned-g1-0", "orphaned-g1-1"]


def test_suspended_job_frees_its_gpus_and_goes_on_from_its_checkpoint(
    hall_up: Hall, unbroken: dict[str, Any]
) -> None:
    hall_up.apply(digits_job("paused", epochs=EPOCHS))
    past_a_checkpoint(hall_up, "paused")
    hall_up.run("datahall", "suspend", "paused", "-n", "team-a")
    hall_up.job_in("paused", "team-a", "Suspended")
    hall_up.wait(
        "no worker is left",
        lambda: (
            not [
                pod
                for pod in hall_up.list("pods", "team-a", "datahall.dev/training-job=paused")
                if pod["status"]["phase"] in ("Pending", "Running")
            ]
        ),
    )
    hall_up.run("datahall", "resume", "paused", "-n", "team-a")
    status = finish(hall_up, "paused")
    assert status["output"]["digest"] == unbroken["output"]["digest"]


def test_operator_upgrade_restarts_no_training_pod(hall_up: Hall, unbroken: dict[str, Any]) -> None:
    hall_up.apply(digits_job("upgraded", epochs=EPOCHS))
    past_a_checkpoint(hall_up, "upgraded")
    before = {
        pod["metadata"]["uid"] for pod in hall_up.list("pods", "team-a", "datahall.dev/training-job=upgraded")
    }
    old = {pod["metadata"]["name"] for pod in hall_up.list("pods", SYSTEM)}
    hall_up.helm_install("--set", "logLevel=debug")
    assert not old & {
        pod["metadata"]["name"]
        for pod in hall_up.list("pods", SYSTEM)
        if "deletionTimestamp" not in pod["metadata"]
    }
    status = finish(hall_up, "upgraded")
    after = {
        pod["metadata"]["uid"] for pod in hall_up.list("pods", "team-a", "datahall.dev/training-job=upgraded")
    }
    assert after == before
    assert status["output"]["digest"] == unbroken["output"]["digest"]


def test_a_gang_makes_way_for_another_goes_on_from_its_checkpoint_and_everyone_is_told_why(
    hall_up: Hall, unbroken: dict[str, Any]
) -> None:
    """Two GPUs of the queue's three are held, and two are needed by a higher priority in the same queue."""
    contended = {
        "apiVersion": "datahall.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": "contended"},
        "spec": {"gpus": [{"model": "Any", "nominal": 3}], "minimumRunSeconds": 0},
    }
    hall_up.apply(contended, digits_job("made-way", epochs=EPOCHS, queue="contended"))
    past_a_checkpoint(hall_up, "made-way")
    assert "has its place" in hall_up.run("datahall", "explain", "made-way", "-n", "team-a")
    hall_up.apply(digits_job("urgent", queue="contended", priority=100))
    told = hall_up.wait(
        "the victim is told who ended it",
        lambda: hall_up.get("trainingjob", "made-way", "team-a").get("status", {}).get("preemptedBy"),
        60,
    )
    assert told["job"] == "team-a/urgent"
    assert told["priority"] == 100
    during = hall_up.run("datahall", "explain", "made-way", "-n", "team-a")
    assert "team-a/urgent" in during
    assert "2 x 1 GPU" in during
    urgent = finish(hall_up, "urgent")
    assert urgent["generation"] == 1
    status = finish(hall_up, "made-way")
    assert status["restarts"] == {"counted": 0, "uncounted": 1}
    assert status["preemptions"] == 1
    assert status["generation"] == 2
    assert "resum" in hall_up.kubectl("logs", "-n", "team-a", "made-way-g2-0").lower()
    assert status["output"]["digest"] == unbroken["output"]["digest"]
    after = hall_up.run("datahall", "explain", "made-way", "-n", "team-a")
    assert "team-a/urgent" in after
    events = hall_up.list("events", "team-a")
    reasons = {(event["involvedObject"]["name"], event["reason"]) for event in events}
    assert ("made-way", "Preempted") in reasons
    assert ("urgent", "Preempting") in reasons
