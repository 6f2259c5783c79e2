"""Tokens drawn from logits: what the reference draws, and what torch asks of an op."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from datahall_kernels import sample

OP = torch.ops.datahall.sample


def made(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2).to(dtype)


def drawn(logits: Tensor, *, seed: int = 5, **parameters: float | Tensor) -> tuple[Tensor, Tensor]:
    """By parameters that are those of all rows."""
    rows = logits.shape[0]
    whole = {"top_k", "lengths"}
    of_rows = {
        name: value
        if isinstance(value, Tensor)
        else torch.full((rows,), value, dtype=torch.int32 if name in whole else torch.float32)
        for name, value in parameters.items()
    }
    return sample(logits, seeds=torch.full((rows,), seed), offsets=torch.arange(rows), **of_rows)


def all_given(rows: int = 3, vocabulary: int = 70) -> tuple[Any, ...]:
    listed = torch.tensor([[1, 5, 69]], dtype=torch.int32).repeat(rows, 1)
    one = torch.ones(rows)
    return (
        *(made(rows, vocabulary), one * 0.8, (one * 9).int(), one * 0.9, one * 0.01, one * 1.1, one * 0.2),
        *(one * 0.1, listed, (listed % 3).int(), (one * 2).int()),
        *(torch.full((rows, -(-vocabulary // 32)), -1, dtype=torch.int32), one.long(), one.long()),
    )


@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("rows", [3, 0])
def test_op_passes_torchs_own_checks(rows: int, optional: bool) -> None:
    arguments = all_given(rows)
    if not optional:
        arguments = (arguments[0], *([None] * 11), *arguments[12:])
    torch.library.opcheck(OP.default, arguments)


@given(
    row=st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0, 2.5]), min_size=1, max_size=30),
    top_k=st.integers(-1, 40),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0, 2.0]),
    min_p=st.sampled_from([0.0, 0.1, 0.6, 1.0, 3.0]),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    seed=st.integers(0, 2**63 - 1),
)
def test_what_is_drawn_is_among_what_each_of_the_filters_leaves(
    row: list[float], top_k: int, top_p: float, min_p: float, temperature: float, seed: int
) -> None:
    logits = torch.tensor([row])
    parameters = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "temperature": temperature}
    tokens, logs = drawn(logits, seed=seed, **parameters)
    token = int(tokens)
    distribution = (logits[0].double() / (temperature or 1.0)).log_softmax(0)
    assert abs(logs.item() - distribution[token].item()) < 1e-5
    if temperature == 0:
        assert token == int((logits[0] == logits.max()).nonzero()[0])
        return
    greater = logits[0] > logits[0, token]
    if top_k > 0:
        assert int(greater.sum()) < top_k
    if top_p < 1 and top_k <= 0 and min_p <= 0:
        assert distribution[greater].exp().sum().item() <= top_p + 1e-6
    if min_p > 0:
        assert (distribution[token] - distribution.max()).exp() >= min(min_p, 1.0) - 1e-6


def test_frequencies_are_those_of_the_distribution() -> None:
    row = made(1, 30)
    tokens, _ = drawn(row.expand(20_000, 30).contiguous(), temperature=1.3)
    expected = (row[0].double() / 1.3).softmax(0) * 20_000
    found = torch.bincount(tokens, minlength=30)
    # 99.9 % of chi-squares of 29 degrees of freedom are less.
    assert ((found - expected) ** 2 / expected).sum().item() < 58.3


def test_penalties_are_those_that_servers_know() -> None:
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.5, 0.0]])
    listed = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    counts = torch.tensor([[0, 1, 3]], dtype=torch.int32)
    changed = torch.tensor([[2.0 / 1.5, -2.0 * 1.5 - 0.1 - 0.4, 1.0 / 1.5 - 0.3 - 0.4, 0.5, 0.0]])
    penalties = {"repetition": 1.5, "frequency": 0.1, "presence": 0.4, "listed": listed, "counts": counts}
    for seed in range(50):
        token, log = drawn(logits, seed=seed, **penalties)
        assert abs(log.item() - changed.log_softmax(1)[0, int(token)].item()) < 1e-5


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": -1.0},
        {"top_p": torch.nan},
        {"temperature": torch.inf},
        {"allowed": torch.zeros(2, 1).int()},
    ],
    ids=str,
)
def test_rows_without_a_token_say_so(parameters: dict[str, Any]) -> None:
    tokens, logs = drawn(made(2, 20), **parameters)
    assert tokens.tolist() == [-1, -1]
    assert logs.isnan().all()


def test_a_row_depends_on_itself_alone() -> None:
    arguments = all_given(5)
    tokens, logs = OP(*arguments)
    for row in range(5):
        alone = OP(*(None if of is None else of[row : row + 1].contiguous() for of in arguments))
        assert alone[0].item() == tokens[row]
        assert alone[1].item() == logs[row]


def test_a_gradient_is_refused() -> None:
    logits = made(2, 9).requires_grad_()
    _, logs = drawn(logits)
    with pytest.raises(NotImplementedError, match="sample has no gradient"):
        logs.sum().backward()


def test_torch_compile_traces_it_whole() -> None:
    compiled = torch.compile(OP, backend="aot_eager", fullgraph=True)
    for found, expected in zip(compiled(*all_given()), OP(*all_given()), strict=True):
        assert torch.equal(found, expected)
