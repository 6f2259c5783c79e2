"""`make kernels-table`: writes the table of README.md from what is kept in results/."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- made by `make kernels-table` -->"
NOTHING = "Nothing has been measured so far."
PROVIDERS = ("ours", "torch", "foreach", "compile", "liger", "quack", "flashinfer")


def table(results: list[dict[str, Any]]) -> str:
    """Markdown of all results: a section for each device, a row for each case, microseconds for each provider."""
    if not results:
        return NOTHING + "\n"
    return "\n".join(_section(result) for result in results)


def _section(result: dict[str, Any]) -> str:
    lines = result["lines"]
    ceilings = {line["op"]: line for line in lines if line["op"] in {"copy", "gemm"}}
    rows: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for line in lines:
        if line["op"] not in ceilings:
            key = (line["op"], line["pass"], line["shape"], line["dtype"])
            rows.setdefault(key, {})[line["provider"]] = line
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items() if value)
    copied = 2 * 2**30 / ceilings["copy"]["microseconds"] / 1e6
    multiplied = 2 * 8192**3 / ceilings["gemm"]["microseconds"] / 1e6
    text = [
        f"### {lines[0]['device']}, {result['date']}",
        f"{versions}. Copy {copied:.2f} TB/s, product {multiplied:.0f} TFLOP/s. Microseconds; in brackets percent of"
        " the ceiling.",
        "",
        f"| op | pass | shape | dtype | {' | '.join(PROVIDERS)} |",
        f"| --- | --- | --- | --- | {' | '.join('---' for _ in PROVIDERS)} |",
    ]
    text += [f"| {' | '.join(key)} | {' | '.join(_cells(found))} |" for key, found in rows.items()]
    return "\n".join(text) + "\n"


def _cells(found: dict[str, dict[str, Any]]) -> list[str]:
    best = min(line["microseconds"] for line in found.values())
    cells = []
    for provider in PROVIDERS:
        line = found.get(provider)
        if line is None:
            cells.append("")
            continue
        cell = f"{line['microseconds']:g} ({line['percent_of_ceiling']:g})"
        cells.append(f"**{cell}**" if line["microseconds"] == best else cell)
    return cells


def readme(text: str, results: list[dict[str, Any]]) -> str:
    """The README with its table made anew."""
    return text[: text.index(BEGIN)] + BEGIN + "\n" + table(results)


def kept() -> list[dict[str, Any]]:
    """All results, by device."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


if __name__ == "__main__":
    README.write_text(readme(README.read_text(), kept()))
    sys.exit(0)
