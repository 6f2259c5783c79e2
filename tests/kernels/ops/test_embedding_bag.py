"""Bags of embeddings: right against float64 and torch's own, in gradients, and under torch.compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from datahall_kernels import embedding_bag

OPS = torch.ops.datahall
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Torch 2.11 says so of the first sparse tensor of a process, whatever the call asks for.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")


def made(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def run(table: Tensor, weights: Tensor | None, dy: Tensor, *, ours: bool, **how: Any) -> dict[str, Tensor]:
    """Outputs and gradients, by ours or by torch's own."""
    leaves = {"table": table.detach().clone().requires_grad_()}
    if weights is not None:
        leaves["weights"] = weights.detach().clone().requires_grad_()
    if ours:
        y = embedding_bag(leaves["table"], weights=leaves.get("weights"), **how)
    else:
        how["padding_idx"] = how.pop("padding_index", None)
        y = functional.embedding_bag(
            how.pop("indices"), leaves["table"], per_sample_weights=leaves.get("weights"), **how
        )
    y.backward(dy.to(y.dtype))
    found = {name: of.grad for name, of in leaves.items() if of.grad is not None}
    return {"y": y.detach(), **{name: of.to_dense() if of.is_sparse else of for name, of in found.items()}}


@given(
    lengths=st.lists(st.integers(0, 6), max_size=6),
    mode=st.sampled_from(["sum", "mean", "weighted"]),
    padding=st.sampled_from([None, 0, 3]),
    index_type=st.sampled_from([torch.int32, torch.int64]),
    dtype=st.sampled_from(DTYPES),
    sparse=st.booleans(),
    seed=st.integers(0, 100),
)
def test_outputs_and_gradients_are_those_of_float64(
    lengths: list[int],
    mode: str,
    padding: int | None,
    index_type: torch.dtype,
    dtype: torch.dtype,
    sparse: bool,
    seed: int,
) -> None:
    ends = torch.tensor([0, *lengths]).cumsum(0)
    indices = torch.randint(0, 5, (int(ends[-1]),), generator=torch.Generator().manual_seed(seed))
    how = {
        "indices": indices.to(index_type),
        "offsets": ends[:-1].to(index_type),
        "mode": "mean" if mode == "mean" else "sum",
        "padding_index": padding,
    }
    table, dy = made(5, 7, dtype=dtype, seed=seed), made(len(lengths), 7, dtype=dtype, seed=seed + 1)
    weights = made(len(indices), dtype=dtype, seed=seed + 2) if mode == "weighted" else None
    found = run(table, weights, dy, ours=True, sparse=sparse, **how)
    exact = run(table.double(), None if weights is None else weights.double(), dy.double(), ours=False, **how)
    unit = torch.finfo(dtype).eps / 2
    assert found.keys() == exact.keys()
    for name, value in found.items():
        assert value.dtype is dtype
        torch.testing.assert_close(value.double(), exact[name], rtol=unit * 1.01, atol=1e-7)


@pytest.mark.parametrize("kind", ["sum", "mean", "weighted"])
def test_gradients_are_those_of_differences(kind: str) -> None:
    indices, offsets = torch.tensor([0, 2, 2, 3, 1]), torch.tensor([0, 3, 3])
    table = made(4, 3, dtype=torch.float64).requires_grad_()
    weights = made(5, dtype=torch.float64).requires_grad_() if kind == "weighted" else None

    def bags(*leaves: Tensor) -> Tensor:
        return embedding_bag(
            *(leaves[0], indices, offsets),
            mode="mean" if kind == "mean" else "sum",
            weights=leaves[1] if len(leaves) > 1 else None,
            padding_index=1,
        )

    assert torch.autograd.gradcheck(bags, (table,) if weights is None else (table, weights))


