"""weight_only.cu, run on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernel_execution import Input, Library, Order, Output
from tests.kernels.sources.launching import DTYPES, assert_near, i32, made, name_of


def packed(codes: Tensor, bits: int) -> tuple[Tensor, int]:
    """Codes [outputs, inputs] as the kernel has them, and how many bytes a row is."""
    outputs, inputs = codes.shape
    row_bytes = -(-inputs * bits // 128) * 16
    padded = torch.full((outputs, row_bytes * 8 // bits), 2**bits - 1, dtype=torch.uint8)
    padded[:, :inputs] = codes.to(torch.uint8)
    return (padded if bits == 8 else padded[:, 0::2] | padded[:, 1::2] << 4).contiguous(), row_bytes


def check(
    kernels: Library,
    *,
    rows: int,
    inputs: int,
    outputs: int,
    bits: int,
    dtype: torch.dtype,
    group: int = 128,
    multiprocessors: int = 1,
    misaligned_by: int = 0,
    order: Order = Order.FORWARD,
) -> None:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 2**bits, (outputs, inputs), generator=generator)
    groups = -(-inputs // group)
    scales = torch.rand(outputs, groups, generator=generator) + 0.1
    x, bias = made(rows, inputs, dtype=dtype, seed=2), made(outputs, dtype=dtype, seed=3)
    y = torch.empty(rows, outputs, dtype=dtype)
    laid, row_bytes = packed(codes, bits)
    sizes = (i32(inputs), i32(outputs), i32(row_bytes), i32(group), i32(bits), i32(multiprocessors))
    kernels.check(
        *("datahall_weight_only", Input("x", x, misaligned_by), Input("codes", laid)),
        *(Input("scales", scales), Input("bias", bias), Output("y", y)),
        *(rows, *sizes, i32(DTYPES[dtype]), None),
        order=order,
        seed=1,
    )
    weights = (codes.double() - 2 ** (bits - 1)) * scales.double().repeat_interleave(group, 1)[:, :inputs]
    assert_near(y, x.double() @ weights.T + bias.double(), roundings=2 if dtype != torch.float32 else 8)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "group"),
    [
        *((1, 576, 100, 576), (3, 123, 5, 128), (8, 4096, 33, 128), (9, 300, 40, 32)),
        *((1, 9000, 17, 128), (2, 64, 3, 64), (1, 1, 1, 32), (17, 2050, 9, 96)),
    ],
)
def test_products(
    kernels: Library, rows: int, inputs: int, outputs: int, group: int, bits: int, dtype: torch.dtype
) -> None:
    check(kernels, rows=rows, inputs=inputs, outputs=outputs, bits=bits, dtype=dtype, group=group)


@pytest.mark.parametrize("multiprocessors", [1, 100], ids=["two outputs a warp", "one output a warp"])
@pytest.mark.parametrize("order", Order)
def test_any_order_of_blocks_and_threads(kernels: Library, order: Order, multiprocessors: int) -> None:
    for bits in (8, 4):
        check(
            kernels,
            **{"rows": 2, "inputs": 700, "outputs": 37, "bits": bits, "dtype": torch.bfloat16},
            order=order,
            multiprocessors=multiprocessors,
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_an_address_that_no_wide_load_fits(kernels: Library, dtype: torch.dtype) -> None:
    sizes = {"rows": 3, "inputs": 1040, "outputs": 9, "bits": 4, "dtype": dtype}
    check(kernels, **sizes, misaligned_by=dtype.itemsize)


@pytest.mark.parametrize(
    ("row_bytes", "group", "bits"), [(48, 128, 8), (40, 128, 4), (64, 33, 8), (64, 128, 3), (64, 0, 8)]
)
def test_shapes_that_the_kernel_has_not_are_refused(
    kernels: Library, row_bytes: int, group: int, bits: int
) -> None:
    sizes = (i32(64), i32(1), i32(row_bytes), i32(group), i32(bits), i32(1), i32(0), None)
    x, codes = Input("x", torch.ones(1, 64)), Input("codes", torch.zeros(64, dtype=torch.uint8))
    outcome = kernels.run(
        *("datahall_weight_only", x, codes, Input("scales", torch.ones(8)), None),
        *(Output("y", torch.empty(1, 1)), 1, *sizes),
    )
    assert outcome.code == 1
    assert not outcome.findings
