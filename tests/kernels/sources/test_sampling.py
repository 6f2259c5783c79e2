"""sampling.cu, run on the CPU: each token is held to where its random number falls in float64's distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kernel_execution import Input, Library, Order, Output
from tests.kernels.sources.launching import DTYPES, i32, made, name_of

ON_H100, ON_A10 = 232_448, 101_376
"""Bytes of shared memory that a block may have."""
MASK = 2**32 - 1


def philox(seed: int, offset: int) -> int:
    """64 random bits: the first two words of Philox4x32-10, whose counter the offset is."""
    words, key = [offset & MASK, offset >> 32, 0, 0], [seed & MASK, seed >> 32 & MASK]
    for _ in range(10):
        one, other = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [other >> 32 ^ words[1] ^ key[0], other & MASK, one >> 32 ^ words[3] ^ key[1], one & MASK]
        key = [(key[0] + 0x9E3779B9) & MASK, (key[1] + 0xBB67AE85) & MASK]
    return words[1] << 32 | words[0]


@dataclass
class Batch:
    """Rows of logits, and what they are drawn by: tensors with an element, or a row, per row."""

    logits: Tensor
    parameters: dict[str, Tensor] = field(default_factory=dict)
    """temperature, top_k, top_p, min_p, repetition, presence, frequency."""
    listed: Tensor | None = None
    counts: Tensor | None = None
    lengths: Tensor | None = None
    allowed: Tensor | None = None
    """[rows, vocabulary] of bool."""
    seed: int = 7

    def __post_init__(self) -> None:
        self.rows, self.vocabulary = self.logits.shape
        self.seeds = torch.arange(self.rows) * 2**33 + self.seed
        self.offsets = torch.arange(self.rows) + 2**32 * 3

    def only(self, row: int) -> Batch:
        """That row alone."""
        alone = {name: of[row : row + 1] for name, of in vars(self).items() if isinstance(of, Tensor)}
        seeds, offsets = alone.pop("seeds"), alone.pop("offsets")
        parameters = {name: of[row : row + 1] for name, of in self.parameters.items()}
        batch = replace(self, parameters=parameters, **alone)
        batch.seeds, batch.offsets = seeds, offsets
        return batch

    def words(self) -> Tensor | None:
        """`allowed` as bits; those beyond the vocabulary are set, and mean nothing."""
        if self.allowed is None:
            return None
        padded = np.pad(self.allowed.numpy(), ((0, 0), (0, -self.vocabulary % 32)), constant_values=True)
        return torch.from_numpy(np.packbits(padded, axis=1, bitorder="little").view(np.int32))

    def given(self) -> tuple[Input | None, ...]:
        names = ("temperature", "top_k", "top_p", "min_p", "repetition", "presence", "frequency")
        tensors: dict[str, Tensor | None] = {name: self.parameters.get(name) for name in names}
        tensors |= {name: getattr(self, name) for name in ("listed", "counts", "lengths")}
        tensors["allowed"] = self.words()
        return tuple(None if of is None else Input(name, of) for name, of in tensors.items())

    def run(
        self,
        kernels: Library,
        *,
        stride: int = 0,
        misaligned_by: int = 0,
        shared_bytes: int = ON_H100,
        order: Order = Order.FORWARD,
    ) -> tuple[Tensor, Tensor]:
        """Tokens and log-probabilities."""
        stride = stride or self.vocabulary
        padded = torch.full((self.rows, stride), float("nan"), dtype=self.logits.dtype)
        padded[:, : self.vocabulary] = self.logits
        tokens, logs = torch.empty(self.rows, dtype=torch.int64), torch.empty(self.rows)
        capacity = 0 if self.listed is None else self.listed.shape[1]
        kernels.check(
            *("datahall_sample", Input("logits", padded, misaligned_by), *self.given()),
            *(Input("seeds", self.seeds), Input("offsets", self.offsets), Output("tokens", tokens)),
            *(Output("log_probabilities", logs), self.rows, self.vocabulary, stride, capacity),
            *((self.vocabulary + 31) // 32, i32(shared_bytes), i32(DTYPES[self.logits.dtype]), None),
            order=order,
            seed=1,
        )
        return tokens, logs


@dataclass(frozen=True)
class Distribution:
    """What a row is drawn from: tokens in the order in which their weights are added up."""

    tokens: np.ndarray[Any, Any]
    log_probabilities: np.ndarray[Any, Any]
    """Before anything is dropped."""
    kept: np.ndarray[Any, Any]
    """Weights, 0 for what is dropped."""


def exact(batch: Batch, row: int) -> Distribution:
    """In float64 from logits on, which have the kernel's float32 penalties."""
    given = {name: of[row].item() for name, of in batch.parameters.items()}
    z = batch.logits[row].float().numpy().copy()
    there = np.ones(len(z), bool) if batch.allowed is None else batch.allowed[row].numpy()
    listed: list[int] = []
    if batch.listed is not None:
        length = batch.listed.shape[1] if batch.lengths is None else int(batch.lengths[row])
        for i, token in enumerate(batch.listed[row, :length].tolist()):
            if 0 <= token < len(z) and there[token]:
                listed.append(token)
                count = 1 if batch.counts is None else int(batch.counts[row, i])
                z[token] = penalised(z[token], count, given)
    tokens = np.array([*np.setdiff1d(np.flatnonzero(there), listed), *listed], np.int64)
    z = z[tokens]
    temperature = np.float32(given.get("temperature", 1.0))
    log_weights = ((z - z.max()) / temperature).astype(np.float64)
    weights = np.exp(log_weights)
    cut = -np.inf
    if given.get("min_p", 0) > 0:
        below = np.float32(min(30.0, -math.log(min(given["min_p"], 1.0))))
        cut = z.max() - below * temperature
    if 0 < given.get("top_k", 0) < min(len(z), batch.vocabulary):
        cut = max(cut, np.sort(z)[-given["top_k"]])
    kept = np.where(z >= cut, weights, 0.0)
    if given.get("top_p", 1.0) < 1.0:
        from_the_top = np.argsort(-z, kind="stable")
        reached = np.cumsum(kept[from_the_top]) >= max(given["top_p"], 1e-30) * kept.sum()
        kept = np.where(z >= z[from_the_top[reached.argmax()]], kept, 0.0)
    return Distribution(tokens, log_weights - math.log(weights.sum()), kept)


