"""norm.cu, run on the CPU: every shape of row, all types, any order of threads, and what lies badly."""

from __future__ import annotations

import pytest
import torch

from kernel_execution import Library, Order
from tests.kernels.sources import norms
from tests.kernels.sources.launching import DTYPES, name_of

WIDTHS = [1, 2, 7, 8, 31, 123, 129, 256, 384, 576, 768, 1000, 1024, 1032, 2048, 4096, 5001, 8192]
BEYOND_REGISTERS = [9000, 16384, 33000]


@pytest.mark.parametrize("layer", [False, True], ids=["rms", "layer"])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_every_width(kernels: Library, width: int, dtype: torch.dtype, layer: bool) -> None:
    rows = 9 if width < 2000 else 3
    norms.check(kernels, norms.Case(rows, width, dtype, layer=layer, weight_dtype=dtype))


@pytest.mark.parametrize("layer", [False, True], ids=["rms", "layer"])
@pytest.mark.parametrize("width", BEYOND_REGISTERS)
def test_rows_that_no_registers_hold(kernels: Library, width: int, layer: bool) -> None:
    norms.check(kernels, norms.Case(2, width, torch.float32, layer=layer, weight_dtype=torch.float32))
    norms.check(kernels, norms.Case(2, width + 1, torch.bfloat16, layer=layer, weight_dtype=torch.bfloat16))


@pytest.mark.parametrize("layer", [False, True], ids=["rms", "layer"])
@pytest.mark.parametrize("rows", [0, 1, 8, 199])
def test_any_number_of_rows(kernels: Library, rows: int, layer: bool) -> None:
    norms.check(kernels, norms.Case(rows, 384, torch.bfloat16, layer=layer, weight_dtype=torch.float32))


@pytest.mark.parametrize(("order", "seed"), [(Order.REVERSE, 0), (Order.SHUFFLED, 1), (Order.SHUFFLED, 2)])
@pytest.mark.parametrize("width", [123, 768, 2048])
def test_any_order_of_blocks_and_threads(kernels: Library, width: int, order: Order, seed: int) -> None:
    for layer in (False, True):
        norms.check(
            kernels,
            norms.Case(
                40, width, torch.bfloat16, layer=layer, weight_dtype=torch.bfloat16, order=order, seed=seed
            ),
        )


@pytest.mark.parametrize("width", [5, 768, 4096])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("weight", [None, torch.float32], ids=["bare", "weight"])
def test_what_may_be_left_out(
    kernels: Library, width: int, residual: bool, weight: torch.dtype | None
) -> None:
    for layer in (False, True):
        norms.check(
            kernels,
            norms.Case(5, width, torch.float16, layer=layer, residual=residual, weight_dtype=weight),
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_data_that_does_not_begin_at_16_bytes(kernels: Library, dtype: torch.dtype) -> None:
    case = norms.Case(5, 768, dtype, weight_dtype=dtype, misaligned_by=dtype.itemsize)
    norms.check(kernels, case)


def test_rows_are_shared_out_so_that_every_block_reads_some(kernels: Library) -> None:
    for rows, width in ((1, 384), (31, 768), (4096, 384), (100_000, 8192), (5, 60_000)):
        partials = norms.partials_of(kernels, norms.Case(rows, width, torch.bfloat16))
        assert 1 <= partials <= max(1, rows)
