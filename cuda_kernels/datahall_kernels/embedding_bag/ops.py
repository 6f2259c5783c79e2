"""Bags of embeddings as torch ops: schemas, shapes and gradients.

The backward pass sorts the entries by row with torch's own stable sort: what belongs to a row is then one piece, and is
added up in a fixed order. A dense gradient needs no number of rows for that, so that nothing waits for the GPU; a
sparse one does.

Gradients of gradients are not implemented, and say so.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from datahall_kernels.embedding_bag import checks, reference
from datahall_kernels.registry import Op


def _fake_forward(
    table: Tensor,
    indices: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    padding: int,
    mean: bool,
    sparse: bool,
) -> tuple[Tensor, Tensor]:
    checks.forward("embedding_bag", table, indices, offsets, weights, mean=mean)
    bags = offsets.shape[0]
    return table.new_empty((bags, table.shape[1])), table.new_empty((bags,), dtype=torch.int32)


def _forward(
    table: Tensor,
    indices: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    padding: int,
    mean: bool,
    sparse: bool,
) -> tuple[Tensor, Tensor]:
    return reference.embedding_bag(table, indices, offsets, weights, padding, mean)


def _fake_backward(
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
    checks.backward(
        *("embedding_bag_backward", dy, ordered),
        positions=positions,
        bag_of=bag_of,
        starts=starts,
        weights=weights,
        counts=counts,
        rows=rows,
    )
    return dy.new_empty((starts.shape[0] if sparse else rows, dy.shape[1]))


def _fake_weight_gradient(dy: Tensor, table: Tensor, indices: Tensor, bag_of: Tensor, padding: int) -> Tensor:
    checks.weight_gradient("embedding_bag_weight_gradient", dy, table, indices, bag_of)
    return table.new_empty((indices.shape[0],))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    table, indices, offsets, weights, ctx.padding, ctx.mean, ctx.sparse = inputs
    _, counts = output
    ctx.mark_non_differentiable(counts)
    ctx.rows = table.shape[0]
    # Only the gradient of weights reads the table.
    kept = table if ctx.needs_input_grad[3] else None
    ctx.save_for_backward(kept, indices, offsets, weights, counts)


def _gradients(ctx: Any, dy: Tensor, _counts: object) -> tuple[Tensor | None, ...]:
    table, indices, offsets, weights, counts = ctx.saved_tensors
    dy = dy.contiguous()
    # In which bag an entry is: the last one that begins no later. In none, before the first.
    entries = torch.arange(indices.shape[0], device=indices.device)
    bag_of = torch.searchsorted(offsets.long(), entries, right=True) - 1
    dtable = dweights = None
    if ctx.needs_input_grad[0]:
        dtable = _table_gradient(ctx, dy, indices, entries, bag_of, weights, counts)
    if ctx.needs_input_grad[3]:
        dweights = torch.ops.datahall.embedding_bag_weight_gradient(dy, table, indices, bag_of, ctx.padding)
    return dtable, None, None, dweights, None, None, None


def _table_gradient(
    ctx: Any,
    dy: Tensor,
    indices: Tensor,
    entries: Tensor,
    bag_of: Tensor,
    weights: Tensor | None,
    counts: Tensor,
) -> Tensor:
    ordered, positions = torch.sort(indices, stable=True)
    kept = counts if ctx.mean else None
    if ctx.sparse:
        rows, lengths = torch.unique_consecutive(ordered, return_counts=True)
        starts = lengths.cumsum(0) - lengths
    else:
        begins = torch.ones_like(ordered, dtype=torch.bool)
        begins[1:] = ordered[1:] != ordered[:-1]
        # As many segments as there are entries; those beyond the last row begin where the entries end.
        starts = torch.searchsorted(begins.cumsum(0) - 1, entries)
    gradient: Tensor = torch.ops.datahall.embedding_bag_backward(
        dy, ordered, positions, bag_of, starts, weights, kept, ctx.rows, ctx.padding, ctx.sparse
    )
    if not ctx.sparse:
        return gradient
    are_rows = (rows >= 0) & (rows < ctx.rows)
    shape = (ctx.rows, dy.shape[1])
    return torch.sparse_coo_tensor(
        rows[are_rows][None], gradient[are_rows], shape, check_invariants=False, is_coalesced=True
    )


def _no_second_gradients(_ctx: Any, *_gradients: object) -> NoReturn:
    raise NotImplementedError(
        "datahall: gradients of embedding_bag's gradients are not implemented; use torch's own op"
        " (DATAHALL_KERNELS=off)"
    )


OPS = (
    Op(
        name="embedding_bag",
        schema=(
            "(Tensor table, Tensor indices, Tensor offsets, Tensor? weights, int padding, bool mean, bool sparse)"
            " -> (Tensor y, Tensor counts)"
        ),
        reference=_forward,
        fake=_fake_forward,
        backward=_gradients,
        setup_context=_setup,
    ),
    Op(
        name="embedding_bag_backward",
        schema=(
            "(Tensor dy, Tensor ordered, Tensor positions, Tensor bag_of, Tensor starts, Tensor? weights,"
            " Tensor? counts, int rows, int padding, bool sparse) -> Tensor gradient"
        ),
        reference=reference.embedding_bag_backward,
        fake=_fake_backward,
        backward=_no_second_gradients,
    ),
    Op(
        name="embedding_bag_weight_gradient",
        schema="(Tensor dy, Tensor table, Tensor indices, Tensor bag_of, int padding) -> Tensor dweights",
        reference=reference.embedding_bag_weight_gradient,
        fake=_fake_weight_gradient,
        backward=_no_second_gradients,
    ),
)
PARTS = {
    "embedding_bag": ("embedding_bag", "embedding_bag_backward", "embedding_bag_weight_gradient"),
}
