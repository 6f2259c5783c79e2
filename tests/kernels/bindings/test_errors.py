"""The table of errors: the very kernels, run on the CPU, and torch's own ops in the same type, against float64.

`make -s kernel-errors` prints it, one JSON object per op, result and type; errors are relative to the root of the mean
square of the exact result. The tests hold ours to being no worse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
EPSILON = 1e-5
RATE, BETAS, TINY, DECAY, STEPS = 1e-2, (0.9, 0.99), 1e-8, 0.1, 3
# Where both round once to the same type, ties and the order of sums decide in the third digit.
ALLOWED = 1.02

Tensors = dict[str, Tensor]


def made(*shape: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale + shift


def norm_inputs(rows: int, width: int) -> Tensors:
    return {
        "x": made(rows, width, seed=1, scale=2.0, shift=0.5),
        "weight": made(width, seed=2, scale=0.3, shift=1.0),
        "bias": made(width, seed=3, scale=0.3),
        "dy": made(rows, width, seed=4),
    }


def norm_by_torch(kind: str, given: Tensors) -> Tensors:
    x, weight, bias = (given[name].clone().requires_grad_() for name in ("x", "weight", "bias"))
    if kind == "rms_norm":
        y = functional.rms_norm(x, x.shape[-1:], weight, EPSILON)
    else:
        y = functional.layer_norm(x, x.shape[-1:], weight, bias, EPSILON)
    y.backward(given["dy"])
    found = {"y": y, "dx": x.grad, "dweight": weight.grad, "dbias": bias.grad}
    return {name: tensor.detach() for name, tensor in found.items() if tensor is not None}


def norm_by_ours(ops: Any, kind: str, given: Tensors) -> Tensors:
    x, weight, bias, dy = (given[name] for name in ("x", "weight", "bias", "dy"))
    if kind == "rms_norm":
        y, rstd = ops.rms_norm(x, weight, EPSILON)
        dx, dweight = ops.rms_norm_backward(dy, None, x, weight, rstd, True)
        return {"y": y, "dx": dx, "dweight": dweight}
    y, mean, rstd = ops.layer_norm(x, weight, bias, EPSILON)
    dx, dweight, dbias = ops.layer_norm_backward(dy, None, x, weight, bias, mean, rstd, True, True)
    return {"y": y, "dx": dx, "dweight": dweight, "dbias": dbias}


def targets_of(given: Tensors) -> Tensor:
    rows, classes = given["logits"].shape
    return torch.randint(0, classes, (rows,), generator=torch.Generator().manual_seed(5))


def loss_by_torch(given: Tensors) -> Tensors:
    logits = given["logits"].clone().requires_grad_()
    # In float32 at least: in half precision torch's own loss has three digits.
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.cross_entropy(wide, targets_of(given), reduction="none", label_smoothing=0.1)
    losses.sum().backward()
    assert logits.grad is not None
    return {"losses": losses.detach(), "dlogits": logits.grad}


def loss_by_ours(ops: Any, given: Tensors) -> Tensors:
    logits, targets = given["logits"], targets_of(given)
    losses = ops.cross_entropy(logits, targets, -100, 0.1)
    dlogits = ops.cross_entropy_backward(torch.ones(len(logits)), logits, targets, -100, 0.1)
    return {"losses": losses, "dlogits": dlogits}


def adamw_by_torch(given: Tensors) -> Tensors:
    parameter = torch.nn.Parameter(given["parameter"].clone())
    optimizer = torch.optim.AdamW([parameter], lr=RATE, betas=BETAS, eps=TINY, weight_decay=DECAY, fused=True)
    for step in range(STEPS):
        parameter.grad = given[f"gradient {step}"].clone()
        optimizer.step()
    return {"parameter": parameter.detach()}


def adamw_by_ours(ops: Any, given: Tensors) -> Tensors:
    parameter = given["parameter"].clone()
    first, second, number = torch.zeros(len(parameter)), torch.zeros(len(parameter)), torch.zeros(())
    for step in range(STEPS):
        number += 1
        ops.adamw_(
            *([parameter], [given[f"gradient {step}"]], [first], [second], [], [], [number]),
            *(torch.tensor(RATE), None, math.inf, *BETAS, TINY, DECAY, False, 0),
        )
    return {"parameter": parameter}


CASES: dict[
    str, tuple[Callable[[], Tensors], Callable[[Any, Tensors], Tensors], Callable[[Tensors], Tensors]]
]
CASES = {
    "rms_norm 199 x 768": (
        lambda: norm_inputs(199, 768),
        lambda ops, given: norm_by_ours(ops, "rms_norm", given),
        lambda given: norm_by_torch("rms_norm", given),
    ),
    "layer_norm 199 x 384": (
        lambda: norm_inputs(199, 384),
        lambda ops, given: norm_by_ours(ops, "layer_norm", given),
        lambda given: norm_by_torch("layer_norm", given),
    ),
    "cross_entropy 400 x 1003": (
        lambda: {"logits": made(400, 1003, seed=1, scale=3.0)},
        loss_by_ours,
        loss_by_torch,
    ),
    "adamw 5000": (
        lambda: {"parameter": made(5000, seed=1)} | {f"gradient {s}": made(5000, seed=2 + s) for s in range(STEPS)},
        adamw_by_ours,
        adamw_by_torch,
    ),
}  # fmt: skip


def errors(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """The greatest, and the root of the mean square."""
    off = (found.double() - exact).abs() / exact.square().mean().sqrt()
    return off.max().item(), off.square().mean().sqrt().item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_error_is_no_worse_than_that_of_torchs_own_op(bindings: Any, name: str, dtype: str) -> None:
    make, ours, torchs = CASES[name]
    rounded = {key: tensor.to(DTYPES[dtype]) for key, tensor in make().items()}
    found, peer = ours(bindings, rounded), torchs(rounded)
    exact = torchs({key: tensor.double() for key, tensor in rounded.items()})
    op, shape = name.split(" ", maxsplit=1)
    rows = []
    for result in found:
        our_max, our_rms = errors(found[result], exact[result])
        their_max, their_rms = errors(peer[result], exact[result])
        rows.append({
            "op": op, "result": result, "shape": shape, "dtype": dtype,
            "ours_max": our_max, "torch_max": their_max, "ours_rms": our_rms, "torch_rms": their_rms,
        })  # fmt: skip
    print(*(f"\n{json.dumps(row)}" for row in rows))
    assert not [row for row in rows if row["ours_rms"] > row["torch_rms"] * ALLOWED]
