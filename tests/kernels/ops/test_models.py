"""Small models trained with our ops and without: the same losses (the check that Liger makes of its kernels).

A GPT with RMSNorm, residuals added in the norm, and the loss of its head in chunks; a BERT with LayerNorm and a
classifier. Both by our AdamW. "Without" is DATAHALL_KERNELS=off: the same program by torch's own ops.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import datahall_kernels
from datahall_kernels import AdamW, Path, cross_entropy, dispatch, layer_norm, linear_cross_entropy, rms_norm

DEVICES = ["cpu", *(["cuda"] if datahall_kernels.available()["adamw"].ok else [])]
VOCABULARY, CLASSES, LENGTH, ROWS = 101, 5, 24, 8
STEPS = 30


class Block(nn.Module):
    """Attention and a feed-forward layer; the norm before each adds what the layer before it has found."""

    def __init__(self, width: int, heads: int, *, is_causal: bool) -> None:
        super().__init__()
        self.heads, self.is_causal = heads, is_causal
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.weights = nn.ParameterList([torch.ones(width), torch.ones(width)])
        self.biases = nn.ParameterList([torch.zeros(width), torch.zeros(width)])

    def norm(self, number: int, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_causal:
            return rms_norm(x, self.weights[number], 1e-6, residual)
        return layer_norm(x, self.weights[number], self.biases[number], 1e-5, residual)

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        y, residual = self.norm(0, x, residual)
        rows, length, width = y.shape
        q, k, v = self.qkv(y).view(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        y, residual = self.norm(1, self.out(found.transpose(1, 2).reshape(rows, length, width)), residual)
        return self.down(functional.gelu(self.up(y))), residual


class Model(nn.Module):
    def __init__(self, kind: str, *, layers: int = 2, width: int = 48, heads: int = 4) -> None:
        super().__init__()
        self.is_gpt = kind == "gpt"
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.ModuleList(Block(width, heads, is_causal=self.is_gpt) for _ in range(layers))
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.head = nn.Linear(width, VOCABULARY if self.is_gpt else CLASSES, bias=not self.is_gpt)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        if torch.is_autocast_enabled(ids.device.type):
            x = x.to(torch.get_autocast_dtype(ids.device.type))
        residual = torch.zeros_like(x)
        for block in self.blocks:
            x, residual = block(x, residual)
        if self.is_gpt:
            y, _ = rms_norm(x, self.weight, 1e-6, residual)
            return linear_cross_entropy(y, self.head.weight, targets, chunk_bytes=50 * VOCABULARY * 4)
        y, _ = layer_norm(x, self.weight, self.bias, 1e-5, residual)
        return cross_entropy(self.head(y.mean(dim=1)), targets, label_smoothing=0.1)


def batch(kind: str, step: int) -> tuple[Tensor, Tensor]:
    """What can be learned: the token after the one before (GPT), and the class whose tokens come more often (BERT)."""
    generator = torch.Generator().manual_seed(step)
    if kind == "bert":
        labels = torch.randint(0, CLASSES, (ROWS,), generator=generator)
        ids = torch.randint(0, VOCABULARY // CLASSES, (ROWS, LENGTH), generator=generator)
        return ids + labels[:, None] * (VOCABULARY // CLASSES), labels
    start = torch.randint(0, VOCABULARY, (ROWS, 1), generator=generator)
    ids = (start + torch.arange(LENGTH + 1)) % VOCABULARY
    targets = ids[:, 1:].clone()
    targets[:, :2] = -100
    return ids[:, :-1], targets


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small that threads would wait for each other more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(kind: str, precision: torch.dtype, device: str, mode: str) -> list[float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATAHALL_KERNELS", mode)
        dispatch.forget()
        torch.manual_seed(1)
        model = Model(kind).to(device)
        optimizer = AdamW(model.parameters(), lr=5e-3, max_norm=1.0, weight_decay=0.01)
        losses = []
        for step in range(STEPS):
            ids, targets = (tensor.to(device) for tensor in batch(kind, step))
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=precision is torch.bfloat16):
                loss = model.loss(ids, targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        ran = {taken.path for taken in datahall_kernels.paths()}
        ours = Path.REFERENCE if device == "cpu" else Path.CUDA
        assert ran == {Path.TORCH if mode == "off" else ours}
        dispatch.forget()
    return losses


@pytest.mark.parametrize(
    ("precision", "allowed"),
    # Relative to the first loss. Float32's is what 30 steps make of last bits; bfloat16 has 8 bits, to which norms and
    # gradients are rounded at other places.
    [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)],
    ids=["float32", "bfloat16"],
)
@pytest.mark.parametrize("kind", ["gpt", "bert"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_model_trains_to_the_same_losses_with_the_ops_and_without(
    device: str, kind: str, precision: torch.dtype, allowed: float
) -> None:
    with_ops = train(kind, precision, device, "reference")
    without = train(kind, precision, device, "off")
    worst = max(abs(one - other) for one, other in zip(with_ops, without, strict=True)) / without[0]
    print(f"{kind} {precision}: from {without[0]:.4f} to {without[-1]:.4f}, apart by {worst:.2e} at most")
    assert without[-1] < 0.8 * without[0], "it learns nothing: equal losses would say nothing"
    assert worst <= allowed
