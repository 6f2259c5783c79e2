"""docs/contracts.md, read by tests, and the manifests of the examples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs" / "contracts.md").read_text(encoding="utf-8")


def table(first_column: str) -> list[list[str]]:
    """The rows, without the head, of the table whose first column has that head."""
    lines = iter(TEXT.splitlines())
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            break
    else:
        raise AssertionError(f"no table with a column {first_column!r} in docs/contracts.md")
    assert set(next(lines)) <= set("|- ")
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def json_after(heading: str) -> dict[str, Any]:
    """The first JSON object in the first JSON block after a heading; `...` in it stands for nothing."""
    block = re.search(r"```json\n(.+?)```", TEXT[TEXT.index(heading) :], flags=re.DOTALL)
    assert block, heading
    value, _ = json.JSONDecoder().raw_decode(block.group(1))
    assert isinstance(value, dict)
    return value


def examples(kind: str) -> dict[str, dict[str, Any]]:
    """The manifests of that kind, by file."""
    found = {}
    for file in sorted((REPOSITORY / "examples").glob("*/*.yaml")):
        for body in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if body["kind"] == kind:
                found[f"{file.parent.name}/{file.name}"] = body
    assert found, kind
    return found
