"""API mode for real: what it starts answers, looks as asked for, and is gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from local_cluster.api import ApiServer, Options
from local_cluster.gpu_nodes import Layout
from local_cluster.processes import Identity, read_identity
from local_cluster.rest import RestError

pytestmark = pytest.mark.apiserver
REPOSITORY = Path(__file__).resolve().parents[2]


def test_ready_and_of_the_pinned_version(api_server: ApiServer) -> None:
    rest = api_server.connect()
    try:
        assert rest.call("GET", "/version")["gitVersion"] == "v1.36.3"
        assert rest.call("GET", "/readyz") == {"message": "ok"}
    finally:
        rest.close()


def test_rbac_is_on(api_server: ApiServer) -> None:
    context = ssl.create_default_context(cafile=str(api_server.ca))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{api_server.url}/api/v1/secrets", context=context)


def test_a_pod_can_be_made_without_controllers(api_server: ApiServer, namespace: str) -> None:
    rest = api_server.connect()
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    try:
        rest.call("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
        with pytest.raises(RestError, match="409"):
            rest.call("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
    finally:
        rest.close()


def test_kwok_nodes_stand_in_racks_and_blocks_and_run_pods(hall: ApiServer, hall_namespace: str) -> None:
    rest = hall.connect()
    pods = f"/api/v1/namespaces/{hall_namespace}/pods"
    try:
        nodes = rest.call("GET", "/api/v1/nodes")["items"]
        places = {
            node["metadata"]["name"]: (
                node["metadata"]["labels"]["datahall.dev/rack"],
                node["metadata"]["labels"]["datahall.dev/block"],
                node["metadata"]["labels"]["nvidia.com/gpu.product"],
            )
            for node in nodes
        }
        assert len(places) == 8
        assert places["gpu-0003"] == ("rack-000", "block-00", "NVIDIA-H100-80GB-HBM3")
        assert places["gpu-0004"] == ("rack-001", "block-00", "NVIDIA-H100-80GB-HBM3")
        assert {node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes} == {"8"}

        for name, annotations in (
            ("runs", {}),
            ("ends", {"datahall.dev/complete-after": "100ms"}),
            ("breaks", {"datahall.dev/fail-after": "100ms"}),
        ):
            limits = {"limits": {"nvidia.com/gpu": "8"}}
            container = {"name": "c", "image": "i", "resources": limits}
            metadata = {"name": name, "annotations": annotations}
            rest.call("POST", pods, {"metadata": metadata, "spec": {"containers": [container]}})
        wanted = {"runs": "Running", "ends": "Succeeded", "breaks": "Failed"}
        deadline = time.monotonic() + 30
        while True:
            items = rest.call("GET", pods)["items"]
            phases = {item["metadata"]["name"]: item["status"]["phase"] for item in items}
            if phases == wanted:
                break
            assert time.monotonic() < deadline, phases
            time.sleep(0.1)
    finally:
        # The hall is the session's: a pod that runs on would hold its node's GPUs for every later test.
        for name in ("runs", "ends", "breaks"):
            with contextlib.suppress(RestError):
                rest.call("DELETE", f"{pods}/{name}?gracePeriodSeconds=0")
        rest.close()


def test_two_instances_stand_side_by_side_and_leave_nothing() -> None:
    with ApiServer() as one, ApiServer() as two:
        folders = (one.folder, two.folder)
        assert one.url != two.url
        identities = [read_identity(path) for folder in folders for path in folder.glob("*.pid")]
        assert len(identities) == 4
        rest = one.connect()
        try:
            rest.call("POST", "/api/v1/namespaces", {"metadata": {"name": "only-in-one"}})
        finally:
            rest.close()
        rest = two.connect()
        try:
            with pytest.raises(RestError, match="404"):
                rest.call("GET", "/api/v1/namespaces/only-in-one")
        finally:
            rest.close()
    assert not any(folder.exists() for folder in folders)
    assert not any(identity is not None and identity.alive() for identity in identities)


def test_an_owner_killed_outright_leaves_nothing_either() -> None:
    program = (
        "import json, sys, time; from local_cluster.api import ApiServer; s = ApiServer().start();"
        "print(json.dumps([str(s.folder), *[p.pid for p in s._processes.values()]]), flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        folder, *pids = json.loads(owner.stdout.readline())
        identities = [Identity.of(pid) for pid in pids]
        assert None not in identities
        os.kill(owner.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(folder).exists() or any(identity.alive() for identity in identities if identity):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_controller_that_cannot_start_is_named_with_its_log() -> None:
    server = ApiServer(Options(api_server_flags=("--no-such-flag",)))
    with pytest.raises(Exception, match=r"(?s)kube-apiserver ended with status 1.*no-such-flag"):
        server.start()
    server.close()


@pytest.mark.parametrize("nodes", [1], ids=["one-node"])
def test_layout_alone_needs_no_controllers(nodes: int) -> None:
    with ApiServer(Options(layout=Layout(nodes=nodes))) as server:
        rest = server.connect()
        try:
            assert len(rest.call("GET", "/api/v1/nodes")["items"]) == nodes
        finally:
            rest.close()
