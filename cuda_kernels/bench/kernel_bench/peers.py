"""The peers, where they are installed: torch.compile, Liger, QuACK, FlashInfer."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernel_bench.cases import Call

# Module to import, by provider; what is not installed is left out.
MODULES = {"liger": "liger_kernel", "quack": "quack", "flashinfer": "flashinfer"}
OPS = {
    "rms_norm": ("liger", "quack"),
    "layer_norm": ("liger",),
    "paged_attention": ("flashinfer",),
    "cross_entropy": ("liger", "quack"),
    "linear_cross_entropy": ("liger",),
    "sampling": ("flashinfer",),
}


def missing() -> list[str]:
    """Peers that are not installed."""
    return [name for name, module in MODULES.items() if importlib.util.find_spec(module) is None]


def names(op: str) -> tuple[str, ...]:
    """The installed peers that have an op."""
    absent = missing()
    return tuple(name for name in OPS[op] if name not in absent)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """By torch.compile, as it is at its best: with autotuning, for this one shape."""
    return torch.compile(function, mode="max-autotune-no-cudagraphs", dynamic=False)


def chosen(
    provider: str,
    *,
    ours: Callable[..., Any],
    plain: Callable[..., Any],
    peer: Callable[[str], Callable[..., Any]] | None = None,
) -> Callable[..., Any]:
    """What a provider runs: ours, the plain torch function as it is or compiled, or that of a peer."""
    match provider:
        case "ours":
            return ours
        case "torch":
            return plain
        case "compile":
            return compiled(plain)
    assert peer is not None, f"{provider} is no provider here"
    return peer(provider)


def norm(op: str, epsilon: float, provider: str) -> Callable[..., Tensor]:
    """A peer's norm, as a function of x, weight and bias."""
    match op, provider:
        case "rms_norm", "liger":
            liger = importlib.import_module("liger_kernel.ops.rms_norm").LigerRMSNormFunction
            return lambda x, weight, _bias: liger.apply(x, weight, epsilon, 0.0, "llama", False)
        case "layer_norm", "liger":
            liger = importlib.import_module("liger_kernel.ops.layer_norm").LigerLayerNormFunction
            return lambda x, weight, bias: liger.apply(x, weight, bias, epsilon)
        case "rms_norm", "quack":
            quack = importlib.import_module("quack")
            return lambda x, weight, _bias: quack.rmsnorm(x, weight, eps=epsilon)
    raise ValueError(f"{provider} has no {op}")


def loss(provider: str) -> Callable[..., Tensor]:
    """A peer's cross-entropy, as a function of logits and targets: the mean."""
    match provider:
        case "liger":
            liger = importlib.import_module("liger_kernel.ops.cross_entropy").LigerCrossEntropyFunction
            # It writes the gradient over the logits, which the next sample reads again.
            return lambda logits, targets: liger.apply(logits.clone(), targets, None)[0]
        case "quack":
            quack = importlib.import_module("quack")
            return lambda logits, targets: quack.cross_entropy(logits, targets, reduction="mean")
    raise ValueError(f"{provider} has no cross_entropy")


def linear_loss(provider: str) -> Callable[..., Tensor]:
    """Liger's loss of a linear layer's outputs, as a function of hidden, weight and targets."""
    assert provider == "liger"
    name = "liger_kernel.ops.fused_linear_cross_entropy"
    liger = importlib.import_module(name).LigerFusedLinearCrossEntropyFunction
    return lambda hidden, weight, targets: liger.apply(hidden, weight, targets)[0]


def sample(top_k: int, top_p: float, temperature: float) -> Callable[[Tensor], Tensor]:
    """FlashInfer's sampling, as a function of logits."""
    flashinfer = importlib.import_module("flashinfer")

    def call(logits: Tensor) -> Tensor:
        scaled = logits.float() / temperature
        drawn: Tensor = flashinfer.sampling.top_k_top_p_sampling_from_logits(scaled, top_k, top_p)
        return drawn

    return call


def paged_attention(
    provider: str, q: Tensor, keys: Tensor, values: Tensor, pages: Tensor, lengths: Tensor
) -> Call:
    """FlashInfer's decode over the same pages; its plan is made outside of the time, as once for all layers."""
    assert provider == "flashinfer"
    flashinfer = importlib.import_module("flashinfer")
    sequences, q_heads, head_dim = q.shape
    workspace = torch.empty(128 << 20, dtype=torch.uint8, device=q.device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "HND")
    counts = (lengths + 15) // 16
    starts = torch.zeros(sequences + 1, dtype=torch.int32, device=q.device)
    starts[1:] = counts.cumsum(0)
    listed = torch.cat([row[: int(count)] for row, count in zip(pages, counts, strict=True)])
    last = (lengths - 1) % 16 + 1
    wrapper.plan(
        starts, listed, last, q_heads, keys.shape[1], head_dim, 16, data_type=keys.dtype, q_data_type=q.dtype
    )
    return lambda: wrapper.run(q, (keys, values))
