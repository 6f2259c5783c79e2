from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from datahall.cli import words
from datahall.cli.app import app
from datahall.sdk import watching
from tests.unit.sdk.fake_api import FakeApi

NOW = datetime(2026, 11, 22, 15, 4, tzinfo=UTC)

asyncio.set_event_loop(None)  # see tests/unit/sdk/conftest.py


@pytest.fixture
def api() -> Iterator[FakeApi]:
    server = FakeApi()
    server.start()
    yield server
    server.stop()


Run = Callable[..., Result]


@pytest.fixture
def run(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `datahall` against the API server in memory, at 15:04 of the day the samples were made."""
    monkeypatch.setattr(words, "now", lambda: NOW)
    monkeypatch.setattr(watching, "FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
    runner = CliRunner()

    def invoke(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return runner.invoke(app, list(arguments), input=stdin, catch_exceptions=False)

    return invoke
