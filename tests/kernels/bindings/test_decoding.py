"""Steps of decoding, from the ops' arguments through bindings and kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.bindings.comparing import assert_refused_alike
from tests.kernels.ops.decoding_steps import Step

KINDS = {"same": None, "fp8": torch.float8_e4m3fn, "int8": torch.int8}


def codes(tensor: Tensor) -> Tensor:
    """As numbers that can be compared."""
    return tensor.view(torch.uint8).to(torch.int16) if tensor.dtype == torch.float8_e4m3fn else tensor.float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("weights", [None, "own", "float32"], ids=str)
def test_an_appended_cache_is_the_references(
    bindings: Any, dtype: torch.dtype, kind: str, weights: str | None
) -> None:
    ours = Step.made(dtype=dtype, kept=KINDS[kind], weights=weights)
    theirs = Step.made(dtype=dtype, kept=KINDS[kind], weights=weights)
    q = bindings.rope_append(*ours.append_arguments())
    expected = torch.ops.datahall.rope_append(*theirs.append_arguments())
    torch.testing.assert_close(q, expected, rtol=2**-7, atol=2**-9)
    for found, wanted in zip(ours.cache(), theirs.cache(), strict=True):
        if found is None or wanted is None:
            assert found is wanted
        elif found.dtype in {torch.float8_e4m3fn, torch.int8}:
            # A number that lies between two codes may get either.
            assert (codes(found) - codes(wanted)).abs().max() <= 1
        else:
            torch.testing.assert_close(found, wanted, rtol=2**-7, atol=2**-9)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary", [0, 16, 64])
def test_positions_are_turned_as_the_reference_turns_them(
    bindings: Any, rotary: int, interleaved: bool
) -> None:
    step = replace(
        Step.made(dtype=torch.float32, kept=None, weights="own", rotary=rotary), interleaved=interleaved
    )
    q = bindings.rope_append(*step.append_arguments())
    torch.testing.assert_close(q, torch.ops.datahall.rope_append(*step.append_arguments()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("lengths", [(1, 40, 0), (300,), (16, 17)], ids=str)
def test_attention_is_the_references(
    bindings: Any, lengths: tuple[int, ...], head_dim: int, kind: str
) -> None:
    step = Step.made(dtype=torch.bfloat16, kept=KINDS[kind], weights=None, lengths=lengths, head_dim=head_dim)
    torch.ops.datahall.rope_append(*step.append_arguments())
    given = step.attention_arguments()
    torch.testing.assert_close(
        bindings.paged_attention(*given), torch.ops.datahall.paged_attention(*given), rtol=2**-7, atol=2**-8
    )


def test_what_is_not_in_the_cache_is_nan_in_both(bindings: Any) -> None:
    step = Step.made(dtype=torch.float32, kept=None, weights=None, lengths=(20, 3, 5))
    step.pages[0, 1] = 1000
    step.context[1] = 16 * step.pages.shape[1] + 1
    for ops in (bindings, torch.ops.datahall):
        out = ops.paged_attention(*step.attention_arguments())
        assert torch.isnan(out).flatten(1).all(1).tolist() == [True, True, False]


STEP = Step.made(dtype=torch.float32, kept=None, weights="own")
SMALL = Step.made(dtype=torch.bfloat16, kept=torch.int8, weights="own")
FP8 = Step.made(dtype=torch.bfloat16, kept=torch.float8_e4m3fn, weights="own")
WRONG_APPENDS = {
    "whole numbers": replace(STEP, qkv=STEP.qkv.int()),
    "two dimensions": replace(STEP, qkv=STEP.qkv[0]),
    "an odd head": replace(STEP, qkv=STEP.qkv[..., :63].contiguous()),
    "strided qkv": replace(STEP, qkv=STEP.qkv.transpose(0, 1).contiguous().transpose(0, 1)),
    "no head of q": replace(STEP, qkv=STEP.qkv[:, :4].contiguous()),
    "pages of 8": replace(STEP, keys=STEP.keys[:, :, :8].contiguous()),
    "other keys": replace(STEP, keys=STEP.keys.half()),
    "other values": replace(STEP, values=STEP.values.half()),
    "fewer values": replace(STEP, values=STEP.values[1:]),
    "eight bits beside float32": replace(SMALL, qkv=SMALL.qkv.float()),
    "no scales": replace(SMALL, key_scales=None),
    "scales of fp8": replace(SMALL, value_scales=torch.ones(1)),
    "scales of int8": replace(FP8, value_scales=SMALL.key_scales),
    "half scales": replace(
        SMALL, value_scales=SMALL.value_scales.half() if SMALL.value_scales is not None else None
    ),
    "short positions": replace(STEP, positions=STEP.positions[1:]),
    "half positions": replace(STEP, positions=STEP.positions.int()),
    "short slots": replace(STEP, slots=STEP.slots[1:]),
    "odd angles": replace(STEP, angles=STEP.angles[:, :3].contiguous()),
    "angles of float64": replace(STEP, angles=STEP.angles.double()),
    "a long weight": replace(STEP, q_weight=torch.ones(65)),
    "weights of two types": replace(SMALL, q_weight=torch.ones(64)),
    "a weight of another type": replace(SMALL, k_weight=torch.ones(64).half()),
}
WRONG_ATTENTIONS = {
    "a head of 32": replace(STEP, q=STEP.q[..., :32].contiguous()),
    "strided q": replace(STEP, q=STEP.q.transpose(0, 1).contiguous().transpose(0, 1)),
    "heads that do not share": replace(STEP, q=STEP.q[:, :3].contiguous()),
    "pages of int64": replace(STEP, pages=STEP.pages.long()),
    "pages of others": replace(STEP, pages=STEP.pages[1:]),
    "lengths of int64": replace(STEP, context=STEP.context.long()),
    "lengths of others": replace(STEP, context=STEP.context[1:]),
    "no scales": replace(SMALL, key_scales=None),
}


@pytest.mark.parametrize("name", WRONG_APPENDS)
def test_a_wrong_append_is_refused_in_the_words_of_the_reference(bindings: Any, name: str) -> None:
    assert_refused_alike(bindings, "rope_append", WRONG_APPENDS[name].append_arguments())


@pytest.mark.parametrize("name", WRONG_ATTENTIONS)
def test_a_wrong_attention_is_refused_in_the_words_of_the_reference(bindings: Any, name: str) -> None:
    assert_refused_alike(bindings, "paged_attention", WRONG_ATTENTIONS[name].attention_arguments())
