"""What is right runs to the right result, unreported, in any order of blocks and threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernel_execution import InOut, Input, KernelError, Library, Order, Output, Scratch, Table

ORDERS = [(Order.FORWARD, 0), (Order.REVERSE, 0), *((Order.SHUFFLED, seed) for seed in range(4))]


@pytest.fixture(params=ORDERS, ids=lambda order: f"{order[0].name.lower()}-{order[1]}")
def order(request: pytest.FixtureRequest) -> dict[str, int]:
    return {"order": request.param[0], "seed": request.param[1]}


@pytest.mark.parametrize(
    ("rows", "width", "threads"), [(1, 1, 32), (3, 77, 64), (2, 1000, 1024), (9, 4096, 256)]
)
def test_block_reduction(right: Library, order, rows: int, width: int, threads: int) -> None:
    x = torch.randint(-8, 8, (rows, width)).float()
    y = torch.empty(rows)
    right.check("sum_rows_of_float", Input("x", x), Output("y", y), rows, width, threads, **order)
    assert torch.equal(y, x.sum(1))
    right.check(
        "sum_rows_of_bfloat16", Input("x", x.bfloat16()), Output("y", y), rows, width, threads, **order
    )
    assert torch.equal(y, x.sum(1))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (32, 32), (33, 31), (70, 100)])
def test_transpose_in_shared_memory(right: Library, order, rows: int, columns: int) -> None:
    x = torch.randn(rows, columns)
    y = torch.empty(columns, rows)
    right.check("transpose_of", Input("x", x), Output("y", y), rows, columns, **order)
    assert torch.equal(y, x.T)


@pytest.mark.parametrize("bins", [1, 10, 1000])
def test_histogram_by_atomics(right: Library, order, bins: int) -> None:
    x = np.random.default_rng(0).integers(0, bins, 5000).astype(np.int32)
    counts = np.empty(bins, np.uint32)
    right.check("histogram_of", Input("x", x), Output("counts", counts), x.size, bins, **order)
    assert np.array_equal(counts, np.bincount(x, minlength=bins))


@pytest.mark.parametrize("blocks", [1, 2, 13])
def test_last_block_adds_up_what_all_have_found(right: Library, order, blocks: int) -> None:
    x = torch.randint(-8, 8, (3000,)).float()
    y = torch.empty(1)
    partial, done = Scratch("partial", 4 * blocks), Scratch("done", 4)
    right.check("last_block_sum_of", Input("x", x), partial, done, Output("y", y), 3000, blocks, **order)
    assert y.item() == x.sum().item()


def test_grid_stride_over_vectors(right: Library, order) -> None:
    x = torch.randn(4 * 1001)
    y = torch.empty_like(x)
    right.check("scale_of", Input("x", x), Output("y", y), 3.0, 1001, 3, **order)
    assert torch.equal(y, 3 * x)


def test_exchange_through_shared_memory_within_a_warp(right: Library, order) -> None:
    x = torch.arange(64, dtype=torch.int32)
    y = torch.empty_like(x)
    right.check("rotate_in_warp_of", Input("x", x), Output("y", y), **order)
    assert torch.equal(y, x.view(2, 32).roll(-1, 1).flatten() + 2)


def test_votes_and_exchanges_of_a_warp(right: Library, order) -> None:
    lane = np.arange(32)
    x = np.random.default_rng(1).permutation(32).astype(np.int32)
    y = np.empty((21, 32), np.int32)
    right.check("exchanges_of", Input("x", x), Output("y", y), **order)

    def bits(mask) -> int:
        return int(np.int64(sum(1 << int(i) for i in np.flatnonzero(mask))).astype(np.int32))

    segment = lane % 8
    assert y[0].tolist() == [x[3]] * 32
    assert y[1].tolist() == x[lane - segment + 5].tolist()
    assert y[2].tolist() == x[np.where(lane >= 2, lane - 2, lane)].tolist()
    assert y[3].tolist() == x[np.where(segment >= 3, lane - 3, lane)].tolist()
    assert y[4].tolist() == x[np.where(lane < 30, lane + 2, lane)].tolist()
    assert y[5].tolist() == x[np.where(segment < 5, lane + 3, lane)].tolist()
    assert y[6].tolist() == x[lane ^ 5].tolist()
    # From an earlier segment a lane may read; from a later one it gets its own value back.
    assert y[7].tolist() == x[np.where((lane ^ 9) <= lane // 8 * 8 + 7, lane ^ 9, lane)].tolist()
    assert y[8].tolist() == [bits(x % 3 == 0)] * 32
    assert y[9].tolist() == [1] * 32
    assert y[10].tolist() == [1] * 32
    assert y[11].tolist() == [bits(x % 5 == mine % 5) for mine in x]
    assert y[12].tolist() == [31 * 16] * 32
    assert y[13].tolist() == [0] * 32
    assert y[14].tolist() == [1] * 32
    assert y[15].tolist() == [1] * 32
    assert y[16].tolist() == [0] * 32
    assert y[17].tolist() == [11] * 32
    assert y[18].tolist() == [x[15]] * 16 + [x[16]] * 16
    assert y[19].tolist() == [x[4]] * 32
    assert y[20].tolist() == x[lane ^ 1].tolist()


def test_rows_apart_are_read_and_written_in_place(right: Library) -> None:
    x = torch.randn(40, 6)[:, :1]
    y = torch.full((40, 3), 7.0)
    with pytest.raises(KernelError, match=r"x \+ 32, between its rows \(of 4 bytes, 24 apart\)"):
        right.check("transpose_of", Input("x", x), Output("y", y[:, 0]), 40, 1)
    right.check("sum_rows_of_float", Input("x", x[:1]), Output("y", y[:1, 1]), 1, 1, 32)
    assert y[0].tolist() == [7.0, x[0, 0].item(), 7.0]
    assert (y[1:] == 7.0).all()


def test_tables_hold_pointers_to_buffers(right: Library) -> None:
    inputs = [torch.randn(size) for size in (1, 100, 0, 33)]
    outputs = [torch.empty_like(x) for x in inputs]
    pairs = list(zip(inputs, outputs, strict=True))
    rows = [(Input(f"x{i}", x), Output(f"y{i}", y), len(x)) for i, (x, y) in enumerate(pairs)]
    right.check("double_all_of", Table("tensors", rows), 4)
    assert all(torch.equal(y, 2 * x) for x, y in pairs)
    with pytest.raises(KernelError, match=r"read of \d+ bytes at tensors \+ 96 \(tensors has 96 bytes\)"):
        right.check("double_all_of", Table("tensors", rows), 5)


def test_empty_arrays_are_buffers_without_bytes(right: Library) -> None:
    outcome = right.run(
        "sum_rows_of_float", Input("x", torch.empty(3, 0)), Output("y", torch.empty(3)), 3, 1, 32
    )
    assert "x + 0 (x has 0 bytes)" in outcome.findings[0].text
    y = torch.ones(3)
    right.check("sum_rows_of_float", Input("x", torch.empty(3, 0)), Output("y", y), 3, 0, 32)
    assert y.tolist() == [0, 0, 0]


def test_arguments_stay_as_they_were_where_there_is_an_error(right: Library) -> None:
    y = torch.ones(3)
    outcome = right.run("sum_rows_of_float", Input("x", torch.ones(2, 4)), InOut("y", y), 3, 4, 32)
    assert outcome.code == 719
    assert y.tolist() == [1, 1, 1]


def test_strides_that_are_no_rows_are_refused(right: Library) -> None:
    x = torch.zeros(4, 4, 8)[:, ::2, ::2]
    with pytest.raises(ValueError, match=r"x: strides .* are neither dense nor rows at even distances"):
        right.run("sum_rows_of_float", Input("x", x), Output("y", torch.empty(1)), 1, 1, 32)


def test_a_barrier_of_one_line_at_two_places_of_the_code_is_one(right: Library) -> None:
    y = torch.zeros(64, dtype=torch.int32)
    right.check("meet_at_one_line_of", Output("y", y))
    assert y.tolist() == [1] * 32 + [2] * 32
