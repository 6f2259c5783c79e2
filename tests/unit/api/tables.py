"""The table of good and bad objects, which the models and the API server must judge alike."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from datahall.api.common import Model
from datahall.api.crds import KINDS

_HERE = Path(__file__).parent
_BASES: dict[str, dict[str, Any]] = yaml.safe_load((_HERE / "bases.yaml").read_text(encoding="utf-8"))

MODELS: dict[str, Any] = {kind.name: kind.model for kind in KINDS}
PLURALS = {kind.name: kind.plural for kind in KINDS}


class Case(NamedTuple):
    id: str
    body: dict[str, Any]
    model_says: str = ""
    server_says: str = ""

    @property
    def model(self) -> type[Model]:
        return MODELS[self.body["kind"]]


def base(name: str) -> dict[str, Any]:
    return copy.deepcopy(_BASES[name])


def good() -> list[Case]:
    return [Case(row["id"], _changed(row)) for row in _rows("good.yaml")]


def bad() -> list[Case]:
    return [
        Case(row["id"], _changed(row), row.get("model") or row["both"], row.get("server") or row["both"])
        for row in _rows("bad.yaml")
    ]


def _rows(file: str) -> list[dict[str, Any]]:
    rows = yaml.safe_load((_HERE / file).read_text(encoding="utf-8"))
    assert all(row.keys() <= {"id", "base", "set", "unset", "both", "model", "server"} for row in rows)
    return rows


def _changed(row: dict[str, Any]) -> dict[str, Any]:
    body = base(row["base"])
    for path, value in row.get("set", {}).items():
        parent, key = _parent(body, path)
        parent[key] = copy.deepcopy(value)
    for path in row.get("unset", []):
        parent, key = _parent(body, path)
        del parent[key]
    return body


def _parent(body: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *parents, key = path.split(".")
    for name in parents:
        body = body.setdefault(name, {})
    return body, key
