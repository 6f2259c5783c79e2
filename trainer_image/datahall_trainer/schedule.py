"""The learning rate as a pure function of the step, and the optimizer it drives."""

from __future__ import annotations

import math

from torch import nn

from datahall_kernels import AdamW


def learning_rate(step: int, *, total_steps: int, peak: float, warmup_fraction: float) -> float:
    """The rate of optimizer step `step` (from 0): linear climb, then half a cosine down to almost 0."""
    warmup = round(total_steps * warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def adamw(model: nn.Module, *, learning_rate: float, weight_decay: float, max_norm: float) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019) whose decay leaves out biases and normalisation, as is usual.

    It clips the norm of all gradients together to `max_norm`.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=learning_rate, max_norm=max_norm)
