"""From a pydantic model to a structural schema: every difference between the two in one place.

The API server takes a dialect of OpenAPI 3.0 in which each node has exactly one type. JSON schema as pydantic writes it
has references, nulls in unions, titles and defaults; what becomes of each is a function below, named for it.

Three things are done on purpose rather than by need:

- A default goes into the description, not into `default`: a default in the schema is written into stored objects,
  which a GitOps tool then reports as drift. (`x-datahall-stored-default` is the exception; its one use says why.)
- `additionalProperties: false` goes away, because the API server refuses it beside `properties`. Pruning and strict
  field validation refuse unknown fields instead.
- Lists say how they merge under server-side apply; a list that does not say is atomic.
"""

from __future__ import annotations

import json
from typing import Any

from . import API_VERSION
from .common import Model, frozen_rule

Schema = dict[str, Any]

_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "anyOf",
    "default",
)
"""What may stand in a node, in the order in which it is written; `x-kubernetes-...` follows."""


def structural_schema(model: type[Model]) -> Schema:
    """The structural schema of a kind, for `openAPIV3Schema`."""
    raw = model.model_json_schema(by_alias=True)
    schema = _node(raw, raw.get("$defs", {}))
    # The API server owns these three; it accepts no more than the bare type.
    schema["properties"]["metadata"] = {"type": "object"}
    schema["properties"]["apiVersion"] = {
        "description": f"The API group and version of this object: {API_VERSION}.",
        "type": "string",
    }
    schema["properties"]["kind"] = {
        "description": f"The kind of this object: {model.__name__}.",
        "type": "string",
    }
    schema["required"] = ["spec"]
    return schema


def _node(raw: Schema, definitions: dict[str, Schema]) -> Schema:
    raw = _inlined(_without_null(raw), definitions)
    raw = _const_as_enum(raw)
    node: Schema = {
        key: raw[key]
        for key in _KEPT
        if key in raw and key not in ("default", "properties", "items", "description")
    }
    node |= {key: value for key, value in raw.items() if key.startswith("x-kubernetes-")}
    node["description"] = _description(raw)
    if "properties" in raw:
        # Parts of a spec forbid unknown fields; only there does it matter to a reader what must be set.
        required = raw.get("required", []) if raw.get("additionalProperties") is False else None
        node["properties"] = {
            name: _with_frozen_rule(
                name,
                _node(
                    child | {"x-datahall-required": None if required is None else name in required},
                    definitions,
                ),
                child,
            )
            for name, child in raw["properties"].items()
        }
    if "items" in raw:
        node["items"] = _without_empty_description(_node(raw["items"], definitions))
        node.setdefault("x-kubernetes-list-type", "atomic")
    if "x-datahall-stored-default" in raw:
        node["default"] = raw["x-datahall-stored-default"]
    _fix_additional_properties(node, definitions)
    if node.get("type") == "integer":
        node["format"] = "int64"
    if not node["description"]:
        del node["description"]
    return _ordered(node)


def _with_frozen_rule(name: str, node: Schema, raw: Schema) -> Schema:
    if "x-datahall-frozen" not in raw:
        return node
    rules = [*node.get("x-kubernetes-validations", ()), frozen_rule(name, raw["x-datahall-frozen"])]
    return node | {"x-kubernetes-validations": rules}


def _without_null(raw: Schema) -> Schema:
    """`anyOf: [T, null]` becomes T: in a custom resource, an optional field is one that may be absent."""
    branches = raw.get("anyOf", [])
    if {"type": "null"} not in branches:
        return raw
    (branch,) = (branch for branch in branches if branch != {"type": "null"})
    return {**branch, **{key: value for key, value in raw.items() if key != "anyOf"}}


def _inlined(raw: Schema, definitions: dict[str, Schema]) -> Schema:
    """`$ref` becomes what it refers to. What stands next to it (a field's own description) wins."""
    if "$ref" not in raw:
        return raw
    definition = definitions[raw["$ref"].removeprefix("#/$defs/")]
    return definition | {key: value for key, value in raw.items() if key != "$ref"}


def _const_as_enum(raw: Schema) -> Schema:
    return raw | {"enum": [raw["const"]]} if "const" in raw else raw


def _fix_additional_properties(node: Schema, definitions: dict[str, Schema]) -> None:
    values = node.pop("additionalProperties", None)
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(values, dict):
        node["additionalProperties"] = _without_empty_description(_node(values, definitions))


def _without_empty_description(node: Schema) -> Schema:
    return {key: value for key, value in node.items() if key != "description" or value}


def _description(raw: Schema) -> str:
    """The docstring as one paragraph, then what only the field knows: required, default, example."""
    notes = [" ".join(raw.get("description", "").split())]
    is_leaf = "properties" not in raw
    required = raw.get("x-datahall-required")
    if required:
        notes.append("Required.")
    elif "x-datahall-default" in raw:
        notes.append(f"Default: {raw['x-datahall-default']}.")
    elif required is False and is_leaf and raw.get("default") is not None:
        notes.append(f"Default: {_shown(raw['default'])}.")
    if is_leaf and "examples" in raw:
        notes.append(f"Example: {_shown(raw['examples'][0])}.")
    return " ".join(note for note in notes if note)


def _shown(value: object) -> str:
    if value in ([], {}, ""):
        return "empty"
    return value if isinstance(value, str) else json.dumps(value)


def _ordered(node: Schema) -> Schema:
    rank = {key: position for position, key in enumerate(_KEPT)}
    return dict(sorted(node.items(), key=lambda item: rank.get(item[0], len(rank))))
