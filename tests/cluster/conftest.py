"""A control plane of the operator's own: with controllers, without kubelets, so that tests play the kubelet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_cluster.api import ApiServer, Options
from tests.cluster.operator_process import Operator
from tests.conftest import make_namespace


@pytest.fixture(scope="session")
def plane() -> Iterator[ApiServer]:
    """API server and controller manager: service accounts, garbage collection and Deployments are real."""
    with ApiServer(Options(controller_manager=True)) as server:
        yield server


@pytest.fixture(scope="module")
def operator(plane: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One operator for the tests of a module; no look of it may have crashed, and it ends when it is asked to."""
    process = Operator(
        plane.kubeconfig, namespace=make_namespace(plane), folder=tmp_path_factory.mktemp("operator")
    )
    process.start()
    yield process
    crashed = [line for line in process.log.read_text().splitlines() if '"reconcile crashed"' in line]
    code = process.stop()
    assert crashed == []
    assert code == 0, process.log.read_text()[-2000:]
