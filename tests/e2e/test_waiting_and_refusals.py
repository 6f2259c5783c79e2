"""What cannot run says why, with numbers, holds nothing, and starts by itself when it can."""

from typing import Any

import pytest

from hall import Hall
from jobs import digits_job, service, sleeper

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def image(hall_up: Hall) -> str:
    return hall_up.environment["DATAHALL_TRAINER_IMAGE"]


def remove(hall: Hall, *names: str) -> None:
    hall.kubectl("delete", "trainingjob", "-n", "team-a", "--ignore-not-found", *names)


def pods_of(hall: Hall, name: str) -> list[dict[str, Any]]:
    return hall.list("pods", "team-a", f"datahall.dev/training-job={name}")


def test_job_over_quota_waits_with_numbers_and_starts_when_room_appears(
    hall_up: Hall, team: str, image: str
) -> None:
    hall_up.apply(sleeper("first", image=image, gpus=3))
    hall_up.job_in("first", team, "Running")
    hall_up.apply(sleeper("second", image=image, gpus=2))
    waiting = hall_up.wait(
        "second says why it waits",
        lambda: (
            (c := hall_up.condition("trainingjob", "second", team, "Queued")).get("status") == "True" and c
        ),
    )
    assert waiting["reason"] == "QuotaExceeded"
    assert "3 of 4" in waiting["message"] or ("2" in waiting["message"] and "1 of 4" in waiting["message"])
    assert pods_of(hall_up, "second") == []
    assert "QuotaExceeded" in hall_up.run("datahall", "describe", "tj/second", "-n", team)
    remove(hall_up, "first")
    hall_up.job_in("second", team, "Running")
    remove(hall_up, "second")


def test_missing_queue_is_named_and_nothing_starts(hall_up: Hall, team: str, image: str) -> None:
    hall_up.apply(sleeper("queueless", image=image, queue="nowhere"))
    hall_up.wait(
        "the queue is named",
        lambda: "nowhere" in hall_up.condition("trainingjob", "queueless", team, "Queued").get("message", ""),
    )
    assert pods_of(hall_up, "queueless") == []
    remove(hall_up, "queueless")


def test_missing_claim_is_named_and_nothing_starts(hall_up: Hall, team: str) -> None:
    job = digits_job("claimless")
    job["spec"]["data"]["train"] = "pvc://nowhere/digits"
    hall_up.apply(job)
    condition = hall_up.wait(
        "the claim is named",
        lambda: (
            (c := hall_up.condition("trainingjob", "claimless", team, "Queued")).get("status") == "True" and c
        ),
    )
    assert condition["reason"] == "ClaimNotFound"
    assert '"nowhere"' in condition["message"]
    assert pods_of(hall_up, "claimless") == []
    remove(hall_up, "claimless")


def test_absent_data_fails_the_job_at_once_with_a_sentence(hall_up: Hall, team: str) -> None:
    job = digits_job("dataless")
    job["spec"]["data"]["train"] = "pvc://data/digits/nowhere"
    hall_up.apply(job)
    status = hall_up.job_in("dataless", team, "Failed")
    assert status["failure"]["cause"] == "BadInput"
    assert "pvc://data/digits/nowhere" in status["failure"]["message"]
    assert status["failure"]["exitCode"] == 65
    assert "restarts" not in status
    hall_up.wait(
        "no worker is left",
        lambda: all(p["status"]["phase"] in ("Failed", "Succeeded") for p in pods_of(hall_up, "dataless")),
    )
    described = hall_up.run("datahall", "describe", "tj/dataless", "-n", team)
    assert "pvc://data/digits/nowhere" in described
    remove(hall_up, "dataless")


def test_unreachable_image_is_named_in_a_condition(hall_up: Hall, team: str) -> None:
    # Nobody listens there, which is told at once: that a name has no address, a resolver may tell after seconds.
    hall_up.apply(sleeper("imageless", image="127.0.0.1:1/none:1"))
    condition = hall_up.wait(
        "the image is named",
        lambda: (
            (c := hall_up.condition("trainingjob", "imageless", team, "Running")).get("reason")
            == "ImagePullFailed"
            and c
        ),
    )
    assert condition["status"] == "False"
    assert "127.0.0.1:1/none:1" in condition["message"]
    remove(hall_up, "imageless")


def test_service_of_a_missing_job_is_not_ready_and_says_so(hall_up: Hall, team: str) -> None:
    hall_up.apply(service("modelless", "nowhere"))
    condition = hall_up.wait(
        "the job is named",
        lambda: (
            (c := hall_up.condition("inferenceservices.datahall.dev", "modelless", team, "Ready")).get(
                "reason"
            )
            and c
        ),
    )
    assert condition["status"] == "False"
    assert condition["reason"] == "TrainingJobNotFound"
    assert hall_up.get("deployment", "modelless", team) == {}
    hall_up.kubectl("delete", "inferenceservices.datahall.dev", "-n", team, "modelless")


def test_wrong_digest_is_never_served(hall_up: Hall, team: str) -> None:
    output = hall_up.get("trainingjob", "digits", team)["status"]["output"]
    wrong = service("forged", "digits")
    wrong["spec"]["model"] = {"uri": output["uri"], "digest": "sha256:" + "0" * 64}
    hall_up.apply(wrong)
    condition = hall_up.wait(
        "the replica is failing",
        lambda: (
            (c := hall_up.condition("inferenceservices.datahall.dev", "forged", team, "Ready")).get("reason")
            == "ReplicaFailing"
            and c
        ),
    )
    assert condition["status"] == "False"
    assert "digest" in condition["message"]
    hall_up.kubectl("delete", "inferenceservices.datahall.dev", "-n", team, "forged")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sped": 1}, "sped"),
        ({"training": {"batchSize": -1}}, "batchSize"),
        ({"queue": None}, "queue"),
    ],
    ids=["unknown field", "negative batch", "no queue"],
)
def test_bad_job_is_refused_at_apply(
    hall_up: Hall, team: str, change: dict[str, Any], complaint: str
) -> None:
    job = digits_job("refused")
    job["spec"] |= change
    job["spec"] = {key: value for key, value in job["spec"].items() if value is not None}
    assert complaint in hall_up.apply(job, check=False)
    assert hall_up.get("trainingjob", "refused", team) == {}


def test_two_model_sources_are_refused_at_apply(hall_up: Hall, team: str) -> None:
    bad = service("refused", "digits")
    bad["spec"]["model"]["uri"] = "pvc://models/digits"
    assert "exactly one of fromTrainingJob and uri" in hall_up.apply(bad, check=False)
