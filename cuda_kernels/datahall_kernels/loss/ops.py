"""Cross-entropy as torch ops: schemas, shapes and gradients.

The loss of a row does not know how it will be weighted, so the plain op makes the gradient in its backward pass, from
one more read of the logits: with a gradient made in the forward pass, a loss that is scaled afterwards (loss scaling,
accumulation) would read and write it once more. Who knows the weights beforehand, as the linear layer's loss does, has
`cross_entropy_with_gradient_`: one read of the logits for both.

Gradients of gradients are not implemented, and say so.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from datahall_kernels.loss import checks, linear, reference
from datahall_kernels.registry import Op


def _fake_cross_entropy(logits: Tensor, targets: Tensor, ignore_index: int, label_smoothing: float) -> Tensor:
    checks.cross_entropy("cross_entropy", logits, targets, label_smoothing)
    return logits.new_empty((logits.shape[0],), dtype=checks.loss_type(logits))


def _fake_cross_entropy_backward(
    dlosses: Tensor, logits: Tensor, targets: Tensor, ignore_index: int, label_smoothing: float
) -> Tensor:
    checks.cross_entropy("cross_entropy_backward", logits, targets, label_smoothing, dlosses=dlosses)
    return torch.empty_like(logits)


def _fake_cross_entropy_with_gradient_(
    logits: Tensor, targets: Tensor, dlosses: Tensor, ignore_index: int, label_smoothing: float
) -> Tensor:
    checks.cross_entropy(
        "cross_entropy_with_gradient_", logits, targets, label_smoothing, dlosses=dlosses, may_have_gaps=True
    )
    return logits.new_empty((logits.shape[0],), dtype=checks.loss_type(logits))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, targets, ctx.ignore_index, ctx.label_smoothing = inputs
    ctx.save_for_backward(logits, targets)


def _gradients(ctx: Any, dlosses: Tensor) -> tuple[Tensor | None, ...]:
    logits, targets = ctx.saved_tensors
    dlogits = torch.ops.datahall.cross_entropy_backward(
        dlosses, logits, targets, ctx.ignore_index, ctx.label_smoothing
    )
    return dlogits, None, None, None


def _fake_linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ignore_index: int,
    label_smoothing: float,
    mean: bool,
    chunk_bytes: int,
    hidden_gradient: bool,
    weight_gradient: bool,
    bias_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    checks.linear(
        "linear_cross_entropy", hidden, weight, bias, targets=targets, label_smoothing=label_smoothing
    )
    scalar = hidden.new_empty((), dtype=checks.loss_type(hidden))
    dhidden = torch.empty_like(hidden) if hidden_gradient else hidden.new_empty(0)
    dweight = weight.new_empty(weight.shape) if weight_gradient else weight.new_empty(0)
    like_bias = weight if bias is None else bias
    dbias = like_bias.new_empty((weight.shape[0],)) if bias_gradient else like_bias.new_empty(0)
    return scalar, dhidden, dweight, dbias, torch.empty_like(scalar)


def _linear_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, *gradients, left = output
    ctx.mark_non_differentiable(*gradients, left)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*gradients, left)


def _linear_gradients(ctx: Any, dloss: Tensor | None, *_others: object) -> tuple[Tensor | None, ...]:
    *gradients, left = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:3]
    nothing = (None,) * 8
    if dloss is None:
        return (None, None, None, *nothing)
    factor = dloss * left
    scaled = [_scaled(*pair, factor) for pair in zip(gradients, wanted, strict=True)]
    return (*scaled, *nothing)


def _scaled(gradient: Tensor, is_wanted: bool, factor: Tensor) -> Tensor | None:
    if not is_wanted:
        return None
    # Torch would round the factor to the gradient's type first, and a loss scale of 65,536 is none in float16.
    return (gradient.to(factor.dtype) * factor).to(gradient.dtype)


def _no_second_gradients(_ctx: Any, *_gradients: object) -> NoReturn:
    raise NotImplementedError(
        "datahall: gradients of cross_entropy's gradient are not implemented; "
        "use torch's own op (DATAHALL_KERNELS=off)"
    )


OPS = (
    Op(
        name="cross_entropy",
        schema="(Tensor logits, Tensor targets, int ignore_index, float label_smoothing) -> Tensor",
        reference=reference.cross_entropy,
        fake=_fake_cross_entropy,
        backward=_gradients,
        setup_context=_setup,
    ),
    Op(
        name="cross_entropy_backward",
        schema="(Tensor dlosses, Tensor logits, Tensor targets, int ignore_index, float label_smoothing) -> Tensor",
        reference=reference.cross_entropy_backward,
        fake=_fake_cross_entropy_backward,
        backward=_no_second_gradients,
    ),
    Op(
        name="cross_entropy_with_gradient_",
        schema="(Tensor(a!) logits, Tensor targets, Tensor dlosses, int ignore_index, float label_smoothing)"
        " -> Tensor",
        reference=reference.cross_entropy_with_gradient_,
        fake=_fake_cross_entropy_with_gradient_,
    ),
    Op(
        name="linear_cross_entropy",
        schema="(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, int ignore_index, float label_smoothing,"
        " bool mean, int chunk_bytes, bool hidden_gradient, bool weight_gradient, bool bias_gradient)"
        " -> (Tensor loss, Tensor dhidden, Tensor dweight, Tensor dbias, Tensor left)",
        reference=linear.linear_cross_entropy,
        fake=_fake_linear_cross_entropy,
        backward=_linear_gradients,
        setup_context=_linear_setup,
        is_composite=True,
    ),
)
PARTS = {
    "cross_entropy": ("cross_entropy", "cross_entropy_backward"),
    "linear_cross_entropy": ("cross_entropy", "cross_entropy_with_gradient_", "linear_cross_entropy"),
}
