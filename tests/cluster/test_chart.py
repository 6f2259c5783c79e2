"""Helm and the API server: install, upgrade and uninstall, as far as they go without a kubelet."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_cluster import binaries
from local_cluster.api import ApiServer
from local_cluster.rest import Rest, RestError
from tests.unit.api import tables

pytestmark = pytest.mark.apiserver

CHART = Path(__file__).parents[2] / "charts" / "datahall"
JOBS = "/apis/datahall.dev/v1alpha1/namespaces/default/trainingjobs"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OPERATOR = "/apis/apps/v1/namespaces/hall/deployments/datahall-operator"

SCHEMA = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/datahall-operator"

Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def own_server() -> Iterator[ApiServer]:
    """A server of its own: where other tests have applied crds/, Helm would refuse to take them over."""
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="module")
def rest(own_server: ApiServer) -> Iterator[Rest]:
    connection = own_server.connect()
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def helm(own_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    program = binaries.ensure("helm")["helm"]
    home = str(tmp_path_factory.mktemp("helm"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [str(program), *arguments, "--namespace", "hall"],
            env={
                **os.environ,
                "KUBECONFIG": str(own_server.kubeconfig),
                "HELM_CACHE_HOME": home,
                "HELM_DATA_HOME": home,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result

    return run


def exists(rest: Rest, path: str) -> bool:
    try:
        rest.call("GET", path)
    except RestError as error:
        if error.status != 404:
            raise
        return False
    return True


def judged(rest: Rest, path: str) -> dict[str, str]:
    """The conditions of an object, once the API server has set some."""
    deadline = time.monotonic() + 30
    while not (conditions := rest.call("GET", path).get("status", {}).get("conditions")):
        assert time.monotonic() < deadline, f"{path} has no conditions"
        time.sleep(0.05)
    return {each["type"]: each["status"] for each in conditions}


def test_install_upgrade_uninstall(helm: Helm, rest: Rest) -> None:
    found = rest.call("GET", DEFINITIONS)["items"]
    assert [(item["metadata"]["name"], item["metadata"]["managedFields"]) for item in found] == []

    notes = helm("install", "datahall", str(CHART), "--create-namespace").stdout
    assert "Datahall 0.1.0 is installed: 2 operator pod(s) in namespace hall." in notes
    assert exists(rest, OPERATOR)
    assert judged(rest, SCHEMA) == {"Dangling": "False"}

    body: dict[str, Any] = tables.base("ImageJob")
    created = rest.call("POST", JOBS, body)

    helm("upgrade", "datahall", str(CHART), "--set", "logLevel=debug,serviceMonitor.enabled=false")
    assert rest.call("GET", f"{JOBS}/digits")["metadata"] == created["metadata"]

    helm("rollback", "datahall", "1")
    helm("uninstall", "datahall")
    assert not exists(rest, OPERATOR)
    assert rest.call("GET", f"{JOBS}/digits")["spec"] == body["spec"]

    # What was kept does not stand in the way of the next installation.
    helm("install", "datahall", str(CHART))
    assert exists(rest, OPERATOR)
    assert rest.call("GET", f"{JOBS}/digits")["metadata"]["uid"] == created["metadata"]["uid"]
