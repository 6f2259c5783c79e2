"""embedding_bag.cu, run on the CPU, against torch's own in float64."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kernel_execution import InOut, Input, Library, Order, Output
from tests.kernels.sources.launching import DTYPES, ORDERS, assert_near, i32, made, name_of

ROWS = 50


@dataclass
class Bags:
    """Bags of entries, each a row of a table."""

    lengths: tuple[int, ...]
    width: int = 16
    dtype: torch.dtype = torch.float32
    mean: bool = False
    weighted: bool = False
    padding: int = -1
    index_type: torch.dtype = torch.int64
    misaligned_by: int = 0
    order: Order = Order.FORWARD
    seed: int = 0
    rows: int = ROWS
    favourite: float = 0.0
    """How much of all is of row 3."""

    def __post_init__(self) -> None:
        random = torch.Generator().manual_seed(1)
        self.entries, self.bags = sum(self.lengths), len(self.lengths)
        indices = torch.randint(0, max(self.rows, 1), (self.entries,), generator=random)
        indices[torch.rand(self.entries, generator=random) < self.favourite] = 3
        self.indices = indices.to(self.index_type)
        ends = torch.tensor((0, *self.lengths)).cumsum(0)
        self.offsets = ends[:-1].to(self.index_type)
        self.table = made(self.rows, self.width, dtype=self.dtype, seed=2)
        self.weights = made(self.entries, dtype=self.dtype, seed=3) if self.weighted else None
        self.dy = made(self.bags, self.width, dtype=self.dtype, seed=4)

    @property
    def bag_of(self) -> Tensor:
        return torch.arange(self.bags).repeat_interleave(torch.tensor(self.lengths))

    @property
    def codes(self) -> tuple[object, ...]:
        return i32(self.index_type.itemsize), i32(DTYPES[self.dtype]), None

    @property
    def turn(self) -> dict[str, object]:
        return {"order": self.order, "seed": self.seed}

    def forward(self, kernels: Library) -> tuple[Tensor, Tensor]:
        """Y and the counts."""
        y = torch.empty(self.bags, self.width, dtype=self.dtype)
        counts = torch.empty(self.bags, dtype=torch.int32)
        kernels.check(
            *("datahall_embedding_bag_forward", Input("table", self.table, self.misaligned_by)),
            *(Input("indices", self.indices), Input("offsets", self.offsets)),
            None if self.weights is None else Input("weights", self.weights),
            *(Output("y", y, self.misaligned_by), Output("counts", counts), self.rows, self.width),
            *(self.entries, self.bags, self.padding, i32(self.mean), *self.codes),
            **self.turn,
        )
        return y, counts

    def backward(self, kernels: Library, *, sparse: bool, room: int = 0) -> Tensor:
        """The gradient of the table; `room` segments more than there are."""
        ordered, positions = torch.sort(self.indices, stable=True)
        rows, entries_of = torch.unique_consecutive(ordered, return_counts=True)
        starts = torch.cat([entries_of.cumsum(0) - entries_of, torch.full((room,), self.entries)])
        counted = (self.indices != self.padding) | (self.padding < 0)
        counts = torch.zeros(self.bags, dtype=torch.int32).index_add_(0, self.bag_of, counted.int())
        gradient = torch.empty(len(rows) if sparse else self.rows, self.width, dtype=self.dtype)
        kernels.check(
            *("datahall_embedding_bag_backward", Input("dy", self.dy, self.misaligned_by)),
            *(Input("sorted", ordered), Input("positions", positions), Input("bag_of", self.bag_of)),
            *(Input("starts", starts), None if self.weights is None else Input("weights", self.weights)),
            Input("counts", counts) if self.mean else None,
            InOut("gradient", gradient.fill_(float("nan")), self.misaligned_by),
            *(
                self.rows,
                self.width,
                self.entries,
                self.bags,
                len(starts),
                self.padding,
                i32(sparse),
                *self.codes,
            ),
            **self.turn,
        )
        return torch.zeros_like(self.table).index_copy_(0, rows.long(), gradient) if sparse else gradient

    def weight_gradient(self, kernels: Library) -> Tensor:
        dweights = torch.empty(self.entries, dtype=self.dtype)
        kernels.check(
            *("datahall_embedding_bag_weight_gradient", Input("dy", self.dy, self.misaligned_by)),
            *(Input("table", self.table, self.misaligned_by), Input("indices", self.indices)),
            *(
                Input("bag_of", self.bag_of),
                Output("dweights", dweights),
                self.rows,
                self.width,
                self.entries,
            ),
            *(self.bags, self.padding, *self.codes),
            **self.turn,
        )
        return dweights

    def check(self, kernels: Library) -> None:
        """Forward and all gradients, each within a few roundings of float64."""
        table = self.table.double().requires_grad_()
        weights = None if self.weights is None else self.weights.double().requires_grad_()
        y = functional.embedding_bag(
            *(self.indices, table, self.offsets),
            mode="mean" if self.mean else "sum",
            per_sample_weights=weights,
            padding_idx=None if self.padding < 0 else self.padding,
        )
        y.backward(self.dy.double())
        assert table.grad is not None
        # What cancels out within a row leaves a rounding of float32 of all that was added.
        roundings, longest = 3.0 if self.dtype == torch.float32 else 1.1, max(self.lengths, default=0)
        in_all = torch.full((1,), 2.0 * (1 + longest))
        found, counts = self.forward(kernels)
        assert_near(found, y.detach(), roundings=roundings, size=in_all)
        kept = (self.indices != self.padding).split(list(self.lengths))
        assert counts.tolist() == [int(of.sum()) for of in kept]
        in_all = torch.full((1,), 4.0 * (1 + self.entries) ** 0.5)
        for sparse in (False, True):
            gradient = self.backward(kernels, sparse=sparse, room=0 if sparse else 3)
            assert_near(gradient, table.grad, roundings=roundings, size=in_all)
        if weights is not None:
            assert weights.grad is not None
            dots = self.weight_gradient(kernels)
            assert_near(
                dots[:, None], weights.grad[:, None], roundings=roundings, size=torch.full((1,), 40.0)
            )


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("kind", ["sum", "mean", "weighted"])
@pytest.mark.parametrize("width", [1, 7, 16, 64, 123, 1024, 1030])
def test_widths(kernels: Library, width: int, kind: str, dtype: torch.dtype) -> None:
    Bags(
        (3, 0, 1, 9, 4, 0), width, dtype, mean=kind == "mean", weighted=kind == "weighted", padding=5, rows=8
    ).check(kernels)


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64], ids=name_of)
@pytest.mark.parametrize(
    "lengths", [(0,), (0, 0, 0), (1,), tuple(range(70)), (500,), (1,) * 300], ids=lambda of: str(len(of))
)
def test_bags_of_any_length(kernels: Library, lengths: tuple[int, ...], index_type: torch.dtype) -> None:
    for mean in (False, True):
        Bags(lengths, mean=mean, index_type=index_type, padding=2).check(kernels)


@pytest.mark.parametrize(("order", "seed"), ORDERS)
@pytest.mark.parametrize("width", [4, 40, 600])
def test_rows_that_everybody_looks_up(kernels: Library, width: int, order: Order, seed: int) -> None:
    bags = Bags((7,) * 250, width, torch.bfloat16, mean=True, favourite=0.6, rows=4, order=order, seed=seed)
    bags.check(kernels)
    # The same bits in any order of threads.
    plain = Bags((7,) * 250, width, torch.bfloat16, mean=True, favourite=0.6, rows=4)
    for sparse in (False, True):
        found, expected = (of.backward(kernels, sparse=sparse) for of in (bags, plain))
        assert torch.equal(found, expected)


@pytest.mark.parametrize("order", Order)
def test_addresses_that_no_wide_load_fits(kernels: Library, order: Order) -> None:
    Bags((3, 0, 5), 64, torch.float16, weighted=True, misaligned_by=2, order=order).check(kernels)


def test_no_bags_and_no_rows(kernels: Library) -> None:
    assert Bags(()).forward(kernels)[0].shape == (0, 16)
    assert Bags((0, 0), rows=0).forward(kernels)[0].tolist() == [[0.0] * 16] * 2
    assert not Bags((0, 0)).backward(kernels, sparse=False).any()


@pytest.mark.parametrize("bad", [-1, ROWS, 2**40, -(2**62)])
@pytest.mark.parametrize("mean", [False, True])
def test_an_index_that_is_no_row_makes_its_bag_nan_and_has_no_gradient(
    kernels: Library, mean: bool, bad: int
) -> None:
    bags = Bags((2, 6, 3), mean=mean)
    bags.indices[4] = bad
    y, _ = bags.forward(kernels)
    assert y[1].isnan().all()
    assert torch.isfinite(y[[0, 2]]).all()
    gradient = bags.backward(kernels, sparse=False)
    others = torch.zeros_like(bags.table)
    for entry, (row, bag) in enumerate(zip(bags.indices.tolist(), bags.bag_of.tolist(), strict=True)):
        if entry != 4:
            others[row] += bags.dy[bag] / (bags.lengths[bag] if mean else 1)
    torch.testing.assert_close(gradient, others)


@pytest.mark.parametrize("bad", [-1, 12, 2**40])
def test_an_offset_that_is_none_makes_its_bags_nan(kernels: Library, bad: int) -> None:
    bags = Bags((2, 6, 3))
    bags.offsets[1] = bad
    y, _ = bags.forward(kernels)
    assert y[:2].isnan().all()
    assert torch.isfinite(y[2]).all()


def test_positions_and_bags_that_are_none_pass_nothing(kernels: Library) -> None:
    dy, gradient = torch.ones(2, 4), torch.empty(3, 4)
    entries = torch.tensor([0, 0, 1, 2])
    kernels.check(
        *("datahall_embedding_bag_backward", Input("dy", dy), Input("sorted", entries)),
        *(Input("positions", torch.tensor([0, 9, 2, -1])), Input("bag_of", torch.tensor([0, 0, 7, 1]))),
        *(Input("starts", torch.tensor([0, 2, 3, 4, 99])), None, None, Output("gradient", gradient)),
        *(3, 4, 4, 2, 5, -1, i32(0), i32(8), i32(0), None),
    )
    assert gradient[:, 0].tolist() == [1.0, 0.0, 0.0]


def test_sums_are_in_the_order_of_the_entries(kernels: Library) -> None:
    # float32's own sums, one after the other: nothing else has these bits.
    bags = Bags((40, 1, 100), 8, favourite=0.5)
    y, _ = bags.forward(kernels)
    ends = (0, *torch.tensor(bags.lengths).cumsum(0).tolist())
    for bag, (begin, end) in enumerate(pairwise(ends)):
        total = torch.zeros(8)
        for index in bags.indices[begin:end].tolist():
            total = total + bags.table[index]
        assert torch.equal(y[bag], total)


@pytest.mark.parametrize(
    "changed",
    [{"rows": -1}, {"width": 0}, {"width": 2**16}, {"entries": -1}, {"bags": -1}, {"bytes": 2}, {"dtype": 3}],
    ids=str,
)
def test_what_cannot_be_is_refused(kernels: Library, changed: dict[str, int]) -> None:
    sizes = {"rows": 4, "width": 4, "entries": 4, "bags": 1, "bytes": 8, "dtype": 0} | changed
    table, indices = Input("table", torch.ones(4, 4)), Input("indices", torch.zeros(4, dtype=torch.int64))
    outcome = kernels.run(
        *("datahall_embedding_bag_forward", table, indices, Input("offsets", torch.tensor([0])), None),
        *(Output("y", torch.empty(1, 4)), None, *list(sizes.values())[:4], -1, i32(0)),
        *(i32(sizes["bytes"]), i32(sizes["dtype"]), None),
    )
    assert outcome.code == 1
    assert not outcome.findings
