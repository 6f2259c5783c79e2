"""The three kinds that people touch: their names, their typed models, and how an object becomes typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from datahall.api.inferenceservice import InferenceService
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.kube.resources import INFERENCE_SERVICES, QUEUES, TRAINING_JOBS, Resource
from datahall.sdk.errors import MisuseError, UnreadableError

Json = dict[str, Any]
Typed = TrainingJob | InferenceService | Queue
Workload = TrainingJob | InferenceService
"""What runs pods, and so has logs, a state to wait for, and failures."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind.

    Attributes:
        resource: where the API server keeps it.
        model: its pydantic model.
        short_name: what `kubectl get` and the CLI call it.
    """

    resource: Resource
    model: type[TrainingJob] | type[InferenceService] | type[Queue]
    short_name: str

    @property
    def name(self) -> str:
        """CamelCase, as in a manifest."""
        return self.resource.kind


TRAINING_JOB = Kind(TRAINING_JOBS, TrainingJob, "tj")
INFERENCE_SERVICE = Kind(INFERENCE_SERVICES, InferenceService, "infs")
QUEUE = Kind(QUEUES, Queue, "queue")
KINDS = (TRAINING_JOB, INFERENCE_SERVICE, QUEUE)

_BY_ALIAS = {
    alias: kind
    for kind in KINDS
    for alias in (
        kind.short_name,
        kind.name.lower(),
        kind.resource.plural,
        f"{kind.resource.plural}.datahall.dev",
    )
}


def kind_of(alias: str) -> Kind:
    """The kind that a person means: `tj`, `trainingjob`, `TrainingJob`, `trainingjobs`, ...

    Raises:
        MisuseError: no such kind.
    """
    kind = _BY_ALIAS.get(alias.lower())
    if kind is None:
        known = ", ".join(f"{kind.name} ({kind.short_name})" for kind in KINDS)
        raise MisuseError(f"there is no kind {alias!r}; there are {known}")
    return kind


def typed(kind: Kind, body: Json) -> Typed:
    """The object as a pydantic model.

    A field that a newer operator knows and this SDK does not is left out, so that an old client still reads.

    Raises:
        UnreadableError: it does not fit the model otherwise.
    """
    body = {**body, "apiVersion": kind.resource.api_version, "kind": kind.name}
    try:
        return kind.model.from_json(body)
    except ValidationError as error:
        unknown = [problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"]
        if not unknown:
            raise _unreadable(kind, body, error) from error
    try:
        return kind.model.from_json(_without(body, unknown))
    except ValidationError as error:
        raise _unreadable(kind, body, error) from error


def _unreadable(kind: Kind, body: Json, error: ValidationError) -> UnreadableError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the object"
    name = body.get("metadata", {}).get("name", "")
    return UnreadableError(
        f"this version of datahall cannot read {kind.name} {name}: {where}: {first['msg']}; "
        "is it older than the operator?"
    )


def _without(body: Any, locations: list[tuple[int | str, ...]], path: tuple[int | str, ...] = ()) -> Any:
    if isinstance(body, dict):
        return {
            key: _without(value, locations, (*path, key))
            for key, value in body.items()
            if (*path, key) not in locations
        }
    if isinstance(body, list):
        return [_without(value, locations, (*path, index)) for index, value in enumerate(body)]
    return body
