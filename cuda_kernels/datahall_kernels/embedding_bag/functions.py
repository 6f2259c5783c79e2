"""Sums and means of rows of a table, as recommenders look up their features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from datahall_kernels.dispatch import Path, path_of
from datahall_kernels.embedding_bag import checks

_TORCH = Path.TORCH.value
Mode = Literal["sum", "mean"]


def embedding_bag(
    table: Tensor,
    indices: Tensor,
    offsets: Tensor,
    *,
    mode: Mode = "sum",
    weights: Tensor | None = None,
    padding_index: int | None = None,
    sparse: bool = False,
) -> Tensor:
    """Sum, or mean, of the table's rows that each bag names; differentiable in table and weights, once.

    Equal inputs give equal bits, gradients included: nothing is added up in an order that changes.

    Args:
        table: [rows, width], float32, bfloat16 or float16, up to 65,535 wide.
        indices: [entries] of int64 or int32.
        offsets: [bags] of the same type: where each bag begins; the last one ends with the entries.
        mode: "sum" or "mean".
        weights: [entries] of the table's type, for sums.
        padding_index: entries of this row do not count, and it has no gradient.
        sparse: the table's gradient is a sparse tensor of the rows that were looked up.

    Returns:
        [bags, width] of the table's type; zeros for a bag without entries that count. An index that is no row, or an
        offset that is none, makes its bag NaN, since looking at it would wait for the GPU (an index that is no row
        passes no gradient on, either); torch's own op raises an error on the CPU and ends the process's CUDA on a GPU.

    Raises:
        ValueError: an argument is wrong; the text names it. (From the CUDA kernel: RuntimeError with the same text.)
        KernelsError: DATAHALL_KERNELS=require, and our kernel cannot run.
    """
    if mode not in {"sum", "mean"}:
        raise ValueError(f"embedding_bag: mode is {mode!r}; it must be 'sum' or 'mean'")
    if padding_index is not None and not 0 <= padding_index < table.shape[0]:
        raise ValueError(
            f"embedding_bag: padding_index is {padding_index}; it must be a row of the table's {table.shape[0]}"
        )
    table, indices, offsets = table.contiguous(), indices.contiguous(), offsets.contiguous()
    weights = None if weights is None else weights.contiguous()
    if path_of("embedding_bag", table.device, table.dtype) == _TORCH:
        checks.forward("embedding_bag", table, indices, offsets, weights, mean=mode == "mean")
        return functional.embedding_bag(
            *(indices, table, offsets),
            mode=mode,
            sparse=sparse,
            per_sample_weights=weights,
            padding_idx=padding_index,
        )
    padding = -1 if padding_index is None else padding_index
    y, _ = torch.ops.datahall.embedding_bag(table, indices, offsets, weights, padding, mode == "mean", sparse)
    return y  # type: ignore[no-any-return]
