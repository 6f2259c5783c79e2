"""Uninstalling takes the operator and nothing else. Named last: it runs after the tests that need an operator."""

import pytest

from hall import SYSTEM, Hall

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_helm_uninstall_keeps_definitions_and_objects_and_install_picks_them_up(
    hall_up: Hall, digits: str
) -> None:
    before = hall_up.get("trainingjob", "digits", "team-a")
    hall_up.run("helm", "uninstall", "datahall", "-n", SYSTEM, "--wait")
    kept = hall_up.get("trainingjob", "digits", "team-a")
    assert kept["metadata"]["uid"] == before["metadata"]["uid"]
    assert kept["status"] == before["status"]
    assert hall_up.get("deployment", "digits", "team-a")["status"]["availableReplicas"] == 1
    hall_up.helm_install()
    assert hall_up.get("trainingjob", "digits", "team-a")["status"]["output"] == before["status"]["output"]
    assert (
        hall_up.condition("inferenceservices.datahall.dev", "digits", "team-a", "Ready")["status"] == "True"
    )
