"""The operator asks for no right that it does not use, and misses none. Runs after the tests that make it work."""

import re

import pytest

from hall import SYSTEM, Hall

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# Rights that this suite gives no reason to use, or that the API server checks without a call of that name.
NOT_SEEN = {
    ("delete", "trainingjobs"): "only when a ttlSecondsAfterFinished has passed",
    ("update", "trainingjobs/finalizers"): "checked when a child names its owner with blockOwnerDeletion",
    (
        "update",
        "inferenceservices/finalizers",
    ): "checked when a child names its owner with blockOwnerDeletion",
    ("get", "queues"): "only when a status write met a conflict",
    ("get", "inferenceservices"): "only when a status write met a conflict",
    ("get", "trainingjobs"): "only when a status write met a conflict",
    ("get", "pods"): "only when a pod exists that the operator has not seen yet",
    ("get", "services"): "only when a Service exists already",
    ("create", "deployments"): "checked when server-side apply makes the object",
    ("create", "poddisruptionbudgets"): "checked when server-side apply makes the object",
    ("patch", "events"): "only when an Event is told again",
}
KOPF = {"namespaces", "customresourcedefinitions"}
"""kopf lists and watches these by itself."""


def test_rights_granted_are_the_rights_used(hall_up: Hall, digits: str) -> None:
    used: set[tuple[str, str]] = set()
    for pod in hall_up.list("pods", SYSTEM, "app.kubernetes.io/name=datahall"):
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:8081/proxy/metrics"
        text = hall_up.kubectl("get", "--raw", path)
        assert not re.search(r'^datahall_api_requests_total\{code="403"', text, flags=re.MULTILINE)
        used |= {
            (verb, resource)
            for resource, verb in re.findall(
                r'^datahall_api_requests_total\{.*resource="(.+)",verb="(.+)"\}', text, flags=re.MULTILINE
            )
        }
    granted: set[tuple[str, str]] = set()
    for kind, where in (("clusterrole", ""), ("role", SYSTEM)):
        for rule in hall_up.get(kind, "datahall-operator", where)["rules"]:
            granted |= {(verb, resource) for verb in rule["verbs"] for resource in rule["resources"]}
    watched = {(verb, resource) for verb, resource in granted if verb in ("list", "watch")}
    listed = {resource for verb, resource in used if verb == "list"}
    assert {resource for _, resource in watched} - KOPF <= listed
    assert used <= granted
    assert granted - watched - used <= set(NOT_SEEN)
