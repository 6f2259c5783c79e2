from __future__ import annotations

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are programs: each finds its helpers beside it. What they add to the path goes with the test."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
