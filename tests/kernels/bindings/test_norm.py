"""The norms' bindings and kernels: results are the reference's, and bad arguments are refused in its words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datahall_kernels.norm.ops import OPS

NAMES = [op.name for op in OPS]


def made(*shape: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def arguments(
    op: str,
    *,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    weight_dtype: torch.dtype,
    parameters: str,
    extra: bool,
) -> tuple[Any, ...]:
    rows = 1
    for size in shape[:-1]:
        rows *= size
    x, other, third = (made(*shape, dtype=dtype, seed=seed) for seed in (1, 2, 3))
    weight = made(shape[-1], dtype=weight_dtype, seed=4) if "weight" in parameters else None
    bias = made(shape[-1], dtype=weight_dtype, seed=5) if "bias" in parameters else None
    mean, rstd = made(rows, dtype=torch.float32, seed=6), made(rows, dtype=torch.float32, seed=7).abs() + 0.5
    return {
        "rms_norm": (x, weight, 1e-3),
        "add_rms_norm": (x, other, weight, 1e-3),
        "rms_norm_backward": (other, third if extra else None, x, weight, rstd, extra),
        "layer_norm": (x, weight, bias, 1e-3),
        "add_layer_norm": (x, other, weight, bias, 1e-3),
        "layer_norm_backward": (
            other,
            third if extra else None,
            x,
            weight,
            bias,
            mean,
            rstd,
            extra,
            not extra,
        ),
    }[op]


@pytest.mark.parametrize(
    ("op", "extra"),
    [(op, extra) for op in NAMES for extra in ((False, True) if op.endswith("backward") else (False,))],
)
@pytest.mark.parametrize("shape", [(2, 3, 7), (9,), (0, 4)], ids=str)
@pytest.mark.parametrize("dtypes", ["float32 float32", "bfloat16 bfloat16", "bfloat16 float32"])
@pytest.mark.parametrize("parameters", ["none", "weight", "bias", "weight and bias"])
def test_bindings_give_what_the_reference_gives(
    bindings: Any, op: str, shape: tuple[int, ...], dtypes: str, parameters: str, extra: bool
) -> None:
    dtype, weight_dtype = (getattr(torch, name) for name in dtypes.split())
    given = arguments(
        op, shape=shape, dtype=dtype, weight_dtype=weight_dtype, parameters=parameters, extra=extra
    )
    found = getattr(bindings, op)(*given)
    expected = getattr(torch.ops.datahall, op)(*given)
    assert len(found) == len(expected)
    for ours, reference in zip(found, expected, strict=True):
        assert ours.dtype is reference.dtype
        rtol = 1e-5 if ours.dtype is torch.float32 else 2**-7
        torch.testing.assert_close(ours, reference, rtol=rtol, atol=2e-5)


X, W = torch.ones(2, 4), torch.ones(4)
R = torch.ones(2)
WRONG = {
    "whole numbers": ("rms_norm", (X.int(), None, 1e-5)),
    "no dimension": ("layer_norm", (torch.tensor(1.0), None, None, 1e-5)),
    "no width": ("rms_norm", (torch.ones(2, 0), None, 1e-5)),
    "strided x": ("layer_norm", (torch.ones(4, 2).t(), None, None, 1e-5)),
    "short weight": ("rms_norm", (X, W[:3], 1e-5)),
    "weight of two dimensions": ("rms_norm", (X, X, 1e-5)),
    "other weight": ("rms_norm", (X.bfloat16(), W.half(), 1e-5)),
    "other bias": ("layer_norm", (X.bfloat16(), W.bfloat16(), W, 1e-5)),
    "strided weight": ("rms_norm", (X, torch.ones(8)[::2], 1e-5)),
    "short residual": ("add_rms_norm", (X, X[:1], W, 1e-5)),
    "other residual": ("add_layer_norm", (X, X.half(), W, None, 1e-5)),
    "short dy": ("rms_norm_backward", (X[:1], None, X, W, R, True)),
    "other dsummed": ("rms_norm_backward", (X, X.half(), X, W, R, True)),
    "strided dy": ("layer_norm_backward", (torch.ones(4, 2).t(), None, X, W, W, R, R, True, True)),
    "long rstd": ("rms_norm_backward", (X, None, X, W, torch.ones(3), True)),
    "other mean": ("layer_norm_backward", (X, None, X, W, W, R.half(), R, True, True)),
}


@pytest.mark.parametrize("name", WRONG)
def test_bindings_refuse_in_the_words_of_the_reference(bindings: Any, name: str) -> None:
    op, given = WRONG[name]
    with pytest.raises(ValueError, match="it") as reference:
        getattr(torch.ops.datahall, op)(*given)
    with pytest.raises(RuntimeError) as refused:
        getattr(bindings, op)(*given)
    assert str(refused.value).splitlines()[0] == str(reference.value)


def test_float64_is_refused(bindings: Any) -> None:
    with pytest.raises(
        RuntimeError, match=r"rms_norm: x is torch.float64; it must be float32, bfloat16 or float16"
    ):
        bindings.rms_norm(X.double(), None, 1e-5)


def test_a_launch_that_fails_is_an_error_with_cudas_words(bindings_on_cpu: Any) -> None:
    with pytest.raises(
        RuntimeError, match="rms_norm: CUDA error 700: an illegal memory access was encountered"
    ):
        bindings_on_cpu.rms_norm(torch.full((2, 4), -777.0), None, 1e-5)


def test_outputs_are_as_shapes_are_inferred(bindings: Any) -> None:
    # What the CUDA kernels allocate must be what torch.compile was told, strides included.
    given = arguments(
        "layer_norm_backward",
        shape=(2, 3, 8),
        dtype=torch.bfloat16,
        weight_dtype=torch.float32,
        parameters="weight and bias",
        extra=True,
    )
    inferred = torch.ops.datahall.layer_norm_backward(
        *(t.to("meta") if isinstance(t, torch.Tensor) else t for t in given)
    )
    for ours, told in zip(bindings.layer_norm_backward(*given), inferred, strict=True):
        assert (ours.shape, ours.stride(), ours.dtype) == (told.shape, told.stride(), told.dtype)
