"""AdamW as torch ops: one step for all tensors of a type, and the norm that they are clipped by.

Two ops, because one norm is of all parameters while a step is of those with equal settings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datahall_kernels.adamw import checks, reference
from datahall_kernels.registry import Op


def _fake_squared_norm(gradients: Sequence[Tensor]) -> Tensor:
    checks.gradients_of_one_type("squared_norm", gradients)
    return gradients[0].new_empty((), dtype=torch.float32)


def _fake_adamw(
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


OPS = (
    Op(
        name="squared_norm",
        schema="(Tensor[] gradients) -> Tensor",
        reference=reference.squared_norm,
        fake=_fake_squared_norm,
    ),
    Op(
        name="adamw_",
        schema="(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] first, Tensor(c!)[] second,"
        " Tensor(d!)[] first_scales, Tensor(e!)[] second_scales, Tensor[] steps, Tensor learning_rate,"
        " Tensor? squared_norm, float max_norm, float beta1, float beta2, float epsilon, float weight_decay,"
        " bool stochastic_rounding, int seed) -> ()",
        reference=reference.adamw_,
        fake=_fake_adamw,
    ),
)
PARTS = {"adamw": ("squared_norm", "adamw_")}
