"""The pod that the operator makes is one that the server can read."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from datahall.api.inferenceservice import InferenceService, PinnedModel
from datahall.control.serving import objects
from datahall.control.settings import Settings
from datahall_server import config
from datahall_server.errors import StartError
from tests.contract import document

SETTINGS = Settings.from_environment({"POD_NAME": "operator-0"})
DIGEST = "sha256:" + "0123456789abcdef" * 4
MODEL = PinnedModel(uri="pvc://models/digits/versions/0123456789abcdef", digest=DIGEST)
EXAMPLES = document.examples("InferenceService")


def service(body: dict[str, Any] | None = None, /, **spec: Any) -> InferenceService:
    body = copy.deepcopy(body or EXAMPLES["digits/40-inferenceservice.yaml"])
    body["metadata"] |= {"namespace": "team-a", "uid": "u", "creationTimestamp": "2026-11-22T16:00:00Z"}
    body["spec"] |= spec
    return InferenceService.from_json(body)


def container(of: InferenceService, model: PinnedModel = MODEL) -> dict[str, Any]:
    made = objects.deployment(of, model, settings=SETTINGS)
    (only,) = made["spec"]["template"]["spec"]["containers"]
    return only


def environment(of: InferenceService, model: PinnedModel = MODEL) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(of, model)["env"]}


LEAST: dict[str, Any] = {
    "metadata": {"name": "digits"},
    "spec": {"queue": "team-a", "model": {"fromTrainingJob": {"name": "digits"}}},
}
EVERYTHING = copy.deepcopy(LEAST)
EVERYTHING["spec"] |= {
    "batching": {"maxBatchSize": 1, "maxDelayMilliseconds": 0, "maxQueue": 1},
    "timeoutSeconds": 3600,
    "postprocess": {"topK": 1000, "threshold": 1.0},
}
LARGEST = copy.deepcopy(LEAST)
LARGEST["spec"] |= {
    "batching": {"maxBatchSize": 4096, "maxDelayMilliseconds": 10_000, "maxQueue": 1_000_000},
    "timeoutSeconds": 1,
}
SERVICES = EXAMPLES | {"least": LEAST, "everything": EVERYTHING, "largest batches": LARGEST}
"""The examples, and services that say as little, or as much, as the API lets through."""


@pytest.mark.parametrize("name", SERVICES)
def test_the_server_reads_the_configuration_of_each_service(name):
    given = service(SERVICES[name])
    read, spec = config.load(environment(given)), given.spec
    assert (read.name, read.namespace, read.port) == (given.metadata.name, "team-a", objects.PORT)
    assert (read.model.uri, read.model.digest) == (MODEL.uri, DIGEST)
    assert read.batching.max_batch_size == spec.batching.max_batch_size
    assert read.batching.max_delay_milliseconds == spec.batching.max_delay_milliseconds
    assert read.batching.max_queue == spec.batching.max_queue
    assert read.timeout_seconds == spec.timeout_seconds
    assert read.postprocess.top_k == spec.postprocess.top_k
    assert read.postprocess.threshold == spec.postprocess.threshold


def test_the_time_for_an_answer_is_what_the_user_said_or_ten_seconds():
    assert config.load(environment(service(LEAST))).timeout_seconds == 10
    assert config.load(environment(service(EVERYTHING))).timeout_seconds == 3600


def test_a_bare_uri_has_no_digest():
    assert config.load(environment(service(), PinnedModel(uri="pvc://models/mine"))).model.digest is None


def test_the_configuration_that_the_contract_shows_is_of_that_shape():
    contract = document.json_after("## Operator -> server")
    sent = objects.server_config(service(), MODEL)
    for part, value in contract.items():
        assert part in sent
        if isinstance(value, dict):
            assert set(sent[part]) == set(value), part
    assert set(sent) == set(contract)
    with pytest.raises(StartError, match="digest"):  # the document writes "sha256:..."
        config.load({"DATAHALL_SERVER_CONFIG": json.dumps(contract)})


def test_the_drain_is_one_that_the_server_knows_and_the_grace_period_holds_it():
    given = service()
    limits = config.Limits.from_environment(environment(given))
    assert limits.drain_seconds == objects.DRAIN_SECONDS == 5
    template = objects.deployment(given, MODEL, settings=SETTINGS)["spec"]["template"]["spec"]
    assert template["terminationGracePeriodSeconds"] > limits.shutdown_seconds


def test_the_port_and_the_probes_are_the_servers():
    given = service()
    made = container(given)
    read = config.load(environment(given))
    assert made["name"] == "server"
    assert made["command"] == ["python", "-m", "datahall_server"]
    assert [port["containerPort"] for port in made["ports"]] == [read.port] == [8080]
    assert made["terminationMessagePath"] == "/dev/termination-log"
    assert made["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert made["livenessProbe"]["httpGet"]["path"] == made["startupProbe"]["httpGet"]["path"] == "/health"
    for path in ("/ready", "/health"):
        assert f"`GET {path}`" in document.TEXT


def test_the_model_is_mounted_where_the_server_looks():
    mounts = {m["mountPath"]: m for m in container(service())["volumeMounts"]}
    assert mounts["/mnt/pvc/models"]["readOnly"] is True
