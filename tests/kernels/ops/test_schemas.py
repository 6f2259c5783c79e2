"""What torch asks of an op: schema, gradients, shapes without data, tracing (`opcheck`); and clear errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from datahall_kernels.norm import checks

OPS = torch.ops.datahall


def made(*shape: int, dtype: torch.dtype = torch.float32, gradient: bool = True, fill: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(fill)
    return torch.randn(*shape, generator=generator).to(dtype).requires_grad_(gradient)


def arguments(op: str, *, shape: tuple[int, ...], dtype: torch.dtype, optional: bool) -> tuple[Any, ...]:
    width, rows = shape[-1], 1
    for size in shape[:-1]:
        rows *= size
    # Gradients of gradients are not implemented.
    gradient = not op.endswith("backward")
    x, other = (
        made(*shape, dtype=dtype, gradient=gradient),
        made(*shape, dtype=dtype, gradient=gradient, fill=2),
    )
    weight = made(width, dtype=dtype, gradient=gradient) if optional else None
    bias = made(width, dtype=dtype, gradient=gradient, fill=3) if optional else None
    statistic = made(rows, gradient=False).abs() + 1
    return {
        "rms_norm": (x, weight, 1e-5),
        "add_rms_norm": (x, other, weight, 1e-5),
        "rms_norm_backward": (other, x if optional else None, x, weight, statistic, optional),
        "layer_norm": (x, weight, bias, 1e-5),
        "add_layer_norm": (x, other, weight, bias, 1e-5),
        "layer_norm_backward": (
            *(other, x if optional else None, x, weight, bias),
            *(statistic, statistic, optional, optional),
        ),
    }[op]


NAMES = [
    "rms_norm",
    "add_rms_norm",
    "rms_norm_backward",
    "layer_norm",
    "add_layer_norm",
    "layer_norm_backward",
]


@pytest.mark.parametrize(
    ("shape", "dtype", "optional"),
    [
        ((5, 123), torch.float32, True),
        ((2, 3, 8), torch.bfloat16, True),
        ((4, 8), torch.float16, False),
        ((0, 8), torch.float32, True),
    ],
    ids=["odd", "3 dimensions", "nothing optional", "no rows"],
)
# Torch's own check looks at gradients of tensors that have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("op", NAMES)
def test_op_passes_torchs_own_checks(
    op: str, shape: tuple[int, ...], dtype: torch.dtype, optional: bool
) -> None:
    torch.library.opcheck(
        getattr(OPS, op).default, arguments(op, shape=shape, dtype=dtype, optional=optional)
    )


@pytest.mark.parametrize("op", [name for name in NAMES if name.endswith("backward")])
def test_a_gradient_that_nobody_wants_has_no_elements(op: str) -> None:
    given = list(arguments(op, shape=(3, 4), dtype=torch.float32, optional=True))
    wanted = [i for i, value in enumerate(given) if value is True]
    for i in wanted:
        given[i] = False
    dx, *parameters = getattr(OPS, op)(*given)
    assert dx.shape == (3, 4)
    assert [p.numel() for p in parameters] == [0] * len(wanted)


X, W = torch.ones(2, 4), torch.ones(4)
WRONG = {
    "whole numbers": (
        OPS.rms_norm,
        (X.int(), None, 1e-5),
        r"rms_norm: x is torch.int32; it must be float32, bf",
    ),
    "no dimension": (
        OPS.rms_norm,
        (torch.tensor(1.0), None, 1e-5),
        r"rms_norm: x has shape \[\]; its last dim",
    ),
    "no width": (
        OPS.rms_norm,
        (torch.ones(2, 0), None, 1e-5),
        r"x has shape \[2, 0\]; its last dimension must",
    ),
    "strided x": (
        OPS.layer_norm,
        (torch.ones(4, 2).t(), None, None, 1e-5),
        r"layer_norm: x has strides \[1, 2\]",
    ),
    "short weight": (
        OPS.rms_norm,
        (X, W[:3], 1e-5),
        r"weight has shape \[3\]; it must be \[4\], x's last dim",
    ),
    "other weight": (
        OPS.rms_norm,
        (X.bfloat16(), W.half(), 1e-5),
        r"weight is torch.float16; it must be torch.bf",
    ),
    "bias of another type": (
        OPS.layer_norm,
        (X.bfloat16(), W.bfloat16(), W, 1e-5),
        r"layer_norm: bias is torch.float32; it must be torch.bfloat16 as weight is",
    ),
    "strided weight": (
        OPS.rms_norm,
        (X, torch.ones(8)[::2], 1e-5),
        r"weight has strides \[2\]; it must be cont",
    ),
    "residual of another shape": (
        OPS.add_rms_norm,
        (X, X[:1], W, 1e-5),
        r"add_rms_norm: residual has shape \[1, 4\]; it must be x's, \[2, 4\]",
    ),
    "residual of another type": (
        OPS.add_layer_norm,
        (X, X.half(), W, None, 1e-5),
        r"add_layer_norm: residual is torch.float16; it must be torch.float32 as x is",
    ),
    "dy of another shape": (
        OPS.rms_norm_backward,
        (X[:1], None, X, W, torch.ones(2), True),
        r"rms_norm_backward: dy has shape \[1, 4\]; it must be x's, \[2, 4\]",
    ),
    "rstd of another length": (
        OPS.rms_norm_backward,
        (X, None, X, W, torch.ones(3), True),
        r"rms_norm_backward: rstd has shape \[3\]; it must be \[2\], one per row of x",
    ),
    "mean of another type": (
        OPS.layer_norm_backward,
        (X, None, X, W, W, torch.ones(2).half(), torch.ones(2), True, True),
        r"layer_norm_backward: mean is torch.float16; it must be torch.float32",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named_with_what_it_must_be(name: str) -> None:
    op, given, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        op(*given)


def test_a_residual_on_another_device_is_named() -> None:
    with pytest.raises(ValueError, match=r"add_rms_norm: residual is on meta; it must be on cpu as x is"):
        checks.like_data("add_rms_norm", "residual", X.to("meta"), X)
