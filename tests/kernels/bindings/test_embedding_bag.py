"""Bags of embeddings, from the ops' arguments through bindings and kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.bindings.comparing import assert_refused_alike

BAG_OF = torch.tensor([0] * 3 + [2] * 4 + [3] * 2)


def made(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def arguments(
    op: str,
    *,
    dtype: torch.dtype = torch.float32,
    index_type: torch.dtype = torch.int64,
    kind: str = "sum",
    width: int = 24,
    padding: int = -1,
    sparse: bool = False,
) -> tuple[Any, ...]:
    """What each op takes, of nine entries in four bags, the second of which is empty."""
    indices = torch.tensor([4, 1, 4, 0, 6, 7, -1, 1, 4]).to(index_type)
    table, dy = made(7, width, dtype=dtype), made(4, width, dtype=dtype, seed=2)
    weights = made(9, dtype=dtype, seed=3) if kind == "weighted" else None
    ordered, positions = indices.sort(stable=True)
    _, lengths = ordered.unique_consecutive(return_counts=True)
    starts = lengths.cumsum(0) - lengths
    if not sparse:
        starts = torch.cat([starts, torch.tensor([9, 9])])
    counts = torch.tensor([3, 0, 2, 2], dtype=torch.int32) if kind == "mean" else None
    return {
        "embedding_bag": (
            *(table, indices, torch.tensor([0, 3, 3, 7]).to(index_type), weights),
            *(padding, kind == "mean", sparse),
        ),
        "embedding_bag_backward": (
            *(dy, ordered, positions, BAG_OF, starts, weights, counts, 7, padding, sparse),
        ),
        "embedding_bag_weight_gradient": (dy, table, indices, BAG_OF, padding),
    }[op]


OPS = ["embedding_bag", "embedding_bag_backward", "embedding_bag_weight_gradient"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("index_type", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("kind", ["sum", "mean", "weighted"])
@pytest.mark.parametrize("op", OPS)
def test_bindings_give_what_the_reference_gives(
    bindings: Any, op: str, kind: str, index_type: torch.dtype, dtype: torch.dtype
) -> None:
    for width, padding, sparse in ((24, -1, False), (24, 4, True), (5, 4, False)):
        given = arguments(
            op, dtype=dtype, index_type=index_type, kind=kind, width=width, padding=padding, sparse=sparse
        )
        found, expected = getattr(bindings, op)(*given), getattr(torch.ops.datahall, op)(*given)
        if isinstance(found, torch.Tensor):
            found, expected = (found,), (expected,)
        for ours, reference in zip(found, expected, strict=True):
            assert ours.dtype is reference.dtype
            rtol = 1e-5 if dtype is torch.float32 else 2**-7
            # Of the bag with an index that is no row, nobody reads how many entries count.
            read = [0, 1, 3] if ours.dtype is torch.int32 else slice(None)
            torch.testing.assert_close(ours[read], reference[read], rtol=rtol, atol=rtol, equal_nan=True)


X = torch.ones(7, 24)
WRONG: dict[str, tuple[str, int, Any]] = {
    "whole numbers": ("embedding_bag", 0, X.int()),
    "no width": ("embedding_bag", 0, torch.ones(7, 0)),
    "too wide": ("embedding_bag", 0, torch.ones(1, 65_536)),
    "strided table": ("embedding_bag", 0, torch.ones(24, 7).t()),
    "floating indices": ("embedding_bag", 1, torch.ones(9)),
    "indices of bags": ("embedding_bag", 1, torch.ones(3, 3).long()),
    "strided indices": ("embedding_bag", 1, torch.ones(18).long()[::2]),
    "other offsets": ("embedding_bag", 2, torch.zeros(4).int()),
    "offsets of two dimensions": ("embedding_bag", 2, torch.zeros(4, 1).long()),
    "other weights": ("embedding_bag", 3, torch.ones(9).half()),
    "few weights": ("embedding_bag", 3, torch.ones(8)),
    "weights of a mean": ("embedding_bag", 5, True),
    "whole dy": ("embedding_bag_backward", 0, torch.ones(4, 24).int()),
    "floating rows": ("embedding_bag_backward", 1, torch.ones(9)),
    "few positions": ("embedding_bag_backward", 2, torch.ones(8).long()),
    "half of a position": ("embedding_bag_backward", 2, torch.ones(9).int()),
    "few bags": ("embedding_bag_backward", 3, torch.ones(8).long()),
    "other starts": ("embedding_bag_backward", 4, torch.ones(9).int()),
    "starts of two dimensions": ("embedding_bag_backward", 4, torch.ones(9, 1).long()),
    "weights of another type": ("embedding_bag_backward", 5, torch.ones(9).double()),
    "long counts": ("embedding_bag_backward", 6, torch.ones(4).long()),
    "few counts": ("embedding_bag_backward", 6, torch.ones(3).int()),
    "fewer rows than none": ("embedding_bag_backward", 7, -1),
    "dy of another width": ("embedding_bag_weight_gradient", 0, torch.ones(4, 23)),
    "dy of another type": ("embedding_bag_weight_gradient", 0, torch.ones(4, 24).half()),
    "whole table": ("embedding_bag_weight_gradient", 1, X.int()),
    "other indices": ("embedding_bag_weight_gradient", 2, torch.ones(9)),
    "other bags": ("embedding_bag_weight_gradient", 3, torch.ones(9).int()),
}


@pytest.mark.parametrize("name", WRONG)
def test_bindings_refuse_in_the_words_of_the_reference(bindings: Any, name: str) -> None:
    op, at, wrong = WRONG[name]
    given = list(arguments(op, kind="weighted"))
    given[at] = wrong
    assert_refused_alike(bindings, op, tuple(given))
