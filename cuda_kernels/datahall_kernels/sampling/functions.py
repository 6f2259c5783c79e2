"""A token for each row of logits."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.dispatch import Path, path_of
from datahall_kernels.sampling import reference

_TORCH = Path.TORCH.value


def sample(
    logits: Tensor,
    *,
    seeds: Tensor,
    offsets: Tensor,
    temperature: Tensor | None = None,
    top_k: Tensor | None = None,
    top_p: Tensor | None = None,
    min_p: Tensor | None = None,
    repetition: Tensor | None = None,
    presence: Tensor | None = None,
    frequency: Tensor | None = None,
    listed: Tensor | None = None,
    counts: Tensor | None = None,
    lengths: Tensor | None = None,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw a token for each row: penalties, temperature, min-p, top-k, top-p, in this order.

    A row's token depends on what the row has and on nothing else: not on the other rows of the batch.

    Args:
        logits: [rows, vocabulary], float32, bfloat16 or float16, up to 524,288 tokens.
        seeds: [rows] of int64. Equal seeds and offsets give equal random numbers.
        offsets: [rows] of int64: the number of the token within its sequence, say.
        temperature: [rows], as all that follows is unless it says otherwise, of float32. 0: the greatest logit, the
            lowest token of equals. None: 1.
        top_k: of int32: all beyond the k greatest are dropped; 0 or less: off.
        top_p: all beyond the fewest that have this part of what is left; 1 or more: off; 0 or less: only the greatest.
        min_p: what is less likely than this times the likeliest; 0 or less: off.
        repetition: what positive logits of listed tokens are divided by, and others multiplied.
        presence: what is taken off logits of listed tokens whose count is not 0.
        frequency: what is taken off them for each time that they are counted.
        listed: [rows, capacity] of int32: tokens of the prompt and of what was generated, none twice. Those that the
            vocabulary has not do not count.
        counts: like `listed`: how often each was generated; 0 for one of the prompt alone. None: 1 for all.
        lengths: of int32: how many of `listed` there are. None: all.
        allowed: [rows, ceil(vocabulary / 32)] of int32, a bit per token, the lowest first, as grammars give them.

    Returns:
        Tokens [rows] of int64, and log-probabilities [rows] of float32: after penalties and temperature, before
        anything is dropped (with temperature 0: at temperature 1). Where there is nothing to draw from (no token is
        allowed or all have -inf, a logit that counts is NaN or inf, a parameter is, or the temperature is negative)
        the token is -1 and the log-probability NaN. Tokens with equal logits are dropped together or not at all.
        There is no gradient.

    Raises:
        ValueError: an argument is wrong; the text names it. (From the CUDA kernel: RuntimeError with the same text.)
        KernelsError: DATAHALL_KERNELS=require, and our kernel cannot run.
    """
    given = (
        *(logits.contiguous(), temperature, top_k, top_p, min_p, repetition, presence, frequency),
        *(listed, counts, lengths, allowed, seeds, offsets),
    )
    if path_of("sample", logits.device, logits.dtype) == _TORCH:
        return reference.sample(*given)  # torch has no such op
    tokens, log_probabilities = torch.ops.datahall.sample(*given)
    return tokens, log_probabilities