def penalised(z: np.float32, count: int, given: dict[str, float]) -> np.float32:
    repetition = np.float32(given.get("repetition", 1.0))
    z = z / repetition if z > 0 else z * repetition
    z -= np.float32(given.get("frequency", 0.0)) * np.float32(count)
    return np.float32(z - np.float32(given.get("presence", 0.0)) if count > 0 else z)


def assert_right(batch: Batch, found: tuple[Tensor, Tensor]) -> None:
    for row in range(batch.rows):
        distribution = exact(batch, row)
        token, log = found[0][row].item(), found[1][row].item()
        place = int(np.flatnonzero(distribution.tokens == token)[0])
        assert math.isclose(log, distribution.log_probabilities[place], rel_tol=1e-6, abs_tol=2e-6)
        if batch.parameters.get("temperature", torch.ones(batch.rows))[row] == 0:
            continue
        upto = np.cumsum(distribution.kept)
        share = philox(int(batch.seeds[row]), int(batch.offsets[row])) / 2**64
        # The kernel's weights have float32's exp.
        above, off = upto[place] / upto[-1], 1e-6
        assert above - distribution.kept[place] / upto[-1] - off <= share <= above + off, (row, token)
        assert distribution.kept[place] > 0


def drawn_by_all(rows: int, vocabulary: int, dtype: torch.dtype, *, listed: int = 20) -> Batch:
    """A batch in which each row has other parameters, and each parameter is off in some."""

    def some(*values: float) -> Tensor:
        return torch.tensor([values[row % len(values)] for row in range(rows)])

    order = torch.Generator().manual_seed(4)
    tokens = torch.stack([torch.randperm(vocabulary + 2, generator=order)[:listed] - 1 for _ in range(rows)])
    capacity = tokens.shape[1]
    allowed = torch.rand(rows, vocabulary, generator=order) < 0.8
    allowed[:, 0] = True
    return Batch(
        made(rows, vocabulary, dtype=dtype, seed=1, scale=1.5),
        {
            "temperature": some(1.0, 0.7, 1.5),
            "top_k": some(0, 3, 40, 1, vocabulary + 5).int(),
            "top_p": some(0.9, 1.0, 0.5, 0.99),
            "min_p": some(0.0, 0.05, 0.0, 0.0, 0.3, 0.0, 0.0),
            "repetition": some(1.0, 1.3),
            "presence": some(0.0, 0.5, -0.4),
            "frequency": some(0.1, 0.0, 0.0, 0.3),
        },
        listed=tokens.int(),
        counts=(tokens % 4).int(),
        lengths=some(capacity, capacity // 2, 0, capacity).int(),
        allowed=allowed,
    )


def test_philox_is_that_of_the_paper() -> None:
    # From the known answers of its authors (Random123): counter and key of 0.
    assert philox(0, 0) == 0xE169C58D_6627E8D5


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(("vocabulary", "stride"), [(1, 1), (5, 8), (123, 123), (1000, 1000), (8192, 8192)])
def test_all_parameters_at_once(kernels: Library, vocabulary: int, stride: int, dtype: torch.dtype) -> None:
    batch = drawn_by_all(24, vocabulary, dtype)
    assert_right(batch, batch.run(kernels, stride=stride))


@pytest.mark.parametrize("absent", ["listed", "counts", "lengths", "allowed", "parameters"])
def test_what_is_absent_is_off(kernels: Library, absent: str) -> None:
    batch = replace(drawn_by_all(8, 200, torch.float32), **{absent: {} if absent == "parameters" else None})
    assert_right(batch, batch.run(kernels))


@pytest.mark.parametrize("shared_bytes", [ON_H100, ON_A10])
def test_a_vocabulary_of_gpt2(kernels: Library, shared_bytes: int) -> None:
    batch = drawn_by_all(2, 50_257, torch.bfloat16)
    assert_right(batch, batch.run(kernels, stride=50_264, shared_bytes=shared_bytes))


def test_no_rows(kernels: Library) -> None:
    assert Batch(torch.empty(0, 10)).run(kernels)[0].shape == (0,)


def test_a_token_depends_on_its_row_alone(kernels: Library) -> None:
    batch = drawn_by_all(6, 2500, torch.bfloat16)
    expected = batch.run(kernels, stride=2504)
    ways: list[dict[str, Any]] = [
        *({"order": order} for order in Order),
        *({"stride": 2501}, {"misaligned_by": 2}, {"shared_bytes": 20_000}),
        {"shared_bytes": 20_000, "stride": 2501, "order": Order.SHUFFLED},
    ]
    for way in ways:
        found = batch.run(kernels, **{"stride": 2504, **way})
        assert all(torch.equal(ours, other) for ours, other in zip(found, expected, strict=True)), way
    for row in range(6):
        alone = batch.only(row).run(kernels, stride=2504)
        assert all(ours.item() == other[row].item() for ours, other in zip(alone, expected, strict=True))


def test_frequencies_are_those_of_the_distribution(kernels: Library) -> None:
    rows, vocabulary = 2000, 40
    row = made(1, vocabulary, dtype=torch.float32, seed=3, scale=1.5)
    listed = torch.tensor([[3, 11]], dtype=torch.int32).expand(rows, 2).contiguous()
    parameters = {"temperature": torch.full((rows,), 1.3), "repetition": torch.full((rows,), 1.2)}
    batch = Batch(row.expand(rows, vocabulary).contiguous(), parameters, listed=listed)
    tokens, _ = batch.run(kernels)
    distribution = exact(batch, 0)
    expected = distribution.kept / distribution.kept.sum() * rows
    found = np.bincount(tokens.numpy(), minlength=vocabulary)[distribution.tokens]
    # 99.9 % of chi-squares of 39 degrees of freedom are less.
    assert ((found - expected) ** 2 / expected).sum() < 72.1
    # Other seeds and other offsets give other tokens.
    one_seed, one_offset = replace(batch), replace(batch)
    one_seed.seeds, one_offset.offsets = torch.full((rows,), 5), torch.full((rows,), 5)
    for other in (one_seed, one_offset):
        assert len(other.run(kernels)[0].unique()) > 20


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("shift", [-0.3, 300.0])
@pytest.mark.parametrize(
    "parameters",
    [{"top_k": 1}, {"top_k": 6}, {"top_p": 0.004}, {"top_p": 0.0}, {"top_p": -1.0}, {"min_p": 0.998}],
    ids=str,
)
def test_just_those_that_are_to_be_left_are_drawn(
    kernels: Library, parameters: dict[str, float], shift: float, dtype: torch.dtype
) -> None:
    # Nearly equal logits, and equal ones in the types of 16 bits, so that each that is left is drawn by and by.
    rows, vocabulary = 60, 1000
    row = torch.linspace(0.0, 0.6 if dtype == torch.float32 else 3.0, vocabulary) + shift
    row = row[torch.randperm(vocabulary, generator=torch.Generator().manual_seed(8))]
    given = {
        name: torch.full((rows,), value, dtype=torch.int32 if name == "top_k" else torch.float32)
        for name, value in parameters.items()
    }
    batch = Batch(row.to(dtype).expand(rows, vocabulary).contiguous(), given)
    distribution = exact(batch, 0)
    kept = set(distribution.tokens[distribution.kept > 0].tolist())
    tokens = batch.run(kernels)[0].tolist()
    assert set(tokens) <= kept
    if len(kept) <= 8:
        assert set(tokens) == kept


def test_a_nucleus_of_thousands(kernels: Library) -> None:
    # One token more or less would move all that come after it.
    logits = made(12, 8192, dtype=torch.float32, seed=15, scale=0.2)
    batch = Batch(logits, {"top_p": torch.full((12,), 0.9)})
    assert_right(batch, batch.run(kernels))


def test_equal_logits_stay_together(kernels: Library) -> None:
    rows = 80
    row = torch.tensor([0.5, 1.0, 1.0, 0.0, 1.0, -0.0, 0.25])
    logits = row.expand(rows, 7).contiguous()
    for parameters, kept in (
        ({"top_k": torch.full((rows,), 2, dtype=torch.int32)}, {1, 2, 4}),
        ({"top_p": torch.full((rows,), 0.1)}, {1, 2, 4}),
        ({"top_k": torch.full((rows,), 6, dtype=torch.int32)}, {0, 1, 2, 3, 4, 5, 6}),
    ):
        assert set(Batch(logits, parameters).run(kernels)[0].tolist()) == kept


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_temperature_0_takes_the_lowest_of_the_greatest(kernels: Library, dtype: torch.dtype) -> None:
    logits = made(3, 500, dtype=dtype, seed=9)
    logits[0, [400, 77, 499]] = 9.0
    logits[1, [3, 200]] = 9.0
    parameters = {
        "temperature": torch.zeros(3),
        "repetition": torch.tensor([1.0, 1.5, 1.0]),
        "top_k": torch.full((3,), 2, dtype=torch.int32),
        "top_p": torch.full((3,), 0.1),
    }
    listed = torch.tensor([[77], [3], [-1]], dtype=torch.int32)
    tokens, logs = Batch(logits, parameters, listed=listed).run(kernels)
    assert tokens.tolist() == [77, 200, int(logits[2].float().argmax())]
    exact_logs = logits.double().log_softmax(-1)
    for row in (0, 2):
        assert math.isclose(logs[row].item(), exact_logs[row, tokens[row]].item(), rel_tol=1e-6, abs_tol=2e-6)


@pytest.mark.parametrize("temperature", [1e-38, 1e-6, 1e4, 3e38])
def test_extreme_temperatures(kernels: Library, temperature: float) -> None:
    rows = 50
    logits = made(1, 64, dtype=torch.float32, seed=10).expand(rows, 64).contiguous()
    tokens, _ = Batch(logits, {"temperature": torch.full((rows,), temperature)}).run(kernels)
    if temperature < 1:
        assert set(tokens.tolist()) == {int(logits[0].argmax())}
    else:
        assert len(set(tokens.tolist())) > 25


def rows_of_nothing() -> dict[str, tuple[Tensor, dict[str, float], bool]]:
    logits = made(100, dtype=torch.float32, seed=11)
    bad = float("nan"), float("inf")
    in_place = {f"a logit of {value}": logits.index_fill(0, torch.tensor(50), value) for value in bad}
    cases = {name: (row, {}, True) for name, row in in_place.items()}
    cases["only -inf"] = (torch.full((100,), float("-inf")), {}, True)
    cases["none allowed"] = (logits, {}, False)
    for name in ("temperature", "top_p", "min_p", "repetition", "presence", "frequency"):
        cases |= {f"{name} {value}": (logits, {name: value}, True) for value in bad}
    return cases | {"temperature below 0": (logits, {"temperature": -1.0}, True)}


@pytest.mark.parametrize("case", rows_of_nothing())
def test_rows_without_a_token_say_so(kernels: Library, case: str) -> None:
    row, parameters, allowed = rows_of_nothing()[case]
    good = made(100, dtype=torch.float32, seed=12)
    given = {name: torch.tensor([value, 0.5]) for name, value in parameters.items()}
    mask = torch.ones(2, 100, dtype=torch.bool)
    mask[0] = allowed
    tokens, logs = Batch(torch.stack([row, good]), given, allowed=mask).run(kernels)
    assert tokens[0] == -1
    assert logs[0].isnan()
    assert tokens[1] >= 0
    assert logs[1] < 0


def test_what_may_not_be_drawn_may_be_nan(kernels: Library) -> None:
    logits = made(1, 100, dtype=torch.float32, seed=13)
    logits[0, 40:] = float("nan")
    allowed = torch.arange(100)[None] < 40
    tokens, _ = Batch(logits, allowed=allowed).run(kernels)
    assert 0 <= tokens[0] < 40


def test_logits_of_minus_infinity_are_never_drawn(kernels: Library) -> None:
    rows = 40
    logits = torch.full((rows, 300), float("-inf"))
    logits[:, [5, 290]] = torch.tensor([1.0, 1.2])
    for parameters in ({}, {"top_k": torch.full((rows,), 5).int()}, {"top_p": torch.full((rows,), 0.99)}):
        assert set(Batch(logits, parameters).run(kernels)[0].tolist()) == {5, 290}


def test_listed_tokens_beyond_the_vocabulary_do_not_count(kernels: Library) -> None:
    listed = torch.tensor([[-1, 100, 2**31 - 1, -(2**31), 7]], dtype=torch.int32)
    batch = Batch(made(1, 100, dtype=torch.float32, seed=14), {"presence": torch.ones(1)}, listed=listed)
    assert_right(batch, batch.run(kernels))


def test_a_list_of_nearly_all_tokens(kernels: Library) -> None:
    batch = drawn_by_all(4, 1500, torch.float16, listed=1499)
    assert_right(batch, batch.run(kernels))


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        *(("rows", -1), ("vocabulary", 0), ("vocabulary", 2**19 + 1), ("stride", 63), ("capacity", -1)),
        *(("allowed_words", 1), ("shared_bytes", 100), ("dtype", 3)),
    ],
)
def test_what_cannot_be_is_refused(kernels: Library, changed: str, value: int) -> None:
    batch = Batch(torch.zeros(1, 64), allowed=torch.ones(1, 64, dtype=torch.bool))
    sizes = {"rows": 1, "vocabulary": 64, "stride": 64, "capacity": 0, "allowed_words": 2}
    sizes |= {"shared_bytes": ON_H100, "dtype": 0} | {changed: value}
    outcome = kernels.run(
        *("datahall_sample", Input("logits", batch.logits), *batch.given()),
        *(Input("seeds", batch.seeds), Input("offsets", batch.offsets)),
        *(Output("tokens", torch.empty(1, dtype=torch.int64)), None),
        *list(sizes.values())[:5],
        *(i32(sizes["shared_bytes"]), i32(sizes["dtype"]), None),
    )
    assert outcome.code == 1
    assert not outcome.findings
