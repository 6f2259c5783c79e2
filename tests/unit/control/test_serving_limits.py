"""What an InferenceService does when quota or the API server says no."""

from __future__ import annotations

from typing import Any

import pytest

from datahall.api.conditions import find_condition
from datahall.api.inferenceservice import InferenceService
from datahall.control.actions import Plan
from datahall.control.serving.plan import Seen, plan
from datahall.control.views import PodView
from tests.unit.control.world import SETTINGS, START, merged


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


def condition(made: Plan, type_: str) -> tuple[str, str, str]:
    found = next(c for c in made.status["conditions"] if c["type"] == type_)
    return found["status"], found["reason"], found["message"]


@pytest.mark.parametrize("refusal", ["exceeded quota: pods", "Service digits exists and is not ours"])
def test_what_the_api_server_refused_is_told_and_kept_while_it_is_tried_again(refusal):
    made = plan(seen(refusal=refusal), SETTINGS)
    assert made.actions == ()
    assert condition(made, "Ready") == ("False", "RequestRefused", refusal)
    again = seen(status=merged({}, made.status))
    assert find_condition(again.service.status.conditions, "Ready") is not None
    made = plan(again, SETTINGS)
    assert len(made.actions) == 3
    assert made.status is None, "no other word before it is known to go through"
