"""The kernels' own sources, built for the CPU execution layer once."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_execution import Library, build

ROOM = Path(__file__).resolve().parents[3] / "cuda_kernels"


@pytest.fixture(scope="session")
def kernels() -> Library:
    return build(sorted((ROOM / "csrc").glob("*.cu")))
