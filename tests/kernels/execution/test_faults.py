"""Deliberate faults in a source are found out, and one that says nothing is an error itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kernel_execution import Fault, FaultError, Input, Library, Output, build, find_survivors

CSRC = Path(__file__).resolve().parents[3] / "cuda_kernels" / "csrc"
SOURCES = [Path(__file__).parent / "kernels" / "right.cu"]

FAULTS = [
    Fault("right.cu", "column < width;", "column <= width;", "reads one beyond the row"),
    Fault("right.cu", "int distance = 16;", "int distance = 8;", "leaves half of a warp out"),
    Fault("right.cu", "of_warp[threadIdx.x / 32] = value;\n  __syncthreads();", "of_warp[threadIdx.x / 32] = value;",
          "no barrier before the sums of the warps are read"),
    Fault("right.cu", "value = warp_sum(value);", "if (threadIdx.x < 40) value = warp_sum(value);",
          "a shuffle that part of the warp does not come to"),
    Fault("right.cu", "if (threadIdx.x == 0) y[blockIdx.x] = sum;", "y[blockIdx.x] = sum + threadIdx.x;",
          "all threads write the result"),
]  # fmt: skip
UNNOTICED = Fault(
    "right.cu", "__shared__ float tile[32][33];", "__shared__ float tile[32][35];", "other banks"
)


def check(library: Library) -> None:
    for rows, width, threads in ((1, 1, 32), (3, 77, 64)):
        x = torch.randint(-8, 8, (rows, width)).float()
        y = torch.empty(rows)
        library.check("sum_rows_of_float", Input("x", x), Output("y", y), rows, width, threads)
        assert torch.equal(y, x.sum(1))


def test_faults_are_noticed_and_what_is_none_is_not() -> None:
    assert find_survivors([*FAULTS, UNNOTICED], SOURCES, check, include=[CSRC]) == [UNNOTICED]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault("right.cu", "no such text", "", "a fault of old"),
            "a fault of old: .* 0 times; it must be there once",
        ),
        (
            Fault("right.cu", "__syncthreads();", "", "one of many"),
            "one of many: .* times; it must be there once",
        ),
        (
            Fault("right.cu", "value = warp_sum(value);", "value = ;", "no C++"),
            "no C\\+\\+: does not compile",
        ),
    ],
)
def test_fault_that_says_nothing_is_an_error(fault: Fault, message: str) -> None:
    with pytest.raises(FaultError, match=message):
        find_survivors([fault], SOURCES, check, include=[CSRC])


def test_sources_as_they_are_must_pass() -> None:
    def fails(library: Library) -> None:
        raise AssertionError("a check that is wrong itself")

    with pytest.raises(AssertionError, match="wrong itself"):
        find_survivors([], [*SOURCES], fails, include=[CSRC])
    assert build(SOURCES, include=[CSRC]).path.exists()
