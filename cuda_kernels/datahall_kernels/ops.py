"""The ops of namespace `datahall`: schemas, CPU implementations, shapes and gradients.

They are defined here, in Python, so that they are there without the native library; that one, when it is loaded,
registers its kernels for CUDA under the same names (csrc/bindings.cpp). Ops take contiguous tensors only: the
functions that people call (norm.py) see to that. An op has no optional outputs, which is why norms with a residual
are ops of their own, and why a gradient that nobody wants has 0 elements.

Gradients of gradients are not implemented, and say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from datahall_kernels import checks, reference

_SCHEMAS: dict[str, tuple[str, Callable[..., Any]]] = {
    "rms_norm": (
        "(Tensor x, Tensor? weight, float epsilon) -> (Tensor y, Tensor rstd)",
        reference.rms_norm,
    ),
    "add_rms_norm": (
        "(Tensor x, Tensor residual, Tensor? weight, float epsilon) -> (Tensor y, Tensor summed, Tensor rstd)",
        reference.add_rms_norm,
    ),
    "rms_norm_backward": (
        "(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor rstd, bool weight_gradient)"
        " -> (Tensor dx, Tensor dweight)",
        reference.rms_norm_backward,
    ),
    "layer_norm": (
        "(Tensor x, Tensor? weight, Tensor? bias, float epsilon) -> (Tensor y, Tensor mean, Tensor rstd)",
        reference.layer_norm,
    ),
    "add_layer_norm": (
        "(Tensor x, Tensor residual, Tensor? weight, Tensor? bias, float epsilon)"
        " -> (Tensor y, Tensor summed, Tensor mean, Tensor rstd)",
        reference.add_layer_norm,
    ),
    "layer_norm_backward": (
        "(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd,"
        " bool weight_gradient, bool bias_gradient) -> (Tensor dx, Tensor dweight, Tensor dbias)",
        reference.layer_norm_backward,
    ),
}
NAMES = tuple(_SCHEMAS)


def define(library: torch.library.Library, *, dispatch_key: str | None = "CPU") -> None:
    """Defines all ops in the library's namespace, with the reference for `dispatch_key` (None: without)."""
    for name, (schema, implementation) in _SCHEMAS.items():
        # Kernels read memory as it lies: torch.compile must not change strides behind our back.
        library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))
        if dispatch_key is not None:
            library.impl(name, implementation, dispatch_key)


def _statistics(x: Tensor) -> Tensor:
    return x.new_empty((checks.rows_of(x),), dtype=checks.statistics_type(x))


def _gradient_of(parameter: Tensor | None, x: Tensor, *, wanted: bool) -> Tensor:
    return torch.empty_like(parameter) if parameter is not None and wanted else x.new_empty(0)


def _fake_rms_norm(x: Tensor, weight: Tensor | None, epsilon: float) -> tuple[Tensor, ...]:
    checks.data("rms_norm", x)
    checks.scale("rms_norm", "weight", weight, x)
    return torch.empty_like(x), _statistics(x)


def _fake_add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, epsilon: float
) -> tuple[Tensor, ...]:
    checks.data("add_rms_norm", x)
    checks.like_data("add_rms_norm", "residual", residual, x)
    checks.scale("add_rms_norm", "weight", weight, x)
    return torch.empty_like(x), torch.empty_like(x), _statistics(x)


def _fake_rms_norm_backward(
    dy: Tensor,
    dsummed: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    rstd: Tensor,
    weight_gradient: bool,
) -> tuple[Tensor, ...]:
    checks.backward("rms_norm_backward", dy=dy, dsummed=dsummed, x=x, weight=weight, rstd=rstd)
    return torch.empty_like(x), _gradient_of(weight, x, wanted=weight_gradient)


def _fake_layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, ...]:
    checks.data("layer_norm", x)
    checks.weight_and_bias("layer_norm", weight, bias, x)
    return torch.empty_like(x), _statistics(x), _statistics(x)


def _fake_add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
) -> tuple[Tensor, ...]:
    checks.data("add_layer_norm", x)
    checks.like_data("add_layer_norm", "residual", residual, x)
    checks.weight_and_bias("add_layer_norm", weight, bias, x)
    return torch.empty_like(x), torch.empty_like(x), _statistics(x), _statistics(x)


def _fake_layer_norm_backward(
    dy: Tensor,
    dsummed: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    weight_gradient: bool,
    bias_gradient: bool,
) -> tuple[Tensor, ...]:
    checks.backward(
        "layer_norm_backward", dy=dy, dsummed=dsummed, x=x, weight=weight, rstd=rstd, bias=bias, mean=mean
    )
    dweight = _gradient_of(weight, x, wanted=weight_gradient)
    return torch.empty_like(x), dweight, _gradient_of(bias, x, wanted=bias_gradient)


def _norm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, _ = inputs
    _, rstd = output
    _save(ctx, (x, weight, rstd), statistics=(rstd,))


def _add_norm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, _, weight, _ = inputs
    _, summed, rstd = output
    _save(ctx, (summed, weight, rstd), statistics=(rstd,))


