"""Runs of norm.cu, with what they have to give in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kernel_execution import Input, Library, Order, Output, Scratch
from tests.kernels.sources.launching import DTYPES, assert_near, i32, made

EPSILON = 1e-5
MULTIPROCESSORS = 2


@dataclass(frozen=True)
class Case:
    """One norm of one shape."""

    rows: int
    width: int
    dtype: torch.dtype
    layer: bool = False
    residual: bool = True
    weight_dtype: torch.dtype | None = None
    """None: no weight and no bias."""
    misaligned_by: int = 0
    order: Order = Order.FORWARD
    seed: int = 0


def partials_of(kernels: Library, case: Case) -> int:
    return kernels.run("datahall_norm_partials", case.rows, case.width, i32(MULTIPROCESSORS)).code


def check(kernels: Library, case: Case) -> None:
    """Forward and backward: each result within a few roundings of float64, and nothing that a GPU would not forgive."""
    rows, width, dtype = case.rows, case.width, case.dtype
    x = made(rows, width, dtype=dtype, seed=1, shift=0.5 if case.layer else 0.0)
    residual = made(rows, width, dtype=dtype, seed=2) if case.residual else None
    weight = bias = None
    if case.weight_dtype is not None:
        weight = made(width, dtype=case.weight_dtype, seed=3, shift=1.0, scale=0.3)
        bias = made(width, dtype=case.weight_dtype, seed=4, scale=0.3) if case.layer else None
    summed = x if residual is None else (x.double() + residual.double()).to(dtype)
    y, found_sum, mean, rstd = torch.empty_like(x), torch.empty_like(x), torch.empty(rows), torch.empty(rows)
    codes = (i32(DTYPES[dtype]), i32(DTYPES[case.weight_dtype or dtype]), None)
    turn = {"order": case.order, "seed": case.seed}
    off = case.misaligned_by

    def given(name: str, tensor: Tensor | None) -> Input | None:
        return None if tensor is None else Input(name, tensor, off if name != "rstd" else 0)

    statistics = (Output("mean", mean),) if case.layer else ()
    kernels.check(
        "datahall_layer_norm_forward" if case.layer else "datahall_rms_norm_forward",
        *(given("x", x), given("residual", residual), given("weight", weight)),
        *((given("bias", bias),) if case.layer else ()),
        *(Output("y", y, off), Output("summed", found_sum, off) if case.residual else None),
        *(*statistics, Output("rstd", rstd), rows, width, EPSILON, *codes),
        **turn,
    )
    dy = made(rows, width, dtype=dtype, seed=5)
    dsummed = made(rows, width, dtype=dtype, seed=6) if case.residual else None
    dx = torch.empty_like(x)
    dweight = None if weight is None else torch.empty_like(weight)
    dbias = None if bias is None else torch.empty_like(bias)
    partials = partials_of(kernels, case)
    scratch = [Scratch(f"partial {i}", partials * width * 4) for i in range(2)]
    kernels.check(
        "datahall_layer_norm_backward" if case.layer else "datahall_rms_norm_backward",
        *(given("dy", dy), given("dsummed", dsummed), given("x", summed), given("weight", weight)),
        *((Input("mean", mean),) if case.layer else ()),
        *(Input("rstd", rstd), Output("dx", dx, off), None if dweight is None else scratch[0]),
        *((None if dbias is None else scratch[1],) if case.layer else ()),
        None if dweight is None else Output("dweight", dweight),
        *((None if dbias is None else Output("dbias", dbias),) if case.layer else ()),
        *(rows, width, i32(partials), *codes),
        **turn,
    )
    if residual is not None:
        assert torch.equal(found_sum, summed)
    exact_x = summed.double().requires_grad_()
    exact_weight = None if weight is None else weight.double().requires_grad_()
    exact_bias = None if bias is None else bias.double().requires_grad_()
    if case.layer:
        exact_y = functional.layer_norm(exact_x, (width,), exact_weight, exact_bias, EPSILON)
    else:
        exact_y = functional.rms_norm(exact_x, (width,), exact_weight, EPSILON)
    if rows:
        exact_y.backward(dy.double())
    in_all = summed.abs().amax(-1, keepdim=True).double() * rstd[:, None].double() * 2 if rows else None
    assert_near(y, exact_y.detach(), roundings=6, size=in_all)
    if rows:
        in_all = dy.abs().amax(-1, keepdim=True).double() * rstd[:, None].double() * 2
        exact_dx = exact_x.grad + (0.0 if dsummed is None else dsummed.double())
        assert_near(
            dx, exact_dx, roundings=10, size=in_all * (1.0 if weight is None else weight.abs().max().double())
        )
    for found, exact in ((dweight, exact_weight), (dbias, exact_bias)):
        if found is not None and exact is not None:
            assert_near(
                found,
                torch.zeros(width) if not rows else exact.grad,
                roundings=6 + rows**0.5,
                size=2 * dy.abs().sum(0).max().double() if rows else None,
            )
