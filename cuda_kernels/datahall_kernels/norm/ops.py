"""The norms as torch ops: schemas, shapes and gradients.

An op has no optional outputs, which is why norms with a residual are ops of their own.

Gradients of gradients are not implemented, and say so.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from datahall_kernels.norm import checks, reference
from datahall_kernels.registry import Op


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


OPS = (
    Op(
        name="rms_norm",
        schema="(Tensor x, Tensor? weight, float epsilon) -> (Tensor y, Tensor rstd)",
        reference=reference.rms_norm,
        fake=_fake_rms_norm,
        backward=_rms_norm_gradients,
        setup_context=_norm_setup,
    ),
    Op(
        name="add_rms_norm",
        schema=(
            "(Tensor x, Tensor residual, Tensor? weight, float epsilon)"
            " -> (Tensor y, Tensor summed, Tensor rstd)"
        ),
        reference=reference.add_rms_norm,
        fake=_fake_add_rms_norm,
        backward=_add_rms_norm_gradients,
        setup_context=_add_norm_setup,
    ),
    Op(
        name="rms_norm_backward",
        schema=(
            "(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor rstd, bool weight_gradient)"
            " -> (Tensor dx, Tensor dweight)"
        ),
        reference=reference.rms_norm_backward,
        fake=_fake_rms_norm_backward,
        backward=_no_second_gradients,
    ),
    Op(
        name="layer_norm",
        schema=(
            "(Tensor x, Tensor? weight, Tensor? bias, float epsilon) -> (Tensor y, Tensor mean, Tensor rstd)"
        ),
        reference=reference.layer_norm,
        fake=_fake_layer_norm,
        backward=_layer_norm_gradients,
        setup_context=_layer_norm_setup,
    ),
    Op(
        name="add_layer_norm",
        schema=(
            "(Tensor x, Tensor residual, Tensor? weight, Tensor? bias, float epsilon)"
            " -> (Tensor y, Tensor summed, Tensor mean, Tensor rstd)"
        ),
        reference=reference.add_layer_norm,
        fake=_fake_add_layer_norm,
        backward=_add_layer_norm_gradients,
        setup_context=_add_layer_norm_setup,
    ),
    Op(
        name="layer_norm_backward",
        schema=(
            "(Tensor dy, Tensor? dsummed, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd,"
            " bool weight_gradient, bool bias_gradient) -> (Tensor dx, Tensor dweight, Tensor dbias)"
        ),
        reference=reference.layer_norm_backward,
        fake=_fake_layer_norm_backward,
        backward=_no_second_gradients,
    ),
)
PARTS = {
    "rms_norm": ("rms_norm", "add_rms_norm", "rms_norm_backward"),
    "layer_norm": ("layer_norm", "add_layer_norm", "layer_norm_backward"),
}
