"""The operator is granted what it uses: nothing that it asks for is refused."""

import re

import pytest

from hall import SYSTEM, Hall

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

KOPF = {"namespaces", "customresourcedefinitions"}
"""kopf lists and watches these by itself."""


def test_every_call_is_within_the_rights_granted(hall_up: Hall, digits: str) -> None:
    used: set[tuple[str, str]] = set()
    for pod in hall_up.list("pods", SYSTEM, "app.kubernetes.io/name=datahall"):
        if "deletionTimestamp" in pod["metadata"]:
            continue  # an upgrade replaced it a moment ago
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
