"""The execution layer's own test kernels, built once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parent / "kernels"
ROOM = Path(__file__).resolve().parents[3] / "cuda_kernels"
# Not an installed package: for tests and the bench only.
if str(ROOM / "execution") not in sys.path:
    sys.path.insert(0, str(ROOM / "execution"))

from kernel_execution import Library, build  # noqa: E402


def library_of(name: str) -> Library:
    return build([KERNELS / name], include=[ROOM / "csrc"])


@pytest.fixture(scope="session")
def right() -> Library:
    return library_of("right.cu")


@pytest.fixture(scope="session")
def wrong() -> Library:
    return library_of("wrong.cu")


@pytest.fixture(scope="session")
def conversions() -> Library:
    return library_of("conversions.cu")
