"""Lists, descriptions and stories for programs. What `-o json` prints is stable.

`list -o json` prints `{"apiVersion": "v1", "kind": "List", "items": [...]}` of the API server's own objects,
TrainingJobs first: what works on `kubectl get -o json` works on it. `describe -o json` prints kind, name, namespace,
state, reason, message, object, pods and events. `explain -o json` prints the fields of `sdk.Story`, `queue -o json`
those of each `sdk.QueueStanding` as `{"queues": [...]}` in the order of the tree, `queue NAME -o json` those of
`sdk.QueueLine`: all in camelCase, with null for what is not known. `predict --json` prints model, digest and results:
`[{input, classes: [{label, score}]}]`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from datahall.cli.options import Output

if TYPE_CHECKING:
    from datahall.sdk import Description


def encoded(value: Any, output: Output) -> str:
    """JSON or YAML, without a line end."""
    if output is Output.YAML:
        import yaml

        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip("\n")
    return json.dumps(value, indent=2, ensure_ascii=False)


def document(value: Any) -> Any:
    """A typed value of the SDK as JSON has it: fields in camelCase, parts of the API as the API server has them."""
    from pydantic.alias_generators import to_camel

    from datahall.api.common import Model

    if isinstance(value, Model):
        return value.to_json()
    if is_dataclass(value):
        return {to_camel(each.name): document(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [document(each) for each in value]
    return str(value) if isinstance(value, str) else value


def object_list(objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The objects as one List, without the bookkeeping that nobody reads."""
    return {"apiVersion": "v1", "kind": "List", "items": [without_bookkeeping(each) for each in objects]}


def without_bookkeeping(body: dict[str, Any]) -> dict[str, Any]:
    """The object without managedFields."""
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key != "managedFields"}
    return {"apiVersion": body.get("apiVersion"), "kind": body.get("kind"), **body, "metadata": metadata}


def object_name(body: dict[str, Any]) -> str:
    """`trainingjob/digits`."""
    return f"{body['kind'].lower()}/{body['metadata']['name']}"


def description(described: Description) -> dict[str, Any]:
    """A description for programs."""
    return {
        "kind": described.kind,
        "name": described.name,
        "namespace": described.namespace,
        "state": described.state,
        "reason": described.reason,
        "message": described.message,
        "object": without_bookkeeping(described.body),
        "pods": [asdict(pod) for pod in described.pods],
        "events": [asdict(event) for event in described.events],
    }
