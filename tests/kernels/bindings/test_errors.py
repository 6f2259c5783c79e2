"""The table of errors: the very kernels, run on the CPU, and torch's own ops in the same type, against float64.

`make -s kernel-errors` prints it, one JSON object per op, result and type; errors are relative to the root of the mean
square of the exact result. The tests hold ours to being no worse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from datahall_kernels import quantise, rotary_angles

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


def product_by_torch(given: Tensors, bits: int) -> Tensors:
    x, weight = given["x"], quantise(given["weight"], bits=bits, group=64)
    return {"y": functional.linear(x, weight.dequantise(x.dtype))}


def product_by_ours(ops: Any, given: Tensors, bits: int) -> Tensors:
    weight = quantise(given["weight"], bits=bits, group=64)
    return {"y": ops.weight_only(given["x"], weight.codes, weight.scales, None, 64, bits)}


def context_of(given: Tensors) -> tuple[Tensor, Tensor, Tensor]:
    """Pages [2, 3] and tokens [2] of two sequences, and the slot of each token."""
    pages = torch.tensor([[4, 0, 2], [1, 5, 3]], dtype=torch.int32)
    lengths = torch.tensor([len(given["keys"]) // 2] * 2, dtype=torch.int32)
    at = torch.arange(int(lengths[0]))
    slots = torch.cat([row[at // 16].long() * 16 + at % 16 for row in pages])
    return pages, lengths, slots


def attention_by_torch(given: Tensors) -> Tensors:
    q, keys, values = (given[name] for name in ("q", "keys", "values"))
    keys, values = (t.reshape(2, -1, *t.shape[1:]).transpose(1, 2) for t in (keys, values))
    return {"out": functional.scaled_dot_product_attention(q[:, :, None], keys, values)[:, :, 0]}


def attention_by_ours(ops: Any, given: Tensors) -> Tensors:
    pages, lengths, slots = context_of(given)
    keys, values = (torch.zeros(6, 4, 16, 64, dtype=given["q"].dtype) for _ in range(2))
    for cache, rows in ((keys, given["keys"]), (values, given["values"])):
        cache[slots // 16, :, slots % 16] = rows
    return {"out": ops.paged_attention(given["q"], keys, values, None, None, pages, lengths, 0.125)}


def turns_of(given: Tensors) -> tuple[Tensor, Tensor]:
    positions = torch.arange(len(given["qkv"])) * 7
    return positions, rotary_angles(1000, 64)


def rope_by_torch(given: Tensors) -> Tensors:
    positions, angles = turns_of(given)
    cosine, sine = (half[:, None].to(given["qkv"].dtype) for half in angles[positions].chunk(2, -1))
    found = []
    for heads, weight in (
        (given["qkv"][:, :4], given["q_weight"]),
        (given["qkv"][:, 4:6], given["k_weight"]),
    ):
        one, other = functional.rms_norm(heads, (64,), weight, EPSILON).chunk(2, -1)
        found.append(torch.cat([one * cosine - other * sine, other * cosine + one * sine], -1))
    return {"q": found[0], "k": found[1]}


def rope_by_ours(ops: Any, given: Tensors) -> Tensors:
    positions, angles = turns_of(given)
    slots = torch.arange(len(positions))
    keys, values = (torch.zeros(4, 2, 16, 64, dtype=given["qkv"].dtype) for _ in range(2))
    q = ops.rope_append(
        *(given["qkv"], positions, slots, angles, given["q_weight"], given["k_weight"]),
        *(keys, values, None, None, False, EPSILON),
    )
    return {"q": q, "k": keys[slots // 16, :, slots % 16]}


def bags_of(given: Tensors) -> tuple[Tensor, Tensor]:
    rows = len(given["table"])
    return torch.randint(0, rows, (600,), generator=torch.Generator().manual_seed(5)), torch.arange(
        0, 600, 20
    )


def bags_by_torch(given: Tensors) -> Tensors:
    indices, offsets = bags_of(given)
    return {"y": functional.embedding_bag(indices, given["table"], offsets, mode="sum")}


def bags_by_ours(ops: Any, given: Tensors) -> Tensors:
    return {"y": ops.embedding_bag(given["table"], *bags_of(given), None, -1, False, False)[0]}


def sample_by_torch(given: Tensors) -> Tensors:
    # In float32 at least, as for the loss.
    wide = given["logits"].to(torch.promote_types(given["logits"].dtype, torch.float32))
    return {"log-probability": functional.log_softmax(wide / 0.5, dim=-1).amax(-1)}


def sample_by_ours(ops: Any, given: Tensors) -> Tensors:
    rows = len(given["logits"])
    numbers, greatest = torch.zeros(rows, dtype=torch.int64), torch.ones(rows, dtype=torch.int32)
    _, found = ops.sample(
        *(given["logits"], torch.full((rows,), 0.5), greatest, *[None] * 9, numbers, numbers)
    )
    return {"log-probability": found}


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
    **{
        f"weight_only_int{bits} 3 x 576 x 200": (
            lambda: {"x": made(3, 576, seed=1), "weight": made(200, 576, seed=2)},
            partial(product_by_ours, bits=bits),
            partial(product_by_torch, bits=bits),
        )
        for bits in (8, 4)
    },
    "rope_append 50 tokens x 64": (
        lambda: {
            "qkv": made(50, 8, 64, seed=1, scale=2.0),
            "q_weight": made(64, seed=2, scale=0.3, shift=1.0),
            "k_weight": made(64, seed=3, scale=0.3, shift=1.0),
        },
        rope_by_ours,
        rope_by_torch,
    ),
    "paged_attention 2 x 41 tokens x 64": (
        lambda: {"q": made(2, 4, 64, seed=1), "keys": made(82, 4, 64, seed=2), "values": made(82, 4, 64, seed=3)},
        attention_by_ours,
        attention_by_torch,
    ),
    "embedding_bag 30 x 20 of 500 x 64": (lambda: {"table": made(500, 64, seed=1)}, bags_by_ours, bags_by_torch),
    "sample 20 x 1003": (lambda: {"logits": made(20, 1003, seed=1, scale=3.0)}, sample_by_ours, sample_by_torch),
}  # fmt: skip


def errors(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """The greatest, and the root of the mean square."""
    off = (found.double() - exact).abs() / exact.square().mean().sqrt()
    return off.max().item(), off.square().mean().sqrt().item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_error_is_no_worse_than_that_of_torchs_own_op(bindings_on_cpu: Any, name: str, dtype: str) -> None:
    make, ours, torchs = CASES[name]
    rounded = {key: tensor.to(DTYPES[dtype]) for key, tensor in make().items()}
    found, peer = ours(bindings_on_cpu, rounded), torchs(rounded)
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
