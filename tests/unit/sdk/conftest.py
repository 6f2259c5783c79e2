from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from datahall.sdk import AsyncClient, watching
from tests.unit.sdk.fake_api import FakeApi

# Python 3.11 makes an event loop for whoever asks in the main thread, as pytest-asyncio does before its first test,
# and nobody closes that one. Said once that there is none, it makes none.
asyncio.set_event_loop(None)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    server = FakeApi()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> str:
    return str(api.kubeconfig(tmp_path))


@pytest.fixture
async def client(kubeconfig: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(kubeconfig=kubeconfig) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated failures are retried at once; `test_watching` tests the delays themselves in virtual time."""
    monkeypatch.setattr(watching, "FIRST_DELAY_SECONDS", 0.0)
