"""What the arguments of bags of embeddings must be."""

from __future__ import annotations

import torch
from torch import Tensor

from datahall_kernels.arguments import contiguous, floating, same_device, shaped, typed

MOST_WIDTH = 65_535
"""Of a table: columns that the kernels count."""


def table_of(op: str, table: Tensor) -> None:
    """The table: [rows, width].

    Raises:
        ValueError: names the argument, what it is and what it must be; so do all functions here.
    """
    floating(op, "table", table)
    _matrix(op, "table", table, "rows")
    contiguous(op, "table", table)


def entries_of(op: str, name: str, indices: Tensor) -> None:
    """An index per entry: int64 or int32."""
    if indices.dtype not in {torch.int64, torch.int32}:
        raise ValueError(f"{op}: {name} is {indices.dtype}; it must be torch.int64 or torch.int32")
    if indices.dim() != 1:
        raise ValueError(f"{op}: {name} has shape {list(indices.shape)}; it must be [entries]")
    contiguous(op, name, indices)


def forward(
    op: str, table: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None, *, mean: bool
) -> None:
    """All that the forward pass takes."""
    table_of(op, table)
    entries_of(op, "indices", indices)
    same_device(op, "indices", indices, table, "table")
    typed(op, "offsets", offsets, indices.dtype, " as indices is")
    if offsets.dim() != 1:
        raise ValueError(f"{op}: offsets has shape {list(offsets.shape)}; it must be [bags]")
    _like(op, "offsets", offsets, table, "table")
    weights_of(op, weights, table, "table", entries=indices.shape[0])
    if mean and weights is not None:
        raise ValueError(f"{op}: weights are there; a mean has none")


def backward(
    op: str,
    dy: Tensor,
    ordered: Tensor,
    *,
    positions: Tensor,
    bag_of: Tensor,
    starts: Tensor,
    weights: Tensor | None,
    counts: Tensor | None,
    rows: int,
) -> None:
    """All that the gradient of the table is made of."""
    gradients_of(op, dy)
    entries_of(op, "ordered", ordered)
    same_device(op, "ordered", ordered, dy, "dy")
    for name, tensor in (("positions", positions), ("bag_of", bag_of)):
        typed(op, name, tensor, torch.int64)
        shaped(op, name, tensor, (ordered.shape[0],), ", one per entry")
        _like(op, name, tensor, dy, "dy")
    typed(op, "starts", starts, torch.int64)
    if starts.dim() != 1:
        raise ValueError(f"{op}: starts has shape {list(starts.shape)}; it must be [segments]")
    _like(op, "starts", starts, dy, "dy")
    weights_of(op, weights, dy, "dy", entries=ordered.shape[0])
    if counts is not None:
        typed(op, "counts", counts, torch.int32)
        shaped(op, "counts", counts, (dy.shape[0],), ", one per bag")
        _like(op, "counts", counts, dy, "dy")
    if rows < 0:
        raise ValueError(f"{op}: rows is {rows}; it must be 0 or more")


def weight_gradient(op: str, dy: Tensor, table: Tensor, indices: Tensor, bag_of: Tensor) -> None:
    """All that the gradient of the weights is made of."""
    table_of(op, table)
    typed(op, "dy", dy, table.dtype, " as table is")
    if dy.dim() != 2 or dy.shape[1] != table.shape[1]:
        raise ValueError(f"{op}: dy has shape {list(dy.shape)}; it must be [bags, {table.shape[1]}]")
    _like(op, "dy", dy, table, "table")
    entries_of(op, "indices", indices)
    same_device(op, "indices", indices, table, "table")
    typed(op, "bag_of", bag_of, torch.int64)
    shaped(op, "bag_of", bag_of, (indices.shape[0],), ", one per entry")
    _like(op, "bag_of", bag_of, table, "table")


def gradients_of(op: str, dy: Tensor) -> None:
    """Gradients of the bags: [bags, width]."""
    floating(op, "dy", dy)
    _matrix(op, "dy", dy, "bags")
    contiguous(op, "dy", dy)


def weights_of(op: str, weights: Tensor | None, data: Tensor, data_name: str, *, entries: int) -> None:
    """A weight per entry, of the data's type; or none."""
    if weights is None:
        return
    typed(op, "weights", weights, data.dtype, f" as {data_name} is")
    shaped(op, "weights", weights, (entries,), ", one per entry")
    _like(op, "weights", weights, data, data_name)


def _matrix(op: str, name: str, tensor: Tensor, rows: str) -> None:
    if tensor.dim() != 2 or tensor.shape[1] == 0 or tensor.shape[1] > MOST_WIDTH:
        raise ValueError(
            f"{op}: {name} has shape {list(tensor.shape)}; it must be [{rows}, width], 1 to {MOST_WIDTH} wide"
        )


def _like(op: str, name: str, tensor: Tensor, data: Tensor, data_name: str) -> None:
    same_device(op, name, tensor, data, data_name)
    contiguous(op, name, tensor)
