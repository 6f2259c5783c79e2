"""A control plane of the operator's own: with controllers, without kubelets, so that tests play the kubelet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local_cluster.api import ApiServer, Options


@pytest.fixture(scope="session")
def plane() -> Iterator[ApiServer]:
    """API server and controller manager: service accounts, garbage collection and Deployments are real."""
    with ApiServer(Options(controller_manager=True)) as server:
        yield server