def _layer_norm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, _ = inputs
    _, mean, rstd = output
    _save(ctx, (x, weight, bias, mean, rstd), statistics=(mean, rstd))


def _add_layer_norm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, _, weight, bias, _ = inputs
    _, summed, mean, rstd = output
    _save(ctx, (summed, weight, bias, mean, rstd), statistics=(mean, rstd))


def _save(ctx: Any, tensors: tuple[Tensor | None, ...], *, statistics: tuple[Tensor, ...]) -> None:
    # An output that nobody used has None for a gradient, not a tensor of zeros that is read for nothing.
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*statistics)
    ctx.save_for_backward(*tensors)


def _rms_gradients(
    ctx: Any, dy: Tensor | None, dsummed: Tensor | None, *, weight_gradient: bool
) -> tuple[Tensor | None, Tensor | None]:
    x, weight, rstd = ctx.saved_tensors
    if dy is None:  # y was not used: what reached the sum goes on as it is
        return dsummed, None
    dx, dweight = torch.ops.datahall.rms_norm_backward(
        dy.contiguous(), _contiguous(dsummed), x, weight, rstd, weight_gradient
    )
    return dx, dweight if weight_gradient else None


def _layer_gradients(
    ctx: Any, dy: Tensor | None, dsummed: Tensor | None, *, weight_gradient: bool, bias_gradient: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight, bias, mean, rstd = ctx.saved_tensors
    if dy is None:
        return dsummed, None, None
    dx, dweight, dbias = torch.ops.datahall.layer_norm_backward(
        dy.contiguous(), _contiguous(dsummed), x, weight, bias, mean, rstd, weight_gradient, bias_gradient
    )
    return dx, dweight if weight_gradient else None, dbias if bias_gradient else None


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _rms_norm_gradients(ctx: Any, dy: Tensor | None, _rstd: object) -> tuple[Tensor | None, ...]:
    dx, dweight = _rms_gradients(ctx, dy, None, weight_gradient=ctx.needs_input_grad[1])
    return dx, dweight, None


def _add_rms_norm_gradients(
    ctx: Any, dy: Tensor | None, dsummed: Tensor | None, _rstd: object
) -> tuple[Tensor | None, ...]:
    dx, dweight = _rms_gradients(ctx, dy, dsummed, weight_gradient=ctx.needs_input_grad[2])
    return dx, dx, dweight, None


def _layer_norm_gradients(
    ctx: Any, dy: Tensor | None, _mean: object, _rstd: object
) -> tuple[Tensor | None, ...]:
    _, weight_gradient, bias_gradient, _ = ctx.needs_input_grad
    dx, dweight, dbias = _layer_gradients(
        ctx, dy, None, weight_gradient=weight_gradient, bias_gradient=bias_gradient
    )
    return dx, dweight, dbias, None


def _add_layer_norm_gradients(
    ctx: Any, dy: Tensor | None, dsummed: Tensor | None, _mean: object, _rstd: object
) -> tuple[Tensor | None, ...]:
    _, _, weight_gradient, bias_gradient, _ = ctx.needs_input_grad
    dx, dweight, dbias = _layer_gradients(
        ctx, dy, dsummed, weight_gradient=weight_gradient, bias_gradient=bias_gradient
    )
    return dx, dx, dweight, dbias, None


def _no_second_gradients(_ctx: Any, *_gradients: object) -> NoReturn:
    raise NotImplementedError(
        "datahall: gradients of a norm's gradients are not implemented; use torch's own op (DATAHALL_KERNELS=off)"
    )


_FAKES: dict[str, Callable[..., Any]] = {
    "rms_norm": _fake_rms_norm,
    "add_rms_norm": _fake_add_rms_norm,
    "rms_norm_backward": _fake_rms_norm_backward,
    "layer_norm": _fake_layer_norm,
    "add_layer_norm": _fake_add_layer_norm,
    "layer_norm_backward": _fake_layer_norm_backward,
}
# What each op's gradient is, and what is kept for it.
_GRADIENTS: dict[str, tuple[Callable[..., Any], Callable[..., None] | None]] = {
    "rms_norm": (_rms_norm_gradients, _norm_setup),
    "add_rms_norm": (_add_rms_norm_gradients, _add_norm_setup),
    "rms_norm_backward": (_no_second_gradients, None),
    "layer_norm": (_layer_norm_gradients, _layer_norm_setup),
    "add_layer_norm": (_add_layer_norm_gradients, _add_layer_norm_setup),
    "layer_norm_backward": (_no_second_gradients, None),
}

_LIBRARY = torch.library.Library("datahall", "FRAGMENT")
define(_LIBRARY)
for _name in NAMES:
    torch.library.register_fake(f"datahall::{_name}", _FAKES[_name], lib=_LIBRARY)
    _backward, _setup = _GRADIENTS[_name]
    torch.library.register_autograd(f"datahall::{_name}", _backward, setup_context=_setup, lib=_LIBRARY)
