"""Weights in few bits: what is kept of them, and products with them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import datahall_kernels
from datahall_kernels import dispatch, quantise, weight_only_linear


def made(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_op_passes_torchs_own_checks(dtype: torch.dtype, bits: int) -> None:
    weight = quantise(made(5, 123), bits=bits, group=32)
    for bias in (None, made(5, dtype=dtype)):
        given_ = (made(2, 3, 123, dtype=dtype), weight.codes, weight.scales, bias, 32, bits)
        torch.library.opcheck(torch.ops.datahall.weight_only.default, given_)


@given(
    outputs=st.integers(0, 5),
    inputs=st.integers(1, 200),
    group=st.sampled_from([32, 64, 128, 10_000]),
    bits=st.sampled_from([8, 4]),
    seed=st.integers(0, 1000),
)
def test_each_weight_is_within_half_a_step_of_what_is_kept(
    outputs: int, inputs: int, group: int, bits: int, seed: int
) -> None:
    weight = made(outputs, inputs, seed=seed)
    kept = quantise(weight, bits=bits, group=group)
    steps = kept.scales.double().repeat_interleave(kept.group, 1)[:, :inputs]
    off = (kept.dequantise(torch.float64) - weight.double()).abs()
    assert bool((off <= steps * 0.5 * (1 + 1e-5)).all())
    assert kept.codes.shape == (outputs, -(-inputs * bits // 128) * 16)


def test_zeros_stay_zeros_and_the_greatest_of_a_group_is_kept() -> None:
    weight = torch.zeros(2, 64)
    weight[1, 40] = -3.5
    kept = quantise(weight, bits=4, group=32).dequantise(torch.float64)
    assert torch.equal(kept, weight.double())


@pytest.mark.parametrize("mode", ["reference", "off"])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_linear_layer_is_torchs_with_the_weight_that_the_codes_stand_for(
    monkeypatch: pytest.MonkeyPatch, bits: int, mode: str
) -> None:
    monkeypatch.setenv("DATAHALL_KERNELS", mode)
    dispatch.forget()
    weight = quantise(made(7, 100), bits=bits, group=32)
    x, bias = made(3, 2, 100, seed=2), made(7, seed=3)
    expected = functional.linear(x, weight.dequantise(torch.float32), bias)
    torch.testing.assert_close(weight_only_linear(x, weight, bias), expected)
    dispatch.forget()


@pytest.mark.parametrize(
    ("weight", "bits", "group", "said"),
    [
        (torch.ones(3), 8, 32, r"weight has shape \[3\]; it must be \[outputs, inputs\]"),
        (torch.ones(3, 4).int(), 8, 32, r"weight is torch.int32"),
        (torch.full((3, 4), torch.nan), 8, 32, "infinite or NaN"),
        (torch.ones(3, 4), 3, 32, "bits is 3; it must be 8 or 4"),
        (torch.ones(3, 100), 8, 33, "group is 33; it must be a multiple of 32, or at least the 100 inputs"),
    ],
)
def test_what_cannot_be_kept_is_refused(weight: torch.Tensor, bits: int, group: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"quantise: {said}|{said}"):
        quantise(weight, bits=bits, group=group)


def test_a_gradient_is_refused() -> None:
    x = made(2, 64).requires_grad_()
    y = datahall_kernels.weight_only_linear(x, quantise(made(3, 64), bits=8))
    with pytest.raises(NotImplementedError, match="weight_only has no gradient"):
        y.sum().backward()


def test_a_weight_moves_with_all_that_it_is() -> None:
    kept = quantise(made(3, 64), bits=4, group=32).to("meta")
    assert (kept.codes.device.type, kept.scales.device.type, kept.inputs, kept.bits) == (
        "meta",
        "meta",
        64,
        4,
    )
