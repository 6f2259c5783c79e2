"""`python -m kernel_bench`: one JSON object per case and provider; see README.md here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import torch

from kernel_bench import (
    decoding_cases,
    embedding_cases,
    loss_cases,
    norm_cases,
    optimizer_cases,
    peers,
    sampling_cases,
)
from kernel_bench.cases import Case, selected
from kernel_bench.timing import Clock

RESULTS = Path(__file__).parents[1] / "results"
# Of an H100 SXM5 by its data sheet: memory, and dense bfloat16.
SHEET_DEVICE = "none; ceiling of an H100 SXM by its data sheet"
SHEET_BYTES_PER_SECOND = 3.35e12
SHEET_FLOPS_PER_SECOND = 989e12

Line = dict[str, object]


def all_cases() -> Iterator[Case]:
    """Every case there is."""
    families = (norm_cases, loss_cases, optimizer_cases, embedding_cases, decoding_cases, sampling_cases)
    return chain.from_iterable(family.cases() for family in families)


def analytical(cases: list[Case]) -> Iterator[Line]:
    """What the cases could reach at best, where there is no GPU to time them on."""
    for case in cases:
        seconds = case.ceiling_seconds(
            bytes_per_second=SHEET_BYTES_PER_SECOND, flops_per_second=SHEET_FLOPS_PER_SECOND
        )
        yield _line(case, "ceiling", seconds, percent=None, peak_mb=None, device=SHEET_DEVICE)


def measured(cases: list[Case], device: torch.device) -> Iterator[Line]:
    """Ceilings first, then the cases."""
    clock, name = Clock(device), torch.cuda.get_device_name(device)
    bytes_per_second, flops_per_second = clock.copy_bytes_per_second(), clock.gemm_flops_per_second()
    for op, shape, dtype, seconds in (
        ("copy", "1 GiB", torch.int8, 2 * (1 << 30) / bytes_per_second),
        ("gemm", "8192 x 8192 x 8192", torch.bfloat16, 2 * 8192**3 / flops_per_second),
    ):
        case = Case(op=op, passed="forward", shape=shape, dtype=dtype, moved_bytes=0)
        yield _line(case, "torch", seconds, percent=100.0, peak_mb=None, device=name)
    for case in cases:
        calls = {}
        for provider, make in case.makers.items():
            try:
                calls[provider] = make(device)
                calls[provider]()
            except Exception as error:  # a peer that fails here is told of, and the others are measured
                calls.pop(provider, None)
                print(f"{case.name}: {provider}: {type(error).__name__}: {error}", file=sys.stderr)
        ceiling = case.ceiling_seconds(bytes_per_second=bytes_per_second, flops_per_second=flops_per_second)
        for provider, seconds in clock.medians(calls).items():
            yield _line(
                case,
                provider,
                seconds,
                percent=round(100 * ceiling / seconds, 1),
                peak_mb=round(clock.peak_bytes(calls[provider]) / 2**20, 1),
                device=name,
            )
        del calls
        torch.cuda.empty_cache()


def _line(
    case: Case, provider: str, seconds: float, *, percent: float | None, peak_mb: float | None, device: str
) -> Line:
    return {
        "op": case.op,
        "pass": case.passed,
        "shape": case.shape,
        "dtype": str(case.dtype).removeprefix("torch."),
        "provider": provider,
        "microseconds": float(f"{seconds * 1e6:.4g}"),
        "percent_of_ceiling": percent,
        "peak_mb": peak_mb,
        "device": device,
    }


def _versions() -> Line:
    driver = torch.cuda.driver_version() if hasattr(torch.cuda, "driver_version") else None
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "driver": driver}


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kernel_bench", description=__doc__)
    parser.add_argument("--only", default="", help="words that a case's name must have")
    parser.add_argument(
        "--keep", action="store_true", help="keep the lines in results/, for the README's table"
    )
    arguments = parser.parse_args()
    cases = selected(all_cases(), arguments.only)
    if not cases:
        parser.error(f"--only {arguments.only!r}: no case has all these words in its name")
    if absent := peers.missing():
        print(f"not installed, and left out: {', '.join(absent)}", file=sys.stderr)
    if torch.cuda.is_available():
        lines = measured(cases, torch.device("cuda", torch.cuda.current_device()))
    elif arguments.keep:
        parser.error("--keep: there is no GPU, and nothing was measured")
    else:
        print("no GPU: nothing is timed; what follows is what could be reached at best", file=sys.stderr)
        lines = analytical(cases)
    kept = []
    for line in lines:
        print(json.dumps(line), flush=True)
        kept.append(line)
    if arguments.keep:
        RESULTS.mkdir(exist_ok=True)
        name = str(kept[0]["device"]).lower().replace(" ", "-")
        date = datetime.now(UTC).date().isoformat()
        content = {"date": date, "versions": _versions(), "lines": kept}
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
