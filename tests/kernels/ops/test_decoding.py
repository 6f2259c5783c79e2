"""The append to a paged cache and attention over it, against attention in plain words."""

from __future__ import annotations

import math

import pytest
import torch

from datahall_kernels import (
    CacheKind,
    PagedCache,
    dispatch,
    paged_attention,
    rope_append,
    rotary_angles,
)
from tests.kernels.ops.decoding_steps import Step

KEPT = {"same": None, "fp8": torch.float8_e4m3fn, "int8": torch.int8}
# Of the greatest element: one rounding of the data, or half a step of the codes.
ERRORS = {"same": 2**-8, "fp8": 2**-4, "int8": 2**-7}


@pytest.mark.parametrize("kind", KEPT)
def test_ops_pass_torchs_own_checks(kind: str) -> None:
    step = Step.made(dtype=torch.bfloat16, kept=KEPT[kind], weights="own")
    # Torch's check of schemas compares arguments with `allclose`, which float8 has not.
    utils = (
        ["test_faketensor"]
        if kind == "fp8"
        else ["test_schema", "test_faketensor", "test_aot_dispatch_dynamic"]
    )
    torch.library.opcheck(torch.ops.datahall.rope_append.default, step.append_arguments(), test_utils=utils)
    torch.library.opcheck(
        torch.ops.datahall.paged_attention.default, step.attention_arguments(), test_utils=utils
    )


@pytest.mark.parametrize("mode", ["reference", "off"])
@pytest.mark.parametrize("kind", KEPT)
def test_decoding_token_by_token_is_causal_attention_over_all(
    monkeypatch: pytest.MonkeyPatch, kind: str, mode: str
) -> None:
    monkeypatch.setenv("DATAHALL_KERNELS", mode)
    dispatch.forget()
    dtype, tokens, heads, dim = torch.bfloat16, 37, 2, 64
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(tokens, 3 * heads, dim, generator=generator).to(dtype)
    angles = rotary_angles(tokens, dim)
    cache = PagedCache.empty(
        pages=5,
        kv_heads=heads,
        head_dim=dim,
        dtype=dtype,
        kind=CacheKind(kind),
        key_scale=0.02,
        value_scale=0.02,
    )
    pages = torch.tensor([[3, 0, 4]], dtype=torch.int32)
    found = []
    for token in range(tokens):
        slot = int(pages[0, token // 16]) * 16 + token % 16
        q = rope_append(
            qkv[token : token + 1],
            cache,
            positions=torch.tensor([token]),
            slots=torch.tensor([slot]),
            angles=angles,
        )
        length = torch.tensor([token + 1], dtype=torch.int32)
        found.append(paged_attention(q, cache, pages=pages, lengths=length))
    dispatch.forget()
    q, k, v = qkv.double().split(heads, 1)
    half = dim // 2

    def turned(x: torch.Tensor) -> torch.Tensor:
        cosine, sine = angles[:, None, :half].double(), angles[:, None, half:].double()
        one, other = x[..., :half], x[..., half:]
        return torch.cat([one * cosine - other * sine, other * cosine + one * sine], -1)

    scores = torch.einsum("qhd,khd->hqk", turned(q), turned(k)) / math.sqrt(dim)
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    exact = torch.einsum("hqk,khd->qhd", weights, v)
    off = (torch.cat(found).double() - exact).abs().max()
    assert off < 4 * ERRORS[kind] * exact.abs().max()


def test_what_has_no_page_is_nan_and_no_context_is_zero() -> None:
    step = Step.made(dtype=torch.float32, kept=None, weights=None, lengths=(20, 3, 5, 0))
    torch.ops.datahall.rope_append(*step.append_arguments())
    step.pages[0, 1] = -1
    step.context[1] = 16 * step.pages.shape[1] + 1
    out = torch.ops.datahall.paged_attention(*step.attention_arguments())
    assert torch.isnan(out).flatten(1).all(1).tolist() == [True, True, False, False]
    assert not out[3].any()
    assert out[2].any()


def test_a_token_without_a_slot_is_not_kept_and_one_without_a_position_is_nan() -> None:
    step = Step.made(dtype=torch.float32, kept=None, weights=None, lengths=(4,))
    step.slots[:] = torch.tensor([-1, step.keys.shape[0] * 16, 5, 6])
    step.positions[3] = 1000
    q = torch.ops.datahall.rope_append(*step.append_arguments())
    written = step.keys.abs().sum((1, 3)).flatten()
    assert written.nonzero().flatten().tolist() == [5, 6]
    assert torch.isnan(q).flatten(1).all(1).tolist() == [False, False, False, True]


@pytest.mark.parametrize("room", [(0, 2), (3, 0)], ids=["no pages", "no table"])
def test_a_cache_without_room_has_nothing(room: tuple[int, int]) -> None:
    pages, most = room
    cache = PagedCache.empty(pages=pages, kv_heads=1, head_dim=64, dtype=torch.float32)
    table = torch.zeros(2, most, dtype=torch.int32)
    out = paged_attention(
        torch.ones(2, 1, 64), cache, pages=table, lengths=torch.tensor([0, 1], dtype=torch.int32)
    )
    assert not out[0].any()
    assert torch.isnan(out[1]).all()
