"""Clusters for tests: an API server for most, a hall of fake nodes for the control loop, a real node for end to end.

Each is started once per process, when the first test asks for it, and ended with it (the full cluster stays
up: `python -m local_cluster down` ends it).
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

REPOSITORY = Path(__file__).resolve().parent.parent
# Tests run with `--import-mode=importlib`, which leaves sys.path alone; this room is not an installed package.
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from local_cluster.api import ApiServer, Options  # noqa: E402
from local_cluster.gpu_nodes import Layout  # noqa: E402

# On Python 3.11 the first `get_event_loop` of the main thread, which plugins call even for tests without a loop, makes
# one that nobody closes. Told once that there is none, it makes none.
asyncio.set_event_loop(None)


# How fast examples are made depends on what else the machine does, and says nothing about the code.
hypothesis.settings.register_profile(
    "datahall", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("datahall")

_END_TO_END = "tests/e2e/"


class OneProcessForTheCluster(LoadScopeScheduling):
    """Of the processes of `make test` one has all tests with the full cluster; of the others, each takes file by file.

    There is room for one such cluster, and what one of its tests looks at, others would change meanwhile.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _END_TO_END if nodeid.startswith(_END_TO_END) else nodeid.split("::", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return OneProcessForTheCluster(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes, the longest work comes first; on a cold cache it waits for images meanwhile."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(_END_TO_END))


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """etcd and the API server alone: objects are stored and validated, nothing acts on them."""
    with ApiServer() as server:
        yield server


@pytest.fixture(scope="session")
def hall() -> Iterator[ApiServer]:
    """Control plane with controller manager, scheduler and 8 fake nodes of 8 GPUs in 2 racks; pods run at once."""
    options = Options(controller_manager=True, scheduler=True, layout=Layout(nodes=8))
    with ApiServer(options) as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> Path:
    """The full cluster with both images: its kubeconfig. `CLUSTER=current` takes the current context instead."""
    command = [sys.executable, "-m", "local_cluster"]
    # Tests of another checkout may have theirs on this machine just now; there is room for one.
    up = subprocess.run([*command, "up", "--wait", "1500"], cwd=REPOSITORY, check=False)
    if up.returncode != 0:
        pytest.fail("`python -m local_cluster up` failed: its last lines above say why", pytrace=False)
    shown = subprocess.run([*command, "env"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    found = re.search(r"^export KUBECONFIG=(.+)$", shown.stdout, flags=re.MULTILINE)
    path = found.group(1) if found else os.environ.get("KUBECONFIG", str(Path.home() / ".kube" / "config"))
    return Path(path)


@pytest.fixture
def kubeconfig(api_server: ApiServer) -> Path:
    """Administrator's kubeconfig of `api_server`."""
    return api_server.kubeconfig


@pytest.fixture
def namespace(api_server: ApiServer) -> str:
    """A namespace of this test's own in `api_server`. It is left behind: the server goes with the session."""
    return make_namespace(api_server)


@pytest.fixture
def hall_namespace(hall: ApiServer) -> str:
    """A namespace of this test's own in `hall`."""
    return make_namespace(hall)


def make_namespace(server: ApiServer) -> str:
    name = f"test-{uuid.uuid4().hex[:10]}"
    rest = server.connect()
    try:
        rest.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    finally:
        rest.close()
    return name
