"""What the kinds share: base models, rules that Python and the API server both enforce, field types, small parts.

A field's docstring is its description in `kubectl explain`; the schema generator adds the default and the example
from the field itself, so that the two cannot disagree. Defaults are applied when an object is parsed here and are
never written to a spec.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from .quantities import cpu_milli, memory_bytes


class Rule(NamedTuple):
    """A rule between fields, written twice (CEL for the API server, Python for us) under one message.

    A transition rule compares with the stored object, which only the API server has: it has no `check`.
    """

    cel: str
    message: str
    check: Callable[[Any], bool] | None = None
    field: str | None = None
    """The field to blame, as a JSON path below the object that carries the rule (".queue"), if it is one field."""


class Model(BaseModel):
    """Every part of every kind: immutable, camelCase outside, snake_case inside."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        extra="ignore",
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        """What the API server does with a null: it drops the field."""
        if isinstance(value, dict) and None in value.values():
            return {key: field for key, field in value.items() if field is not None}
        return value

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if rule.check is not None and not rule.check(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema_of_core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Carry the rules into the schema, next to the fields they speak of."""
        schema = handler.resolve_ref_schema(handler(schema_of_core))
        if cls.rules:
            schema["x-kubernetes-validations"] = [
                {"rule": rule.cel, "message": rule.message}
                | ({"fieldPath": rule.field} if rule.field else {})
                for rule in cls.rules
            ]
        return schema

    def to_json(self) -> dict[str, Any]:
        """The object as the API server takes it: camelCase, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class SpecModel(Model):
    """A part of a spec: a field that we do not know is a mistake, and is refused."""

    model_config = ConfigDict(extra="forbid")


class StatusModel(Model):
    """A status. The operator is its one writer, so it is owned whole.

    With an owner for each field in it, as the API server keeps them otherwise, a third of a stored object is such
    accounts, which are compared at every write.
    """

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})


# The API server does not turn "5" into 5 nor 1 into true; neither may we, or an object that we accept is refused there.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]
Bool = Annotated[bool, Strict()]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
"""A DNS-1123 label: the name of a Queue, a namespace or a TrainingJob."""

GPUModel = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=63)
]
"""A GPU model as the node's label says it: a label value."""


def _text(pattern: str, max_length: int, message: str) -> tuple[Any, ...]:
    """Constraints on a string whose pattern alone would be a poor answer to a person: both sides say `message`."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(message)
        return value

    rule = {"rule": f"self.matches(r'{pattern}')", "message": message}
    schema = {"type": "string", "maxLength": max_length, "x-kubernetes-validations": [rule]}
    return (StringConstraints(max_length=max_length), AfterValidator(check), WithJsonSchema(schema))


URI = Annotated[
    str,
    *_text(
        # A path segment starts with no dot, or with dots and then something else: "." and ".." never stand alone.
        r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/(\.{0,2}[A-Za-z0-9_@+=,:-]|\.{3})[A-Za-z0-9_.@+=,:-]*)+/?$",
        1024,
        "must be pvc://CLAIM/PATH: a PersistentVolumeClaim of this namespace and a path in it, without '.' or '..'",
    ),
]
"""`pvc://CLAIM/PATH`: PATH inside a PersistentVolumeClaim of the object's namespace."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
"""The digest of a model: SHA-256 of its manifest."""

PositiveDecimal = Annotated[
    str,
    *_text(
        r"^([0-9]*[1-9][0-9]*(\.[0-9]+)?|[0-9]+\.[0-9]*[1-9][0-9]*)([eE][+-]?[0-9]{1,2})?$",
        32,
        'must be a decimal above 0 in quotes, such as "0.001" or "1e-3"',
    ),
]
"""A decimal above zero, as a string: floats do not survive every YAML and JSON tool unchanged."""

Decimal = Annotated[
    str,
    *_text(
        r"^[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?$",
        32,
        'must be a decimal of 0 or more in quotes, such as "0.01" or "1e-2"',
    ),
]
"""A decimal of zero or more, as a string."""

