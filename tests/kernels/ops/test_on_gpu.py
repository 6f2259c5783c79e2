"""What only a GPU can show of the norms: streams, graphs, devices, addresses that no wide load fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import datahall_kernels
from datahall_kernels import Path, dispatch

pytestmark = pytest.mark.skipif(
    not datahall_kernels.available()["rms_norm"].ok, reason="no GPU that the kernels can run on"
)
KINDS: dict[str, Callable[..., Any]] = {
    "rms_norm": lambda x, w, r: datahall_kernels.rms_norm(x, w, 1e-5, r),
    "layer_norm": lambda x, w, r: datahall_kernels.layer_norm(x, w, w, 1e-5, r),
}


def made(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16().cuda()


@pytest.mark.parametrize("kind", KINDS)
def test_our_kernel_is_what_runs(kind: str) -> None:
    dispatch.forget()
    KINDS[kind](made(4, 384, seed=1), made(384, seed=2), made(4, 384, seed=3))
    assert [taken.path for taken in datahall_kernels.paths()] == [Path.CUDA]


@pytest.mark.parametrize("kind", KINDS)
def test_same_result_every_time_on_a_stream_of_ones_own_and_in_a_graph(kind: str) -> None:
    x, weight, residual = made(199, 768, seed=1), made(768, seed=2), made(199, 768, seed=3)

    def both_ways() -> tuple[Tensor, ...]:
        leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, residual)]
        y, summed = KINDS[kind](*leaves)
        return (y, summed, *torch.autograd.grad((y, summed), leaves, (residual, x)))

    plain = both_ways()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        stream.wait_stream(torch.cuda.default_stream())
        beside = both_ways()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both_ways()
    graph.replay()
    torch.cuda.synchronize()
    for first, second, third in zip(plain, beside, captured, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


@pytest.mark.parametrize("kind", KINDS)
def test_addresses_that_no_wide_load_fits(kind: str) -> None:
    flat, weight, residual = made(5 * 64 + 1, seed=1), made(64, seed=2), made(5, 64, seed=3)
    shifted = flat[1:].view(5, 64)
    assert shifted.data_ptr() % 16 != 0
    for ours, aligned in zip(
        KINDS[kind](shifted, weight, residual), KINDS[kind](shifted.clone(), weight, residual), strict=True
    ):
        torch.testing.assert_close(ours, aligned, rtol=2**-7, atol=1e-3)


def test_a_weight_left_on_the_cpu_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"rms_norm: weight is on cpu; it must be on cuda:0 as x is"):
        datahall_kernels.rms_norm(made(2, 8, seed=1), torch.ones(8), 1e-5)
