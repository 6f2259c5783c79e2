"""The draw as a torch op. There is no gradient, and asking for one says so."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from datahall_kernels.registry import Op
from datahall_kernels.sampling import reference


def _fake(logits: Tensor, *others: Tensor | None) -> tuple[Tensor, Tensor]:
    reference.check(logits, *others)  # type: ignore[arg-type]
    rows = (logits.shape[0],)
    return logits.new_empty(rows, dtype=torch.int64), logits.new_empty(rows, dtype=torch.float32)


def _no_gradient(_ctx: Any, *_gradients: object) -> NoReturn:
    raise NotImplementedError(
        "datahall: sample has no gradient: a token that was drawn is no function of logits"
    )


OPS = (
    Op(
        name="sample",
        schema=(
            "(Tensor logits, Tensor? temperature, Tensor? top_k, Tensor? top_p, Tensor? min_p, Tensor? repetition,"
            " Tensor? presence, Tensor? frequency, Tensor? listed, Tensor? counts, Tensor? lengths, Tensor? allowed,"
            " Tensor seeds, Tensor offsets) -> (Tensor tokens, Tensor log_probabilities)"
        ),
        reference=reference.sample,
        fake=_fake,
        backward=_no_gradient,
    ),
)
PARTS = {"sample": ("sample",)}
