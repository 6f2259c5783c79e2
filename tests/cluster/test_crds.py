"""The API server's side of the API: what it accepts, what it says when it does not, and what kubectl shows."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from datahall.api import crds
from datahall.api.conditions import set_condition
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob, TrainingJobSpec, TrainingJobStatus
from local_cluster import binaries
from local_cluster.api import ApiServer
from local_cluster.rest import Rest, RestError
from tests.unit.api import tables

pytestmark = pytest.mark.apiserver

ROOT = Path(__file__).parents[2]
API = "/apis/datahall.dev/v1alpha1"

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kubectl(api_server: ApiServer) -> Kubectl:
    program = binaries.ensure("kubectl")["kubectl"]

    def run(
        *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [str(program), *arguments],
            input=stdin,
            env={**os.environ, "KUBECONFIG": str(api_server.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            assert result.returncode == 0, result.stderr
        return result

    return run


@pytest.fixture(scope="module", autouse=True)
def definitions(kubectl: Kubectl, rest: Rest) -> None:
    """`kubectl apply -f crds/`, as a user does it; idempotent, for other tests may have done it before."""
    kubectl("apply", "-f", str(ROOT / "crds"))
    for kind in crds.KINDS:
        kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{kind.plural}.datahall.dev")
    # Established comes a moment before the path is served by every handler.
    for _ in range(100):
        try:
            for kind in crds.KINDS:
                rest.call("GET", f"{API}/{kind.plural}")
        except RestError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the API server does not serve the new kinds")


@pytest.fixture(scope="module")
def rest(api_server: ApiServer) -> Iterator[Rest]:
    connection = api_server.connect()
    yield connection
    connection.close()


def path_of(kind: str, namespace: str, name: str = "") -> str:
    where = API if kind in ("Queue", "PowerDomain") else f"{API}/namespaces/{namespace}"
    return f"{where}/{tables.PLURALS[kind]}{'/' if name else ''}{name}"


def create(rest: Rest, body: dict[str, Any], namespace: str, *, dry_run: bool = False) -> dict[str, Any]:
    options = "?fieldValidation=Strict&fieldManager=test" + ("&dryRun=All" if dry_run else "")
    return rest.call("POST", path_of(body["kind"], namespace) + options, body)


def patch(
    rest: Rest, body: dict[str, Any], namespace: str, change: dict[str, Any], subresource: str = ""
) -> dict[str, Any]:
    path = path_of(body["kind"], namespace, body["metadata"]["name"]) + subresource
    return rest.call(
        "PATCH", f"{path}?fieldValidation=Strict", change, content_type="application/merge-patch+json"
    )


@pytest.mark.parametrize("case", tables.good(), ids=lambda case: case.id)
def test_good_objects_are_accepted(case, rest, namespace):
    stored = create(rest, case.body, namespace, dry_run=True)
    assert case.model.model_validate(stored).spec == case.model.model_validate(case.body).spec


@pytest.mark.parametrize("case", tables.good(), ids=lambda case: case.id)
def test_what_the_models_write_is_accepted(case, rest, namespace):
    body = case.model.model_validate(case.body).to_json()
    body["metadata"] = {"name": body["metadata"]["name"]}
    body.pop("status")
    create(rest, body, namespace, dry_run=True)


@pytest.mark.parametrize("case", tables.bad(), ids=lambda case: case.id)
def test_bad_objects_are_refused_with_the_message(case, rest, namespace):
    with pytest.raises(RestError) as caught:
        create(rest, case.body, namespace, dry_run=True)
    assert caught.value.status in {400, 422}
    assert case.server_says in str(caught.value)


def test_the_definitions_have_no_complaint_of_the_api_server(rest):
    for kind in crds.KINDS:
        name = f"{kind.plural}.datahall.dev"
        definition = rest.call("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        conditions = {
            condition["type"]: condition["status"] for condition in definition["status"]["conditions"]
        }
        assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_nothing_is_written_into_a_spec(rest, namespace):
    for base in ("ImageJob", "TextJob", "CustomJob", "Queue", "PowerDomain"):
        body = tables.base(base)
        assert create(rest, body, namespace, dry_run=True)["spec"] == body["spec"]


def test_only_the_number_of_replicas_is_written_into_a_spec(rest, namespace):
    body = tables.base("Service")
    assert create(rest, body, namespace, dry_run=True)["spec"] == body["spec"] | {"replicas": {"min": 1}}


@pytest.mark.parametrize("kind", [kind.name for kind in crds.KINDS])
def test_explain_documents_every_field(kind, kubectl):
    definition = kubectl(
        "explain", tables.PLURALS[kind], "--api-version=datahall.dev/v1alpha1", "--output=plaintext-openapiv2"
    )
    assert "DESCRIPTION" in definition.stdout
    for part in ("spec", "status"):
        shown = kubectl("explain", f"{tables.PLURALS[kind]}.{part}", "--api-version=datahall.dev/v1alpha1")
        fields = re.findall(
            r"^  (\w+)\t<.*?\n(.*?)(?=^  \w+\t<|\Z)", shown.stdout, flags=re.MULTILINE | re.DOTALL
        )
        assert fields
        assert [name for name, text in fields if len(text.strip()) < 10 or "<no description>" in text] == []


@pytest.mark.parametrize("kind", [kind.name for kind in crds.KINDS])
def test_explain_recursive_names_every_field(kind, kubectl):
    shown = kubectl(
        "explain", tables.PLURALS[kind], "--recursive", "--api-version=datahall.dev/v1alpha1"
    ).stdout
    names = set(re.findall(r"^\s+(\w+)\t<", shown, flags=re.MULTILINE))
    schema = crds.custom_resource_definition(next(k for k in crds.KINDS if k.name == kind))
    wanted = set(_field_names(schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
    assert wanted <= names


def _field_names(node: dict[str, Any]) -> Iterator[str]:
    for name, child in node.get("properties", {}).items():
        yield name
        yield from _field_names(child)
    yield from _field_names(node["items"]) if "items" in node else ()


def test_kubectl_apply_refuses_an_unknown_field(kubectl, namespace):
    body = tables.base("ImageJob")
    body["spec"]["training"]["learnRate"] = "1"
    result = kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(body), check=False)
    assert result.returncode != 0
    assert 'unknown field "spec.training.learnRate"' in result.stderr


FROZEN = {
    "queue": "team-b",
    "task": "Custom",
    "workers": {"count": 2},
    "resources": {"gpus": 1},
    "topology": {"level": "rack"},
    "model": {"architecture": "resnet"},
    "data": {"train": "pvc://other/x"},
    "training": {"epochs": 6},
    "strategy": "AllReduce",
    "checkpoint": {"keep": 5},
    "output": {"uri": "pvc://models/other"},
    "container": {"image": "x"},
}
CHANGEABLE = {
    "suspend": True,
    "priority": 5,
    "ttlSecondsAfterFinished": 60,
    "activeDeadlineSeconds": 60,
    "failurePolicy": {"maxRestarts": 0},
}


def test_every_field_of_a_job_is_either_frozen_or_changeable():
    assert FROZEN.keys() | CHANGEABLE.keys() == {
        field.alias for field in TrainingJobSpec.model_fields.values()
    }


@pytest.mark.parametrize("field", FROZEN)
def test_what_a_job_trains_cannot_be_changed(field, rest, namespace):
    body = tables.base("ImageJob")
    create(rest, body, namespace)
    with pytest.raises(
        RestError,
        match=f"{field} cannot be changed once the TrainingJob exists: make a new one"
        if field in body["spec"]
        else f"{field}\\b.* cannot be added or removed once the TrainingJob exists: make a new one",
    ):
        patch(rest, body, namespace, {"spec": {field: FROZEN[field]}})


def test_what_is_frozen_cannot_be_removed_either(rest, namespace):
    body = tables.base("ImageJob")
    body["spec"]["workers"] = {"count": 2}
    create(rest, body, namespace)
    with pytest.raises(RestError, match=r"workers, .* cannot be added or removed once"):
        patch(rest, body, namespace, {"spec": {"workers": None}})


def test_the_rest_of_a_job_can_be_changed(rest, namespace):
    body = tables.base("ImageJob")
    create(rest, body, namespace)
    for field, value in CHANGEABLE.items():
        patch(rest, body, namespace, {"spec": {field: value}})
        patch(rest, body, namespace, {"spec": {field: None}})


def test_a_service_can_be_scaled(kubectl, rest, namespace):
    body = tables.base("Service")
    create(rest, body, namespace)
    scale = rest.call("GET", f"{path_of('InferenceService', namespace, 'digits')}/scale")
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (1, 0)
    kubectl("scale", "-n", namespace, "infs/digits", "--replicas=3", "--current-replicas=1")
    patch(rest, body, namespace, {"status": {"replicas": 2, "selector": "app=x"}}, "/status")
    scale = rest.call("GET", f"{path_of('InferenceService', namespace, 'digits')}/scale")
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "app=x"}
    refused = kubectl("scale", "-n", namespace, "infs/digits", "--replicas=5000", check=False)
    assert "should be less than or equal to 1000" in refused.stderr


def full_status() -> dict[str, Any]:
    job = TrainingJob.from_json(tables.base("ImageJob"))
    at = "2026-11-22T15:00:00Z"
    conditions = set_condition(
        (),
        type_="Running",
        status=True,
        reason="GangRunning",
        message="2 of 2 workers run",
        generation=1,
        now=at,
    )
    return TrainingJobStatus.model_validate(
        {
            "observedGeneration": 1,
            "conditions": [condition.to_json() for condition in conditions],
            "state": "Running",
            "effective": job.spec.effective(),
            "generation": 1,
            "placement": [{"rank": 0, "node": "node-a", "gpuModel": "H100"}, {"rank": 1, "node": "node-b"}],
            "workers": 2,
            "spread": "on 2 racks of 1 block; one rack was preferred",
            "waiting": {
                "position": 1,
                "reason": "BorrowedAway",
                "startsAt": at,
                "blockers": [
                    {"reason": "BorrowedAway", "message": "lent"},
                    {"reason": "NoRoom", "message": ""},
                ],
                "sinceTime": at,
            },
            "preemptions": 3,
            "preemptedBy": {"job": "team-b/big", "priority": 9, "time": at, "message": "2 GPUs"},
            "queuedTime": at,
            "startTime": at,
            "completionTime": at,
            "restarts": {"counted": 1, "uncounted": 2},
            "progress": {
                "step": 120,
                "totalSteps": 625,
                "epoch": 1,
                "epochs": 5,
                "percent": 19,
                "etaSeconds": 77,
                "samplesPerSecond": 410.2,
                "device": "cpu",
                "metrics": {"loss": 0.21, "epochs_done": 1},
                "time": at,
            },
            "lastCheckpoint": {
                "step": 100,
                "uri": "pvc://models/digits/.checkpoints/x",
                "bytes": 5,
                "time": at,
            },
            "failure": {
                "pod": "digits-g1-0",
                "node": "node-a",
                "rank": 0,
                "exitCode": 137,
                "signal": 9,
                "cause": "Killed",
                "message": "killed",
                "lastLogLines": ["a", "b"],
                "time": at,
                "generation": 1,
            },
            "output": {
                "uri": "pvc://models/digits/versions/0",
                "digest": "sha256:" + "0" * 64,
                "metrics": {"a": 1.0},
            },
        }
    ).to_json()


def test_a_whole_status_is_stored_as_it_is_and_leaves_the_spec_alone(rest, namespace):
    body = tables.base("ImageJob")
    create(rest, body, namespace)
    stored = patch(rest, body, namespace, {"status": full_status(), "spec": {"priority": 9}}, "/status")
    # A null means absent to a merge patch; everything else is kept, what is effective included.
    expected = copy.deepcopy(full_status())
    expected["effective"] = _without_null(expected["effective"])
    assert stored["status"] == expected
    assert "priority" not in stored["spec"]
    assert stored["metadata"]["generation"] == 1
    assert TrainingJob.from_json(stored).status.placement[1].gpu_model is None


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(child) for key, child in value.items() if child is not None}
    return value


def test_a_status_in_a_created_object_is_dropped(rest, namespace):
    body = tables.base("ImageJob") | {"status": {"state": "Succeeded"}}
    assert "status" not in create(rest, body, namespace)


def test_the_table_of_jobs_is_whole_and_fits_the_screen(kubectl, rest, namespace):
    body = tables.base("ImageJob")
    create(rest, body, namespace)
    patch(rest, body, namespace, {"status": full_status()}, "/status")
    head, row = kubectl("get", "tj", "-n", namespace, "-o", "wide").stdout.splitlines()
    assert head.split() == [
        "NAME",
        "STATE",
        "QUEUE",
        "WORKERS",
        "GPUS",
        "PERCENT",
        "ETA-S",
        "OF",
        "WAITS-FOR",
        "RESTARTS",
        "PREEMPTED",
        "CAUSE",
        "AGE",
    ]
    assert row.split()[:12] == [
        *("digits", "Running", "team-a", "2", "0", "19", "77"),
        *("1", "BorrowedAway", "1", "3", "Killed"),
    ]
    assert max(len(head), len(row)) <= 120


def test_a_queues_status_is_stored_whole_and_its_table_fits_the_screen(kubectl, rest, namespace):
    body = tables.base("Queue")
    body["metadata"]["name"], body["spec"]["parent"] = namespace, "research"
    create(rest, body, namespace)
    status = {
        "observedGeneration": 1,
        "conditions": [],
        "used": [
            {"model": "H100", "used": 12, "nominal": 8, "borrowed": 4, "available": 0},
            {"model": "Any", "used": 0, "nominal": 2, "borrowed": 0, "available": 2},
        ],
        "watts": {"reserved": 8400, "available": 0},
        "joules": {"lastDay": 1_000_000_000_000_001, "available": 7},
        "share": "0.125",
        "summary": "H100 12/8, Any 0/2",
        "admitted": 1,
        "waiting": 2,
    }
    stored = patch(rest, body, namespace, {"status": status}, "/status")
    assert stored["status"] == status
    assert Queue.from_json(stored).status.to_json() == status
    head, row = kubectl("get", "dhq", namespace, "-o", "wide").stdout.splitlines()
    assert head.split() == ["NAME", "PARENT", "USED", "WATTS", "SHARE", "ADMITTED", "WAITING", "AGE"]
    assert re.split(r"\s{2,}", row)[:7] == [
        *(namespace, "research", "H100 12/8, Any 0/2"),
        *("8400", "0.125", "1", "2"),
    ]
    assert max(len(head), len(row)) <= 120


def test_a_queue_can_be_hung_elsewhere_but_not_under_itself(rest, namespace):
    body = tables.base("Queue")
    body["metadata"]["name"] = namespace
    create(rest, body, namespace)
    for parent in ("research", "not-there-yet", None):
        patch(rest, body, namespace, {"spec": {"parent": parent}})
    with pytest.raises(RestError, match="must be another Queue"):
        patch(rest, body, namespace, {"spec": {"parent": namespace}})


def test_the_table_of_services_fits_the_screen(kubectl, rest, namespace):
    body = tables.base("Service")
    create(rest, body, namespace)
    status = {
        "state": "Ready",
        "readyReplicas": 1,
        "url": f"http://digits.{namespace}.svc:8080",
        "model": {"fromTrainingJob": "digits"},
    }
    patch(rest, body, namespace, {"status": status}, "/status")
    head, row = kubectl("get", "infs", "-n", namespace, "-o", "wide").stdout.splitlines()
    assert head.split() == ["NAME", "STATE", "QUEUE", "READY", "REPLICAS", "URL", "FROM", "AGE"]
    assert row.split()[:7] == ["digits", "Ready", "team-a", "1", "1", status["url"], "digits"]
    assert max(len(head), len(row)) <= 120


def test_jobs_can_be_selected_by_queue(kubectl, rest, namespace):
    for name, queue in (("one", "team-a"), ("two", "team-b")):
        body = tables.base("ImageJob")
        body["metadata"]["name"], body["spec"]["queue"] = name, queue
        create(rest, body, namespace)
    shown = kubectl(
        "get", "trainingjobs", "-n", namespace, "--field-selector=spec.queue=team-b", "-o", "json"
    )
    assert [item["metadata"]["name"] for item in json.loads(shown.stdout)["items"]] == ["two"]


def test_kubectl_knows_the_short_names_and_categories(kubectl):
    for category in ("datahall", "ml"):
        shown = kubectl("api-resources", f"--categories={category}", "-o", "name").stdout.split()
        assert sorted(shown) == [
            f"{plural}.datahall.dev"
            for plural in ("inferenceservices", "powerdomains", "queues", "trainingjobs")
        ]
