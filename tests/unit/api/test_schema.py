import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from datahall.api import crds, reference
from datahall.api.common import Frozen, Model, Rule, SpecModel, Unique
from datahall.api.schema import structural_schema

ROOT = Path(__file__).parents[3]
DEFINITIONS = {kind.name: crds.custom_resource_definition(kind) for kind in crds.KINDS}


def schema_of(name: str) -> dict[str, Any]:
    return DEFINITIONS[name]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(node, path=""):
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


every_kind = pytest.mark.parametrize("name", DEFINITIONS)


@every_kind
def test_every_field_is_documented(name):
    empty = [
        path
        for path, node in nodes(schema_of(name))
        if path != ".metadata" and not path.endswith(("[]", "{}")) and len(node.get("description", "")) < 10
    ]
    assert empty == []


@every_kind
def test_every_leaf_of_a_spec_has_an_example_and_says_what_happens_without_it(name):
    spec = schema_of(name)["properties"]["spec"]
    leaves = [
        (path, node["description"])
        for path, node in nodes(spec)
        if path and not path.endswith(("[]", "{}")) and "properties" not in node
    ]
    assert [path for path, description in leaves if "Example: " not in description] == []
    assert [
        path
        for path, description in leaves
        if not any(word in description for word in ("Required.", "Default: ", "Absent: "))
    ] == []


@every_kind
def test_nothing_is_defaulted_in_the_store_but_replicas(name):
    stored = [path for path, node in nodes(schema_of(name)) if "default" in node]
    assert stored == ([".spec.replicas", ".spec.replicas.min"] if name == "InferenceService" else [])


@every_kind
def test_a_status_has_one_owner(name):
    assert schema_of(name)["properties"]["status"]["x-kubernetes-map-type"] == "atomic"


@every_kind
def test_each_node_has_one_type(name):
    for path, node in nodes(schema_of(name)):
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
        else:
            assert isinstance(node["type"], str), path
            assert not {"anyOf", "oneOf", "allOf", "$ref", "title", "const"} & node.keys(), path


@every_kind
def test_everything_that_a_person_writes_is_bounded(name):
    unbounded = []
    for path, node in nodes(schema_of(name)["properties"]["spec"]):
        match node.get("type"):
            case "string":
                bounded = "maxLength" in node or "enum" in node
            case "integer" | "number":
                bounded = {"minimum", "maximum"} <= node.keys()
            case "array":
                bounded = "maxItems" in node and "x-kubernetes-list-type" in node
            case _:
                bounded = True
        if not bounded:
            unbounded.append(path)
    assert unbounded == []


@every_kind
def test_every_rule_between_fields_has_a_message(name):
    for path, node in nodes(schema_of(name)):
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"], path


@every_kind
def test_fits_into_the_annotation_of_kubectl_apply(name):
    assert len(json.dumps(DEFINITIONS[name], separators=(",", ":"))) < 200_000


@every_kind
def test_every_column_shows_a_field(name):
    paths = {path for path, _ in nodes(schema_of(name))}
    for column in DEFINITIONS[name]["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = column["jsonPath"]
        assert path in paths or path.startswith((".metadata.", ".status.effective.")), column


@pytest.mark.parametrize("generator", [crds, reference], ids=["crds", "reference"])
def test_what_is_generated_is_what_is_committed(generator, capsys):
    assert generator.main(["--check", "--root", str(ROOT)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("generator", [crds, reference], ids=["crds", "reference"])
def test_check_finds_a_stale_file_and_write_mends_it(generator, tmp_path, capsys):
    assert generator.main(["--check", "--root", str(tmp_path)]) == 1
    assert "stale" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert generator.main(["--write", "--root", str(tmp_path)]) == 0
    assert generator.main(["--check", "--root", str(tmp_path)]) == 0


class Inner(SpecModel):
    """An inner part."""

    mode: Annotated[str | None, Field(max_length=5, examples=["fast"])] = None
    """How. Absent: slowly."""

    rules = (Rule("has(self.mode)", "mode is needed", lambda self: self.mode is not None, field=".mode"),)


class Spec(SpecModel):
    """A spec."""

    count: Annotated[int, Field(ge=0, le=9, examples=[3])] = 2
    """Pieces."""
    inner: Annotated[Inner | None, Frozen("Thing")] = None
    """Said where it is used."""
    names: Annotated[tuple[str, ...], Field(max_length=3), Unique()] = ()
    """Names."""
    plain: Annotated[tuple[str, ...], Field(max_length=3)] = ()
    """Words."""
    numbers: dict[str, float] = Field(default_factory=dict)
    """Numbers."""


class Thing(Model):
    """A thing."""

    api_version: str = ""
    kind: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)
    spec: Spec
    """The wish."""


@pytest.fixture
def spec():
    return structural_schema(Thing)["properties"]["spec"]["properties"]


def test_default_and_example_go_into_the_description(spec):
    assert spec["count"] == {
        "description": "Pieces. Default: 2. Example: 3.",
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "maximum": 9,
    }


def test_an_optional_part_is_inlined_with_its_rules_and_the_fields_own_description(spec):
    assert spec["inner"] == {
        "description": "Said where it is used.",
        "type": "object",
        "properties": {
            "mode": {"description": "How. Absent: slowly. Example: fast.", "type": "string", "maxLength": 5}
        },
        "x-kubernetes-validations": [
            {"rule": "has(self.mode)", "message": "mode is needed", "fieldPath": ".mode"},
            {
                "rule": "self == oldSelf",
                "message": "inner cannot be changed once the Thing exists: make a new one",
            },
        ],
    }


def test_lists_say_how_they_merge(spec):
    assert spec["names"]["x-kubernetes-list-type"] == "set"
    assert spec["plain"]["x-kubernetes-list-type"] == "atomic"


def test_a_mapping_keeps_the_schema_of_its_values(spec):
    assert spec["numbers"]["additionalProperties"] == {"type": "number"}
