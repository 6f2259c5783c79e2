"""What a draw is, in plain torch: penalties in float32, as the kernel has them, and the distribution in float64.

A kernel gives the same tokens, unless the random number falls within float32's error of the border between two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.sampling import checks

_MASK = 2**32 - 1
_FARTHEST = 30.0
"""Temperatures below the greatest logit, beyond which min-p has no more to drop."""


def sample(
    logits: Tensor,
    temperature: Tensor | None,
    top_k: Tensor | None,
    top_p: Tensor | None,
    min_p: Tensor | None,
    repetition: Tensor | None,
    presence: Tensor | None,
    frequency: Tensor | None,
    listed: Tensor | None,
    counts: Tensor | None,
    lengths: Tensor | None,
    allowed: Tensor | None,
    seeds: Tensor,
    offsets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Tokens and log-probabilities, [rows] each: int64 and float32. `functions.sample` says what they are."""
    check(
        *(logits, temperature, top_k, top_p, min_p, repetition, presence, frequency),
        *(listed, counts, lengths, allowed, seeds, offsets),
    )
    rows, vocabulary = logits.shape

    def given(parameter: Tensor | None, absent: float) -> Tensor:
        return logits.new_full((rows,), absent, dtype=torch.float32) if parameter is None else parameter

    parameters = [
        given(parameter, absent)
        for parameter, absent in (
            *((temperature, 1.0), (top_p, 1.0), (min_p, 0.0)),
            *((repetition, 1.0), (presence, 0.0), (frequency, 0.0)),
        )
    ]
    heat, nucleus, least, *penalties = parameters
    tokens, z, is_there = _candidates(logits, listed, counts, lengths, allowed, penalties)
    if rows == 0:
        return tokens.new_empty(0), z.new_empty(0)

    most = torch.where(is_there, z, -torch.inf).amax(1)
    is_right = most.isfinite() & (heat >= 0) & torch.stack(parameters).isfinite().all(0)
    most = torch.where(is_right, most, 0.0)
    # A row of nothing is computed with all others, and its result is not taken.
    z = torch.where(is_there & is_right[:, None], z, -torch.inf)
    is_greedy = heat == 0
    heat = torch.where(is_greedy | ~is_right, 1.0, heat)
    logs = ((z - most[:, None]) / heat[:, None]).double()
    weights = logs.exp()
    kept = torch.where(z >= _cut(z, weights, most, heat, top_k, nucleus, least)[:, None], weights, 0.0)
    upto = kept.cumsum(1)
    at = _random(seeds, offsets) * upto[:, -1]
    drawn = (upto <= at[:, None]).sum(1)
    lowest = torch.where(z == most[:, None], tokens, vocabulary).argmin(1)
    place = torch.where(is_greedy, lowest, drawn).clamp(max=tokens.shape[1] - 1)[:, None]
    log_probabilities = logs.gather(1, place)[:, 0] - weights.sum(1).log()
    return (
        torch.where(is_right, tokens.gather(1, place)[:, 0], -1),
        torch.where(is_right, log_probabilities, torch.nan).float(),
    )


def check(
    logits: Tensor,
    temperature: Tensor | None,
    top_k: Tensor | None,
    top_p: Tensor | None,
    min_p: Tensor | None,
    repetition: Tensor | None,
    presence: Tensor | None,
    frequency: Tensor | None,
    listed: Tensor | None,
    counts: Tensor | None,
    lengths: Tensor | None,
    allowed: Tensor | None,
    seeds: Tensor,
    offsets: Tensor,
) -> None:
    """Refuses what the op does not take, which is said in the order of its arguments."""
    floats = {"temperature": temperature, "top_p": top_p, "min_p": min_p}
    floats |= {"repetition": repetition, "presence": presence, "frequency": frequency}
    per_row = {name: (tensor, torch.float32) for name, tensor in floats.items()}
    per_row |= {"top_k": (top_k, torch.int32), "lengths": (lengths, torch.int32)}
    per_row |= {"seeds": (seeds, torch.int64), "offsets": (offsets, torch.int64)}
    checks.sample("sample", logits, per_row=per_row, listed=listed, counts=counts, allowed=allowed)


