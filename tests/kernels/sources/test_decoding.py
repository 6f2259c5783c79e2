"""rope_append.cu and paged_attention.cu, run on the CPU one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kernel_execution import InOut, Input, Library, Order, Output, Scratch
from tests.kernels.sources.launching import DTYPES, assert_near, i32, made, name_of

PAGE = 16
OF_NORM = {torch.float32: 12.0, torch.bfloat16: 1.1, torch.float16: 1.1}
"""Roundings: one of the result, or the sums' own."""
SAME, FP8, INT8 = range(3)


@dataclass
class Step:
    """All tokens of some sequences appended, and then one step of attention for each."""

    dtype: torch.dtype
    cache_kind: int = SAME
    head_dim: int = 64
    q_heads: int = 6
    kv_heads: int = 2
    lengths: tuple[int, ...] = (1, 17, 100)
    splits: int = 1
    interleaved: bool = False
    rotary: int = 64
    normalised: bool = True
    order: Order = Order.FORWARD

    def __post_init__(self) -> None:
        tokens, heads, dim = sum(self.lengths), self.q_heads + 2 * self.kv_heads, self.head_dim
        self.most_pages = max(1, -(-max(self.lengths) // PAGE)) + 1
        self.pages = len(self.lengths) * self.most_pages + 3
        order = torch.randperm(self.pages, generator=torch.Generator().manual_seed(1))
        self.table = order[: len(self.lengths) * self.most_pages].reshape(len(self.lengths), -1).int()
        kept = {SAME: self.dtype, FP8: torch.uint8, INT8: torch.int8}[self.cache_kind]
        shape = (self.pages, self.kv_heads, PAGE, dim)
        self.keys, self.values = torch.zeros(shape, dtype=kept), torch.zeros(shape, dtype=kept)
        per_token = self.cache_kind == INT8
        self.key_scales = torch.zeros(shape[:3]) if per_token else torch.tensor([0.02])
        self.value_scales = self.key_scales.clone()
        self.qkv = made(tokens, heads, dim, dtype=self.dtype, seed=2)
        self.positions = torch.cat([torch.arange(length) for length in self.lengths])
        places = [
            self.table[i, torch.arange(length) // PAGE].long() * PAGE + torch.arange(length) % PAGE
            for i, length in enumerate(self.lengths)
        ]
        self.slots = torch.cat(places)
        turns = torch.outer(
            torch.arange(max(self.lengths) + 1).double(),
            10_000.0 ** (-torch.arange(0, self.rotary, 2).double() / self.rotary),
        )
        self.angles = torch.cat([turns.cos(), turns.sin()], 1).float()
        self.weights = [made(dim, dtype=self.dtype, seed=s, shift=1.0, scale=0.1) for s in (3, 4)]
        self.q = torch.empty(tokens, self.q_heads, dim, dtype=self.dtype)
        self.out = torch.empty(len(self.lengths), self.q_heads, dim, dtype=self.dtype)

    def scales(self, kind: type[Input] | type[InOut]) -> list[Input | InOut | None]:
        if self.cache_kind == SAME:
            return [None, None]
        return [kind("key scales", self.key_scales), kind("value scales", self.value_scales)]

    def append(self, kernels: Library) -> None:
        weights = [Input("weight", w) if self.normalised else None for w in self.weights]
        code = i32(DTYPES[self.dtype])
        kernels.check(
            *("datahall_rope_append", Input("qkv", self.qkv), Input("positions", self.positions)),
            *(Input("slots", self.slots), Input("angles", self.angles), *weights, Output("q", self.q)),
            *(InOut("keys", self.keys), InOut("values", self.values)),
            *self.scales(InOut if self.cache_kind == INT8 else Input),
            *(sum(self.lengths), len(self.angles), self.pages * PAGE, i32(self.q_heads), i32(self.kv_heads)),
            *(i32(self.head_dim), i32(self.rotary), i32(self.interleaved), 1e-6, i32(self.cache_kind)),
            *(code, code, None),
            order=self.order,
            seed=1,
        )

    def attend(self, kernels: Library) -> None:
        parts = len(self.lengths) * self.q_heads * self.splits
        partial = [Scratch("partial out", parts * self.head_dim * 4), Scratch("partial sums", parts * 8)]
        kernels.check(
            *("datahall_paged_attention", Input("q", self.last()), Input("keys", self.keys)),
            *(Input("values", self.values), *self.scales(Input), Input("pages", self.table)),
            *(Input("lengths", torch.tensor(self.lengths, dtype=torch.int32)), Output("out", self.out)),
            *(partial if self.splits > 1 else (None, None)),
            *(self.pages, i32(len(self.lengths)), i32(self.most_pages), i32(self.q_heads)),
            *(i32(self.kv_heads), i32(self.head_dim), i32(self.splits), 1 / math.sqrt(self.head_dim)),
            *(i32(self.cache_kind), i32(DTYPES[self.dtype]), None),
            order=self.order,
            seed=2,
        )

    def last(self) -> Tensor:
        """q of the newest token of each sequence."""
        ends = torch.tensor(self.lengths).cumsum(0) - 1
        return self.q[ends.clamp(min=0)].contiguous()

    def rotated(self, heads: Tensor, weight: Tensor) -> Tensor:
        x = heads.double()
        if self.normalised:
            x = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight.double()
        half = self.rotary // 2
        angles = self.angles[self.positions][:, None].double()
        cosine, sine = angles[..., :half], angles[..., half:]
        turned, rest = x[..., : self.rotary], x[..., self.rotary :]
        one, other = (
            (turned[..., 0::2], turned[..., 1::2])
            if self.interleaved
            else (turned[..., :half], turned[..., half:])
        )
        pair = (one * cosine - other * sine, other * cosine + one * sine)
        turned = torch.stack(pair, -1).flatten(-2) if self.interleaved else torch.cat(pair, -1)
        return torch.cat([turned, rest], -1)

    def cached(self, elements: Tensor, scales: Tensor) -> Tensor:
        """What the cache holds of all tokens, [tokens, kv heads, head_dim]."""
        wide = elements.view(torch.float8_e4m3fn).double() if self.cache_kind == FP8 else elements.double()
        if self.cache_kind != SAME:
            wide = wide * (scales.double() if self.cache_kind == FP8 else scales.double()[..., None])
        return wide[self.slots // PAGE, :, self.slots % PAGE]

    def check(self, kernels: Library) -> None:
        self.append(kernels)
        split = self.qkv.split([self.q_heads, self.kv_heads, self.kv_heads], 1)
        assert_near(self.q, self.rotated(split[0], self.weights[0]), roundings=OF_NORM[self.dtype])
        keys = self.cached(self.keys, self.key_scales)
        values = self.cached(self.values, self.value_scales)
        rotated = self.rotated(split[1], self.weights[1])
        if self.cache_kind == SAME:
            assert_near(keys, rotated, roundings=OF_NORM[self.dtype], dtype=self.dtype)
            assert torch.equal(values, split[2].double())
        else:
            # fp8 has four bits of a number, int8 steps of 1/127 of the greatest.
            for found, exact in ((keys, rotated), (values, split[2].double())):
                size = exact.abs() if self.cache_kind == FP8 else exact.abs().amax(-1, keepdim=True)
                step = size / 16 + 0.02 * 2**-10 if self.cache_kind == FP8 else size / 250
                assert bool(((found - exact).abs() <= step).all())
        self.attend(kernels)
        start, group = 0, self.q_heads // self.kv_heads
        for i, length in enumerate(self.lengths):
            k, v = (t[start : start + length].repeat_interleave(group, 1) for t in (keys, values))
            start += length
            if not length:
                assert not self.out[i].any()
                continue
            scores = torch.einsum("hd,nhd->hn", self.last()[i].double(), k) / math.sqrt(self.head_dim)
            exact = torch.einsum("hn,nhd->hd", scores.softmax(-1), v)
            assert_near(self.out[i], exact, roundings=1.1 if self.dtype != torch.float32 else 30)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("q_heads", "kv_heads"), [(4, 4), (4, 2), (9, 3), (8, 1), (12, 1)])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_heads_that_share_keys(
    kernels: Library, dtype: torch.dtype, q_heads: int, kv_heads: int, splits: int
) -> None:
    Step(dtype, q_heads=q_heads, kv_heads=kv_heads, splits=splits, lengths=(1, 17, 70)).check(kernels)


@pytest.mark.parametrize("cache_kind", [SAME, FP8, INT8], ids=["same", "fp8", "int8"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
def test_caches_of_eight_bits(kernels: Library, dtype: torch.dtype, head_dim: int, cache_kind: int) -> None:
    Step(dtype, cache_kind, head_dim=head_dim, rotary=head_dim, lengths=(5, 130), splits=2).check(kernels)


@pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "neighbours"])
@pytest.mark.parametrize("rotary", [0, 2, 32, 64])
def test_ways_to_rotate(kernels: Library, rotary: int, interleaved: bool) -> None:
    Step(torch.float32, rotary=rotary, interleaved=interleaved, lengths=(33,)).check(kernels)


@pytest.mark.parametrize("order", Order)
def test_any_order_of_blocks_and_threads(kernels: Library, order: Order) -> None:
    Step(torch.bfloat16, INT8, lengths=(40, 3), splits=2, order=order, normalised=False).check(kernels)


def test_a_sequence_without_context_gives_zeros(kernels: Library) -> None:
    Step(torch.float32, lengths=(0, 5)).check(kernels)


def test_a_token_without_a_slot_is_not_kept(kernels: Library) -> None:
    step = Step(torch.float32, lengths=(3,))
    step.slots = torch.tensor([-1, step.pages * PAGE, 5])
    step.append(kernels)
    kept = step.keys.abs().sum((1, 3)).flatten().nonzero().flatten()
    assert kept.tolist() == [5]


def test_a_position_beyond_the_table_and_a_page_that_does_not_exist_make_nan(kernels: Library) -> None:
    step = Step(torch.float32, lengths=(20, 3))
    step.positions[2] = 10_000
    step.append(kernels)
    assert torch.isnan(step.q[2]).all()
    assert torch.isfinite(step.q[[0, 1, 3]]).all()
    step = Step(torch.float32, lengths=(20, 3))
    step.append(kernels)
    step.table[0, 1] = step.pages
    step.attend(kernels)
    assert torch.isnan(step.out[0]).all()
    assert torch.isfinite(step.out[1]).all()


def test_a_context_longer_than_its_row_of_pages_makes_nan(kernels: Library) -> None:
    step = Step(torch.float32, lengths=(20, 3))
    step.append(kernels)
    last = step.last()
    step.last = lambda: last  # type: ignore[method-assign]
    step.lengths = (PAGE * step.most_pages + 1, 3)
    step.attend(kernels)
    assert torch.isnan(step.out[0]).all()
    assert torch.isfinite(step.out[1]).all()


def test_contexts_are_split_so_that_few_sequences_fill_a_device(kernels: Library) -> None:
    def splits(sequences: int, most_tokens: int) -> int:
        sizes = (i32(sequences), i32(8), i32(2), i32(most_tokens), i32(132))
        return kernels.run("datahall_paged_splits", *sizes).code

    assert splits(1, 4096) == 64
    assert splits(1, 32) == 1
    assert splits(200, 4096) == 1
