"""Fixtures of the end-to-end tests: one hall per session, installed by the chart as `make demo` does it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hall import Hall


@pytest.fixture(scope="session")
def hall_up(cluster: Path) -> Hall:
    """The full cluster with Datahall in it."""
    found = Hall(cluster)
    found.helm_install()
    return found


@pytest.fixture(scope="session")
def digits(hall_up: Hall) -> str:
    """The digits example, run to its end as `make demo` runs it: what it printed."""
    return hall_up.run(sys.executable, "examples/demo.py", "digits", timeout=900)


@pytest.fixture(scope="session")
def team(digits: str) -> str:
    """The namespace of the examples, with its queue and with data in its claim."""
    return "team-a"