INDICES, OFFSETS = torch.tensor([3, 0, 3, 1, 1, 1, 0]), torch.tensor([0, 2, 2, 5])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["sum", "mean", "weighted"])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_ops_pass_torchs_own_checks(kind: str, dtype: torch.dtype) -> None:
    weights = made(7, dtype=dtype).requires_grad_() if kind == "weighted" else None
    table = made(4, 6, dtype=dtype).requires_grad_()
    torch.library.opcheck(
        OPS.embedding_bag.default, (table, INDICES, OFFSETS, weights, 1, kind == "mean", False)
    )
    ordered, positions = INDICES.sort(stable=True)
    bag_of = torch.tensor([0, 0, 2, 2, 2, 3, 3])
    counts = torch.tensor([2, 0, 3, 2], dtype=torch.int32) if kind == "mean" else None
    dy, starts = made(4, 6, dtype=dtype), torch.tensor([0, 2, 5, 7, 7])
    weights = None if weights is None else weights.detach()
    for sparse in (False, True):
        given_ = (dy, ordered, positions, bag_of, starts, weights, counts, 4, 1, sparse)
        torch.library.opcheck(OPS.embedding_bag_backward.default, given_)
    given_ = (dy, table.detach(), INDICES, bag_of, 1)
    torch.library.opcheck(OPS.embedding_bag_weight_gradient.default, given_)


def test_a_sparse_gradient_has_the_rows_that_were_looked_up() -> None:
    table = made(50, 3).requires_grad_()
    embedding_bag(table, INDICES, OFFSETS, sparse=True, padding_index=3).sum().backward()
    assert table.grad is not None
    assert table.grad.is_sparse
    gradient = table.grad.coalesce()
    assert gradient.indices().tolist() == [[0, 1, 3]]
    assert gradient.values()[:, 0].tolist() == [2.0, 3.0, 0.0]


@pytest.mark.parametrize("bad", [-1, 4, 2**40])
def test_an_index_that_is_no_row_makes_its_bag_nan_and_passes_nothing_on(bad: int) -> None:
    table = made(4, 3).requires_grad_()
    indices = INDICES.clone()
    indices[3] = bad
    for sparse in (False, True):
        table.grad = None
        y = embedding_bag(table, indices, OFFSETS, sparse=sparse)
        assert y.isnan().any(1).tolist() == [False, False, True, False]
        y[[0, 1, 3]].sum().backward()
        assert table.grad is not None
        assert table.grad.to_dense()[:, 0].tolist() == [2.0, 1.0, 0.0, 1.0]


def test_gradients_of_gradients_are_an_error_that_says_so() -> None:
    table = made(4, 3).requires_grad_()
    y = embedding_bag(table, INDICES, OFFSETS)
    (dtable,) = torch.autograd.grad(y.square().sum(), table, create_graph=True)
    with pytest.raises(NotImplementedError, match="gradients of embedding_bag's gradients"):
        dtable.sum().backward()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"mode": "max"}, "mode is 'max'; it must be 'sum' or 'mean'"),
        ({"padding_index": 4}, "padding_index is 4; it must be a row of the table's 4"),
        ({"padding_index": -1}, "padding_index is -1"),
        ({"mode": "mean", "weights": torch.ones(7)}, "weights are there; a mean has none"),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["reference", "off"])
def test_what_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, mode: str, how: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("DATAHALL_KERNELS", mode)
    with pytest.raises(ValueError, match=f"embedding_bag: {said}"):
        embedding_bag(made(4, 3), INDICES, OFFSETS, **how)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_torch_compile_traces_it_whole_and_changes_nothing(mode: Any) -> None:
    def bags(table: Tensor) -> Tensor:
        return embedding_bag(table, INDICES, OFFSETS, mode=mode)

    gradients = []
    for call in (bags, torch.compile(bags, backend="aot_eager", fullgraph=True)):
        table = made(4, 3).requires_grad_()
        call(table).square().sum().backward()
        gradients.append(table.grad)
    assert gradients[0] is not None
    assert torch.equal(*gradients)
