"""The kernels' rooms are no installed packages, but for `datahall_kernels`: they come last, so that an installed wheel
is what is tested (`make test-kernels`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOM = Path(__file__).resolve().parents[2] / "cuda_kernels"
sys.path.extend(str(room) for room in (ROOM, ROOM / "execution", ROOM / "bench") if str(room) not in sys.path)

# As in tests/conftest.py, which is not there when the wheel is tested.
hypothesis.settings.register_profile(
    "datahall", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("datahall")


@pytest.fixture(autouse=True)
def by_reference(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is tested on the CPU is the reference, and not torch beside itself; other rooms' tests see nothing of it."""
    from datahall_kernels import dispatch

    if "DATAHALL_KERNELS" not in os.environ:
        monkeypatch.setenv("DATAHALL_KERNELS", "reference")
    dispatch.forget()
    yield
    dispatch.forget()
