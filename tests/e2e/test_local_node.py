"""The full cluster's node does what the rest of the end-to-end tests take for granted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.environ.get("CLUSTER") == "current", reason="about the local cluster's own node"),
]

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "page", "labels": {"app": "web"}},
    "spec": {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "web",
                "image": "datahall.dev/operator:dev",
                "command": ["python", "-u", "-m", "http.server", "--directory", "/data", "8080"],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                "resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "100m", "memory": "64Mi"}},
                "securityContext": {
                    "readOnlyRootFilesystem": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
}


class Kubectl:
    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        from local_cluster import binaries

        self._start = [str(binaries.location("kubectl")), f"--kubeconfig={kubeconfig}", f"-n={namespace}"]

    def __call__(self, *arguments: str, send: object = None) -> str:
        result = subprocess.run(
            [*self._start, *arguments],
            input=None if send is None else json.dumps(send),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def kubectl(cluster: Path) -> Iterator[Kubectl]:
    namespace = f"node-{uuid.uuid4().hex[:8]}"
    run = Kubectl(cluster, namespace)
    run("create", "namespace", namespace)
    run("apply", "-f", "-", send={"apiVersion": "v1", "kind": "List", "items": [CLAIM, POD, SERVICE]})
    run("wait", "--for=condition=Ready", "pod/page", "--timeout=90s")
    yield run
    run("delete", "namespace", namespace, "--wait=false")


def test_gpus_are_assigned_and_named(kubectl: Kubectl) -> None:
    shown = kubectl(
        "exec", "page", "--", "python", "-c", "import os, json; print(json.dumps(dict(os.environ)))"
    )
    environment = json.loads(shown)
    uuids = environment["NVIDIA_VISIBLE_DEVICES"].split(",")
    assert len(set(uuids)) == 2
    assert all(item.startswith("GPU-") for item in uuids)
    assert environment["DATAHALL_SIMULATED_GPU"] == "1"


def test_a_volume_is_written_by_an_ordinary_user_and_served_to_machine_and_pod(kubectl: Kubectl) -> None:
    kubectl("exec", "page", "--", "python", "-c", "open('/data/hello', 'w').write('hall')")
    address = kubectl("get", "service", "web", "-o=jsonpath={.spec.clusterIP}")
    with urllib.request.urlopen(f"http://{address}/hello", timeout=10) as response:
        assert response.read() == b"hall"
    # From the pod to itself through the Service: name, address translation and the way back.
    program = "import urllib.request as u; print(u.urlopen('http://web/hello', timeout=10).read().decode())"
    assert kubectl("exec", "page", "--", "python", "-c", program).strip() == "hall"
    assert "GET /hello" in kubectl("logs", "page")


def test_an_unknown_name_is_refused_at_once(kubectl: Kubectl) -> None:
    program = (
        "import socket, time; start = time.time()\n"
        "try: socket.gethostbyname('nobody')\n"
        "except OSError: print(time.time() - start)\n"
    )
    assert float(kubectl("exec", "page", "--", "python", "-c", program)) < 2


def test_up_changes_nothing_when_all_is_up(cluster: Path) -> None:
    def pids() -> list[str]:
        shown = subprocess.run(
            [sys.executable, "-m", "local_cluster", "status"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 0, shown.stdout + shown.stderr
        return [line.split()[1] for line in shown.stdout.splitlines()]

    before = pids()
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "local_cluster", "up"], cwd=REPOSITORY, check=True)
    assert pids() == before
    assert time.monotonic() - started < 60
