"""What the operator sends and what the server takes, and the other way round (docs/contracts.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datahall.api.inferenceservice import InferenceService, PinnedModel
from datahall.control.serving import objects
from datahall.control.training.causes import EXIT_BAD_INPUT, worker_end
from datahall_server import config, termination
from tests.unit.control.world import DIGEST, SETTINGS, worker

PINNED = PinnedModel(uri="pvc://models/digits/versions/0123456789abcdef", digest=DIGEST)
SPECS: dict[str, dict[str, Any]] = {
    "least": {},
    "everything": {
        "batching": {"maxBatchSize": 1, "maxDelayMilliseconds": 0, "maxQueue": 1},
        "timeoutSeconds": 3600,
        "postprocess": {"topK": 1000, "threshold": 1.0},
    },
}


def service(**spec: Any) -> InferenceService:
    body = {
        "metadata": {
            "name": "digits",
            "namespace": "team-a",
            "uid": "s-uid",
            "resourceVersion": "1",
            "generation": 1,
        },
        "spec": {"queue": "team-a", "model": {"fromTrainingJob": {"name": "digits"}}, **spec},
    }
    return InferenceService.from_json(body)


def environment(made: InferenceService, model: PinnedModel = PINNED) -> dict[str, str]:
    body = objects.deployment(made, model, replicas=1, settings=SETTINGS)
    (container,) = body["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_server_takes_the_operators_configuration(spec):
    made = service(**spec)
    taken = config.load(environment(made))
    assert (taken.name, taken.namespace, taken.port) == ("digits", "team-a", objects.PORT)
    assert (taken.model.uri, taken.model.digest) == (PINNED.uri, PINNED.digest)
    assert taken.batching.max_batch_size == made.spec.batching.max_batch_size
    assert taken.batching.max_queue == made.spec.batching.max_queue
    assert taken.timeout_seconds == made.spec.timeout_seconds
    assert taken.postprocess.top_k == made.spec.postprocess.top_k
    assert taken.postprocess.threshold == made.spec.postprocess.threshold


def test_a_bare_uri_has_no_digest():
    taken = config.load(environment(service(), PinnedModel(uri="pvc://models/x")))
    assert taken.model.digest is None


def test_the_server_has_time_to_drain():
    made = service(timeoutSeconds=10)
    limits = config.Limits.from_environment(environment(made))
    assert limits.drain_seconds == objects.DRAIN_SECONDS
    body = objects.deployment(made, PINNED, replicas=1, settings=SETTINGS)
    spec = body["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > limits.shutdown_seconds
    (container,) = spec["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["terminationMessagePath"] == "/dev/termination-log"


def test_a_model_that_cannot_be_loaded_is_understood(tmp_path, monkeypatch):
    path = tmp_path / "termination-log"
    monkeypatch.setenv("DATAHALL_TERMINATION_LOG", str(path))
    termination.write(cause="BadInput", message="model.uri: pvc://models/digits: no manifest.json")
    assert termination.EXIT_BAD_INPUT == EXIT_BAD_INPUT
    ended = {"terminated": {"exitCode": termination.EXIT_BAD_INPUT, "message": path.read_text()}}
    end = worker_end(worker(status={"phase": "Failed", "containerStatuses": [{"state": ended}]}))
    assert str(end.cause) == json.loads(path.read_text())["cause"] == "BadInput"
    assert end.message == "model.uri: pvc://models/digits: no manifest.json"
