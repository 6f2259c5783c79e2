"""The kernels' own sources, built for the CPU execution layer once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).resolve().parents[3] / "cuda_kernels"
# Not an installed package: for tests and the bench only.
if str(ROOM / "execution") not in sys.path:
    sys.path.insert(0, str(ROOM / "execution"))

from kernel_execution import Library, build  # noqa: E402


@pytest.fixture(scope="session")
def kernels() -> Library:
    return build(sorted((ROOM / "csrc").glob("*.cu")))
