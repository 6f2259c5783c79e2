"""The bench without a GPU: what it times is right, what it says adds up, and it claims nothing."""

from __future__ import annotations

import json

import pytest
import torch

from kernel_bench import __main__ as bench
from kernel_bench import (
    decoding_cases,
    embedding_cases,
    loss_cases,
    norm_cases,
    optimizer_cases,
    sampling_cases,
    table,
)
from kernel_bench.cases import Case, selected

CPU = torch.device("cpu")
# Torch's attention is over another cache, in one piece; samplers draw by numbers of their own; a step returns nothing.
DIFFERENT = ("paged_attention", "sample", "adamw")
# Torch 2.11 says so of the first sparse tensor of a process, whatever the call asks for.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes that a CPU has done in no time."""
    monkeypatch.setattr(norm_cases, "WIDTHS", ((3, 64),))
    monkeypatch.setattr(loss_cases, "LOGITS", ((3, 70),))
    monkeypatch.setattr(loss_cases, "LINEAR", ((5, 16, 70),))
    monkeypatch.setattr(optimizer_cases, "LAYERS", 1)
    monkeypatch.setattr(optimizer_cases, "SHAPES", ((3, 4), (5,)))
    monkeypatch.setattr(optimizer_cases, "EMBEDDING", (7, 2))
    monkeypatch.setattr(embedding_cases, "BAGS", ((50, 8, 4, 3),))
    monkeypatch.setattr(sampling_cases, "LOGITS", ((2, 100),))
    monkeypatch.setattr(decoding_cases, "PRODUCTS", ((2, 64, 32),))
    monkeypatch.setattr(decoding_cases, "CONTEXTS", ((2, 20),))


def tensors(result: object) -> list[torch.Tensor]:
    found = [result] if isinstance(result, torch.Tensor) else list(result)  # type: ignore[call-overload]
    return [tensor.to_dense() for tensor in found]


def test_ours_and_torchs_compute_the_same_where_both_are_timed() -> None:
    compared = 0
    for case in bench.all_cases():
        if "torch" not in case.makers or case.op.startswith(DIFFERENT):
            continue
        ours, theirs = (tensors(case.makers[name](CPU)()) for name in ("ours", "torch"))
        allowed = 0.2 if case.op.startswith("weight_only") else 2e-2
        for one, other in zip(ours, theirs, strict=True):
            scale = other.abs().max()
            assert (one.reshape(other.shape) - other).abs().max() <= allowed * scale, case.name
        compared += 1
    assert compared > 10


def test_all_that_is_ours_runs() -> None:
    for case in bench.all_cases():
        if "torch" not in case.makers or case.op.startswith(DIFFERENT):
            for provider in case.makers.keys() - {"compile"}:
                case.makers[provider](CPU)()


def test_a_ceiling_is_the_longer_of_moving_and_computing() -> None:
    case = Case(op="o", passed="forward", shape="s", dtype=torch.float32, moved_bytes=6.0, flops=8.0)
    assert case.ceiling_seconds(bytes_per_second=3.0, flops_per_second=2.0) == 4.0
    assert case.ceiling_seconds(bytes_per_second=1.0, flops_per_second=2.0) == 6.0


def test_cases_are_chosen_by_words() -> None:
    assert {case.op for case in selected(bench.all_cases(), "layer_norm backward")} == {"layer_norm"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_a_ceiling_and_no_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--only", "rms_norm forward bfloat16"])
    assert bench.main() == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert list(lines[0]) == [
        *(
            "op",
            "pass",
            "shape",
            "dtype",
            "provider",
            "microseconds",
            "percent_of_ceiling",
            "peak_mb",
            "device",
        )
    ]
    assert {(line["provider"], line["percent_of_ceiling"]) for line in lines} == {("ceiling", None)}
    assert "no GPU: nothing is timed" in said.err


def test_nothing_is_kept_that_was_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["bench", "--keep"])
    with pytest.raises(SystemExit):
        bench.main()


def test_the_readmes_table_is_what_results_give() -> None:
    text = table.README.read_text()
    assert table.readme(text, table.kept()) == text


def test_a_table_has_the_best_in_bold_and_no_provider_that_did_not_run() -> None:
    line = {"op": "o", "pass": "full", "shape": "1 x 2", "dtype": "bfloat16", "percent_of_ceiling": 50.0}
    result = {
        "date": "2030-01-02",
        "versions": {"torch": "9", "driver": None},
        "lines": [
            {"op": "copy", "device": "GPU", "microseconds": 1000.0},
            {"op": "gemm", "device": "GPU", "microseconds": 1000.0},
            line | {"provider": "ours", "microseconds": 2.0},
            line | {"provider": "torch", "microseconds": 3.0},
        ],
    }
    made = table.table([result])
    assert "### GPU, 2030-01-02\ntorch 9. Copy 2.15 TB/s, product 1100 TFLOP/s." in made
    assert made.endswith("| o | full | 1 x 2 | bfloat16 | **2 (50)** | 3 (50) |  |  |  |  |  |\n")
