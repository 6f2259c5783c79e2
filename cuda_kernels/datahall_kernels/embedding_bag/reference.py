"""What bags of embeddings are, in plain torch: in float64, and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.embedding_bag import checks


def embedding_bag(
    table: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None, padding: int, mean: bool
) -> tuple[Tensor, Tensor]:
    """The sum, or the mean, of weight * table[index] over each bag's entries.

    Args:
        table: [rows, width].
        indices: [entries] of int64 or int32; one that is no row makes its bag NaN.
        offsets: [bags] of the same type: where each bag begins. Bags between offsets that are none are NaN.
        weights: [entries] of the table's type, or None for ones; None with `mean`.
        padding: entries of this row do not count; negative: there is none.
        mean: not the sum, but the mean of the entries that count; zeros where none does.

    Returns:
        [bags, width] of the table's type; and the entries that count, [bags] of int32.
    """
    checks.forward("embedding_bag", table, indices, offsets, weights, mean=mean)
    entries, bags = indices.shape[0], offsets.shape[0]
    begins = offsets.long()
    ends = torch.cat([begins[1:], begins.new_full((min(bags, 1),), entries)])
    is_right = (begins >= 0) & (begins <= ends) & (ends <= entries)
    lengths = torch.where(is_right, ends - begins, 0)
    bag = torch.arange(bags).repeat_interleave(lengths)
    before = lengths.cumsum(0) - lengths
    entry = torch.arange(len(bag)) - before[bag] + begins[bag]
    index = indices.long()[entry]
    is_row = (index >= 0) & (index < table.shape[0])
    is_right &= torch.zeros(bags, dtype=torch.int64).index_add_(0, bag, (~is_row).long()) == 0
    counted = is_row if padding < 0 else is_row & (index != padding)
    counts = torch.zeros(bags, dtype=torch.int32).index_add_(0, bag, counted.int())
    bag, entry, index = bag[counted], entry[counted], index[counted]
    rows = table.double()[index]
    if weights is not None:
        rows = rows * weights.double()[entry, None]
    y = rows.new_zeros(bags, table.shape[1]).index_add_(0, bag, rows)
    if mean:
        y = y / counts.clamp(min=1)[:, None]
    return torch.where(is_right[:, None], y, torch.nan).to(table.dtype), counts


def embedding_bag_backward(
    dy: Tensor,
    ordered: Tensor,
    positions: Tensor,
    bag_of: Tensor,
    starts: Tensor,
    weights: Tensor | None,
    counts: Tensor | None,
    rows: int,
    padding: int,
    sparse: bool,
) -> Tensor:
    """The gradient of the table.

    Args:
        dy: [bags, width].
        ordered: [entries], the indices in order.
        positions: [entries], where each was before; entries with a position that is none pass nothing on.
        bag_of: [entries], the bag of each entry as it was before; likewise.
        starts: [segments], where each row's entries begin in `ordered`; `entries` for segments that are not there.
        weights: as in the forward pass.
        counts: of the forward pass for means, else None.
        rows: of the table.
        padding: as in the forward pass.
        sparse: for each segment the gradient of its row, [segments, width]; else of all rows, [rows, width].

    Returns:
        Of dy's type. Rows that are none, and the padding, have zeros.
    """
    checks.backward(
        *("embedding_bag_backward", dy, ordered),
        positions=positions,
        bag_of=bag_of,
        starts=starts,
        weights=weights,
        counts=counts,
        rows=rows,
    )
    entries, bags = ordered.shape[0], dy.shape[0]
    row = ordered.long()
    passes = (row >= 0) & (row < rows) & (positions >= 0) & (positions < entries)
    if padding >= 0:
        passes &= row != padding
    bag = bag_of[positions.clamp(0, max(entries - 1, 0))]
    passes &= (bag >= 0) & (bag < bags)
    segment = torch.searchsorted(starts, torch.arange(entries), right=True) - 1
    to, bag, position = (segment if sparse else row)[passes], bag[passes], positions[passes]
    passed = dy.double()[bag]
    if weights is not None:
        passed = passed * weights.double()[position, None]
    if counts is not None:
        passed = passed / counts[bag].clamp(min=1)[:, None]
    gradient = passed.new_zeros(starts.shape[0] if sparse else rows, dy.shape[1])
    return gradient.index_add_(0, to, passed).to(dy.dtype)


def embedding_bag_weight_gradient(
    dy: Tensor, table: Tensor, indices: Tensor, bag_of: Tensor, padding: int
) -> Tensor:
    """The gradient of the weights, [entries] of the table's type: 0 for entries that do not count."""
    checks.weight_gradient("embedding_bag_weight_gradient", dy, table, indices, bag_of)
    index = indices.long()
    counted = (index >= 0) & (index < table.shape[0]) & (bag_of >= 0) & (bag_of < dy.shape[0])
    if padding >= 0:
        counted &= index != padding
    dots = torch.zeros(index.shape[0], dtype=torch.float64)
    dots[counted] = (dy.double()[bag_of[counted]] * table.double()[index[counted]]).sum(1)
    return dots.to(table.dtype)
