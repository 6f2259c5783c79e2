"""The execution layer's own test kernels, built once."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_execution import Library, build

KERNELS = Path(__file__).resolve().parent / "kernels"
ROOM = Path(__file__).resolve().parents[3] / "cuda_kernels"


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
