"""A step of AdamW in plain torch: the CPU implementation of its ops, and what the tests hold the CUDA to.

In float64, from the states as they are kept; parameters and states are rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datahall_kernels.adamw import checks, rounding, states

_NEAR_ZERO = 1e-6
"""Added to the norm, as torch.nn.utils.clip_grad_norm_ does."""


def squared_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The sum of squares of all gradients together: float32 []."""
    checks.gradients_of_one_type("squared_norm", gradients)
    total = torch.zeros((), dtype=torch.float64, device=gradients[0].device)
    for gradient in gradients:
        total += gradient.double().square().sum()
    return total.float()


def adamw_(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    first_scales: Sequence[Tensor],
    second_scales: Sequence[Tensor],
    steps: Sequence[Tensor],
    learning_rate: Tensor,
    squared_norm: Tensor | None,
    max_norm: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    stochastic_rounding: bool,
    seed: int,
) -> None:
    """One step (Loshchilov and Hutter, 2019) for parameters of one type, in their place.

        g = gradient * min(1, max_norm / norm of all gradients)
        m = m + (g - m) * (1 - beta1);  v = beta2 * v + (1 - beta2) * g * g
        p = p * (1 - rate * decay) - rate * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + epsilon)

    Args:
        parameters: float32, bfloat16 or float16.
        gradients: of the parameters' types and shapes.
        first: m, float32; or 8-bit codes (states.py).
        second: v, as `first`.
        first_scales: of 8-bit codes; else empty.
        second_scales: as `first_scales`.
        steps: how many this is for each parameter, from 1: float32 [].
        learning_rate: float32 [].
        squared_norm: of all gradients, those of other calls included; None: they are not clipped.
        max_norm: what the gradients' norm is clipped to.
        beta1: how much of m stays.
        beta2: how much of v stays.
        epsilon: added to the root of v.
        weight_decay: times the rate, what parameters lose.
        stochastic_rounding: of bfloat16 parameters; all else is rounded to nearest.
        seed: of that.
    """
    checks.adamw(
        "adamw_",
        parameters,
        gradients,
        first=first,
        second=second,
        first_scales=first_scales,
        second_scales=second_scales,
        steps=steps,
        learning_rate=learning_rate,
        squared_norm=squared_norm,
    )
    rate = learning_rate.double()
    share = torch.ones_like(rate)
    if squared_norm is not None:
        share = (max_norm / (squared_norm.double().sqrt() + _NEAR_ZERO)).clamp(max=1.0)
    for number, (parameter, gradient, step) in enumerate(zip(parameters, gradients, steps, strict=True)):
        codes = (first[number], second[number])
        scales = (first_scales[number], second_scales[number]) if first_scales else None
        m, v = (state.flatten() for state in (states.decode(*codes, *scales) if scales else codes))
        g = gradient.flatten().double() * share
        m = m.double() + (g - m) * (1 - beta1)
        v = v.double() + (g * g - v) * (1 - beta2)
        of_first, of_second = 1 - beta1 ** step.double(), 1 - beta2 ** step.double()
        direction = (m / of_first) / ((v / of_second).sqrt() + epsilon)
        value = parameter.flatten().double() * (1 - rate * weight_decay) - rate * direction
        if stochastic_rounding and parameter.dtype == torch.bfloat16:
            value = rounding.stochastic(value.float(), seed=seed, number=number, step=step)
        parameter.copy_(value.view(parameter.shape))
        if scales is not None:
            states.encode_(*codes, *scales, m=m, v=v)
        else:
            codes[0].copy_(m.view(parameter.shape))
            codes[1].copy_(v.view(parameter.shape))
