"""Products with weights of few bits as a torch op. For inference: there is no gradient, and asking for one says so."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor

from datahall_kernels.registry import Op
from datahall_kernels.weight_only import checks, reference


def _fake(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None, group: int, bits: int) -> Tensor:
    checks.product("weight_only", x, codes, scales, bias, group=group, bits=bits)
    return x.new_empty((*x.shape[:-1], codes.shape[0]))


def _no_gradient(_ctx: Any, *_gradients: object) -> NoReturn:
    raise NotImplementedError(
        "datahall: weight_only has no gradient; train with the weight that was quantised, and quantise it anew"
    )


OPS = (
    Op(
        name="weight_only",
        schema="(Tensor x, Tensor codes, Tensor scales, Tensor? bias, int group, int bits) -> Tensor y",
        reference=reference.weight_only,
        fake=_fake,
        backward=_no_gradient,
    ),
)
PARTS = {"weight_only_linear": ("weight_only",)}
