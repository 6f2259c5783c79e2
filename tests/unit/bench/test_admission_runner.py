"""The runner: what it writes into a status is what the operator would have written."""

from __future__ import annotations

from bench.admission_objects import job
from bench.admission_runner import ended
from bench.admission_sets import QUEUE_SETS
from datahall.api.conditions import training_job_state
from datahall.api.trainingjob import TrainingJob
from datahall.control.training.plan import terminal, wants_admission

ADMITTED = {
    "conditions": [
        {
            "type": "Admitted",
            "status": "True",
            "reason": "Admitted",
            "message": "",
            "lastTransitionTime": "2026-11-22T15:00:00Z",
            "observedGeneration": 1,
        }
    ],
    "generation": 1,
    "placement": [{"rank": 0, "node": "a"}],
    "state": "Starting",
}


def test_a_job_that_the_runner_ended_has_ended_for_the_operator_too() -> None:
    body = job("small-1", queue="team", of=QUEUE_SETS["kueue-baseline"].classes[0])
    body["metadata"] |= {"uid": "u", "generation": 1}
    body["status"] = ADMITTED
    assert not terminal(TrainingJob.from_json(body))
    body["status"] = ADMITTED | ended(body)
    after = TrainingJob.from_json(body)
    assert terminal(after)
    assert not wants_admission(after, ())
    assert training_job_state(after.status.conditions) == after.status.state == "Succeeded"
    assert after.status.placement == ()
