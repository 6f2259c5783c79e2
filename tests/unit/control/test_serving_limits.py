"""What an InferenceService does when quota or the API server says no."""

from __future__ import annotations

from typing import Any

import pytest

from datahall.api.conditions import find_condition
from datahall.api.inferenceservice import InferenceService
from datahall.control.actions import Plan
from datahall.control.serving.plan import Seen, plan
from datahall.control.views import PodView
from tests.unit.control.world import SETTINGS, START, merged, worker


def seen(
    *, replicas: int = 3, pods: tuple[PodView, ...] = (), status: dict[str, Any] | None = None, **over: Any
) -> Seen:
    body = {
        "metadata": {
            "name": "digits",
            "namespace": "team-a",
            "uid": "s",
            "resourceVersion": "1",
            "generation": 1,
        },
        "spec": {
            "queue": "team-a",
            "model": {"uri": "pvc://models/x"},
            "resources": {"gpus": 2},
            "replicas": {"min": replicas},
        },
        "status": status or {},
    }
    return Seen(service=InferenceService.from_json(body), now=START, pods=pods, **over)


def replica(name: str) -> PodView:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    limits = {"limits": {"nvidia.com/gpu": "2"}}
    return worker(metadata={"name": name}, spec={"containers": [{"resources": limits}]}, status=status)


def replicas_of(made: Plan) -> int:
    return next(a.body["spec"]["replicas"] for a in made.actions if a.resource.kind == "Deployment")


def condition(made: Plan, type_: str) -> tuple[str, str, str]:
    found = next(c for c in made.status["conditions"] if c["type"] == type_)
    return found["status"], found["reason"], found["message"]


def test_quota_bounds_the_replicas_and_says_so_with_numbers():
    made = plan(seen(gpu_room=5), SETTINGS)
    assert replicas_of(made) == 2
    sentence = "3 replicas need 6 GPUs; queue team-a has 5 for them (0 held): 2 replicas run"
    assert condition(made, "GPUAvailable") == ("False", "QuotaExceeded", sentence)


def test_an_overdrawn_quota_means_no_replicas_and_not_fewer_than_none():
    made = plan(seen(gpu_room=-4), SETTINGS)
    assert replicas_of(made) == 0
    assert "has 0 for them" in condition(made, "GPUAvailable")[2]


def test_a_quota_that_was_lowered_takes_nothing_from_who_serves():
    made = plan(seen(gpu_room=-2, pods=tuple(replica(f"r-{n}") for n in range(3))), SETTINGS)
    assert replicas_of(made) == 3
    assert condition(made, "GPUAvailable")[0] == "True"


@pytest.mark.parametrize("refusal", ["exceeded quota: pods", "Service digits exists and is not ours"])
def test_what_the_api_server_refused_is_told_and_kept_while_it_is_tried_again(refusal):
    made = plan(seen(gpu_room=8, refusal=refusal), SETTINGS)
    assert made.actions == ()
    assert condition(made, "Ready") == ("False", "RequestRefused", refusal)
    again = seen(gpu_room=8, status=merged({}, made.status))
    assert find_condition(again.service.status.conditions, "Ready") is not None
    made = plan(again, SETTINGS)
    assert len(made.actions) == 3
    assert made.status is None, "no other word before it is known to go through"