Time = Annotated[
    str, StringConstraints(max_length=64), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""An instant in RFC 3339, UTC: `2026-11-22T15:00:00Z`. This package has no clock: it only carries them."""


@dataclass(frozen=True)
class Unique:
    """A list without repetition, which server-side apply merges item by item: a set, or a map if a field is the key."""

    key: str | None = None

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuse what the API server calls a duplicate value."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Tell the API server."""
        list_type = (
            {"x-kubernetes-list-type": "set"}
            if self.key is None
            else {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}
        )
        return handler(schema) | list_type

    def _check(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        seen = set()
        for item in items:
            key = item if self.key is None else getattr(item, self.key)
            if key in seen:
                raise ValueError(f"{key} is listed twice")
            seen.add(key)
        return items


def _integer_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _quantity_schema(pattern: str, largest: int) -> dict[str, Any]:
    return {
        "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": pattern,
        "maxLength": 24,
        "minimum": 1,
        "maximum": largest,
    }


_CPU = r"^([1-9][0-9]{0,5}(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|[1-9][0-9]{0,8}m)$"
_MEMORY = r"^([1-9][0-9]{0,14}(\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9])(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

CPUQuantity = Annotated[
    str,
    StringConstraints(pattern=_CPU, max_length=24),
    BeforeValidator(_integer_as_text),
    WithJsonSchema(_quantity_schema(_CPU, 999_999)),
]
"""Cores: an integer, a decimal, or thousandths with `m`."""

MemoryQuantity = Annotated[
    str,
    StringConstraints(pattern=_MEMORY, max_length=24),
    BeforeValidator(_integer_as_text),
    WithJsonSchema(_quantity_schema(_MEMORY, 999_999_999_999_999)),
]
"""Bytes, with a suffix such as `Mi` or `Gi` if wanted."""


class ObjectMeta(Model):
    """The part of an object's metadata that we read."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Resources(SpecModel):
    """What one pod asks for. GPUs and memory are limits as well; CPU is a floor: idle cores may be used beyond it."""

    gpus: Annotated[Int, Field(ge=0, le=16, examples=[1])] = 0
    """Whole GPUs, in pieces. 0 computes on the CPU."""
    gpu_models: Annotated[
        tuple[GPUModel, ...], Field(max_length=16, examples=[["H100", "A100"]]), Unique()
    ] = ()
    """GPU models that will do, as the nodes' GPU model label names them. Empty: any model."""
    cpu: Annotated[CPUQuantity, Field(examples=["4"])] = "1"
    """CPU cores, as a Kubernetes quantity."""
    memory: Annotated[MemoryQuantity, Field(examples=["16Gi"])] = "2Gi"
    """Memory in bytes, as a Kubernetes quantity."""

    rules = (
        Rule(
            "!has(self.gpuModels) || size(self.gpuModels) == 0 || (has(self.gpus) && self.gpus > 0)",
            "gpuModels needs gpus of at least 1",
            lambda self: not self.gpu_models or self.gpus > 0,
            field=".gpuModels",
        ),
        Rule(
            "!has(self.gpuModels) || !('Any' in self.gpuModels)",
            "gpuModels names models; leave it out for any model",
            lambda self: "Any" not in self.gpu_models,
            field=".gpuModels",
        ),
    )

    @property
    def cpu_milli(self) -> int:
        """Thousandths of a core."""
        return cpu_milli(self.cpu)

    @property
    def memory_bytes(self) -> int:
        """Bytes."""
        return memory_bytes(self.memory)


class Condition(Model):
    """One aspect of an object's state, as `metav1.Condition` lays it out."""

    type: Annotated[str, Field(min_length=1, max_length=63, examples=["Running"])]
    """Which aspect."""
    status: Annotated[str, Field(json_schema_extra={"enum": ["True", "False", "Unknown"]}, examples=["True"])]
    """Whether it holds: True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=63, examples=["GangRunning"])]
    """Why, in one word of the reason catalogue (docs/reference)."""
    message: Annotated[str, Field(max_length=4096, examples=["2 of 2 workers run"])] = ""
    """Why, in a sentence with numbers, for a person."""
    last_transition_time: Annotated[Time, Field(examples=["2026-11-22T15:00:00Z"])]
    """When `status` last changed (not the message), RFC 3339."""
    observed_generation: Annotated[int, Field(ge=0, examples=[1])] = 0
    """The metadata.generation that this speaks of."""


def tree_rules(kind: str, used: str) -> tuple[Rule, ...]:
    """Rules on a kind whose objects name one another as parents: a name that `spec.parent` can hold, and no own parent.

    Args:
        kind: the kind.
        used: what else the name is used for, at the end of the message.
    """
    return (
        Rule(
            "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",
            f"metadata.name of a {kind} must be at most 63 lower-case letters, digits and '-': {used}",
            lambda self: re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", self.metadata.name) is not None,
        ),
        Rule(
            "!has(self.spec.parent) || self.spec.parent != self.metadata.name",
            f"spec.parent must be another {kind}: leave it out for one at the top",
            lambda self: self.spec.parent != self.metadata.name,
            field=".spec.parent",
        ),
    )


def name_rules(kind: str) -> tuple[Rule, ...]:
    """Rules on the name of a kind whose children carry its name: those of a Service, with room for a suffix."""
    return (
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 48",
            f"metadata.name of a {kind} must be at most 48 lower-case letters, digits and '-', "
            "and start with a letter: Services and pods are named after it",
            lambda self: _is_service_name(self.metadata.name),
        ),
    )


def _is_service_name(name: str) -> bool:
    return (
        0 < len(name) <= 48
        and name.isascii()
        and name[0].isalpha()
        and name[-1] != "-"
        and all(letter.islower() or letter.isdigit() or letter == "-" for letter in name)
    )


@dataclass(frozen=True)
class Frozen:
    """Annotates a field of a spec that never changes once the object exists.

    The rule stands at the field and not at the spec, where the API server would go over all fields of the spec for each
    mention of one, and it does so at every write of a status. `neither_come_nor_go` has what the field cannot see.
    """

    kind: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Tell the API server."""
        return handler(schema) | {"x-datahall-frozen": self.kind}


def frozen_rule(name: str, kind: str) -> dict[str, Any]:
    """What `Frozen` is to the API server."""
    return {
        "rule": "self == oldSelf",
        "message": f"{name} cannot be changed once the {kind} exists: make a new one",
    }


def neither_come_nor_go(kind: str, *fields: str) -> Rule:
    """A transition rule on the parent of optional `fields` that are frozen: a default is a value as any other."""
    cel = " && ".join(f"has(self.{field}) == has(oldSelf.{field})" for field in fields)
    names = f"{', '.join(fields[:-1])} and {fields[-1]}"
    return Rule(cel, f"{names} cannot be added or removed once the {kind} exists: make a new one")