def _candidates(
    logits: Tensor,
    listed: Tensor | None,
    counts: Tensor | None,
    lengths: Tensor | None,
    allowed: Tensor | None,
    penalties: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, logits in float32, and which are there: those of the row, and after them the listed ones.

    In this order the kernel adds up weights.
    """
    rows, vocabulary = logits.shape
    z = logits.float()
    tokens = torch.arange(vocabulary, device=logits.device).expand(rows, vocabulary)
    is_there = torch.ones_like(z, dtype=torch.bool)
    if allowed is not None:
        bits = torch.arange(32, device=logits.device, dtype=torch.int32)
        is_there = (allowed[:, :, None] >> bits & 1).bool().flatten(1)[:, :vocabulary]
    if listed is None:
        return tokens, z, is_there
    items = listed.long()
    counting = (items >= 0) & (items < vocabulary)
    if lengths is not None:
        counting &= torch.arange(items.shape[1], device=logits.device) < lengths[:, None]
    items = torch.where(counting, items, 0)
    repetition, presence, frequency = (penalty[:, None] for penalty in penalties)
    changed = z.gather(1, items)
    changed = torch.where(changed > 0, changed / repetition, changed * repetition)
    times = torch.ones_like(listed) if counts is None else counts
    changed = changed - frequency * times
    changed = torch.where(times > 0, changed - presence, changed)
    counting_there = counting & is_there.gather(1, items)
    in_list = torch.zeros_like(is_there, dtype=torch.int32).scatter_add_(1, items, counting.int()) > 0
    return (
        torch.cat([tokens, items], 1),
        torch.cat([z, changed], 1),
        torch.cat([is_there & ~in_list, counting_there], 1),
    )


def _cut(
    z: Tensor,
    weights: Tensor,
    most: Tensor,
    heat: Tensor,
    top_k: Tensor | None,
    nucleus: Tensor,
    least: Tensor,
) -> Tensor:
    """The least logit of each row that min-p, top-k and top-p leave, [rows]."""
    below = torch.clamp(-torch.log(least.clamp(1e-30, 1.0)), max=_FARTHEST)
    cut = torch.where(least > 0, most - below * heat, -torch.inf)
    ordered, order = z.sort(1, descending=True)
    if top_k is not None:
        is_on = (top_k > 0) & (top_k < z.shape[1])
        last = ordered.gather(1, torch.where(is_on, top_k - 1, 0).long()[:, None])[:, 0]
        cut = torch.where(is_on, torch.maximum(cut, last), cut)
    left = torch.where(ordered >= cut[:, None], weights.gather(1, order), 0.0)
    wanted = nucleus.double().clamp(1e-30, 1.0) * left.sum(1)
    reached = (left.cumsum(1) >= wanted[:, None]).int().argmax(1, keepdim=True)
    return torch.where(nucleus < 1, torch.maximum(cut, ordered.gather(1, reached)[:, 0]), cut)


def _random(seeds: Tensor, offsets: Tensor) -> Tensor:
    """A number from 0 to below 1 per row, of 52 bits: Philox4x32-10 (Salmon et al., 2011), the offset its counter."""
    words = [offsets & _MASK, offsets >> 32 & _MASK, torch.zeros_like(offsets), torch.zeros_like(offsets)]
    keys = [seeds & _MASK, seeds >> 32 & _MASK]
    for _ in range(10):
        # What is beyond int64 wraps, and has the right bits.
        one, other = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        high, high_of_other = one >> 32 & _MASK, other >> 32 & _MASK
        words = [high_of_other ^ words[1] ^ keys[0], other & _MASK, high ^ words[3] ^ keys[1], one & _MASK]
        keys = [(keys[0] + 0x9E3779B9) & _MASK, (keys[1] + 0xBB67AE85) & _MASK]
    return (words[1] << 20 | words[0] >> 12).double() / 2**52
