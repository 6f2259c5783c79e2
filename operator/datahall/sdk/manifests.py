"""Manifests: a dictionary, a model, or a YAML or JSON file becomes what the API server is asked to apply."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from datahall.sdk.errors import MisuseError
from datahall.sdk.kinds import KINDS, Json, Kind, Typed

Manifest = Mapping[str, Any] | Typed | str | os.PathLike[str]
"""An object as a dictionary or a model, or the path of a file that holds exactly one."""

_WRITTEN_BY_THE_USER = ("name", "namespace", "labels", "annotations")


def read_manifests(path: str | os.PathLike[str]) -> list[Json]:
    """Every object of a YAML or JSON file.

    Raises:
        MisuseError: no such file, or it holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MisuseError(f"{os.fspath(path)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MisuseError(f"{os.fspath(path)}: not a text file") from error
    return parse_manifests(text, source=os.fspath(path))


def parse_manifests(text: str, *, source: str) -> list[Json]:
    """Every object of a YAML (or JSON) text; a `List` is taken apart.

    Args:
        text: the documents.
        source: what to call it in messages.

    Raises:
        MisuseError: not YAML, empty, or not objects of our kinds.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise MisuseError(f"{source}: {' '.join(str(error).split())}") from error
    objects: list[Json] = []
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "List":
            objects.extend(document.get("items") or [])
        else:
            objects.append(document)
    if not objects:
        raise MisuseError(f"{source}: holds no object")
    for number, body in enumerate(objects, start=1):
        _check(body, source if len(objects) == 1 else f"{source}, object {number}")
    return objects


def manifest_kind(body: Mapping[str, Any], *, source: str = "the manifest") -> Kind:
    """The kind of a manifest.

    Raises:
        MisuseError: not one of ours.
    """
    api_version, name = body.get("apiVersion"), body.get("kind")
    for kind in KINDS:
        if name == kind.name and api_version == kind.resource.api_version:
            return kind
    known = ", ".join(kind.name for kind in KINDS)
    raise MisuseError(
        f"{source}: {api_version}/{name} is not of Datahall; "
        f"datahall submits {known} of {KINDS[0].resource.api_version}, and kubectl apply takes everything else"
    )


def to_apply(manifest: Manifest, *, namespace: str | None, default_namespace: str) -> tuple[Kind, Json]:
    """The kind, and the body of the apply request: only what the user wrote, nothing that the server made.

    Args:
        manifest: what to submit.
        namespace: where the caller wants it; it must not contradict the manifest.
        default_namespace: where it goes if neither says.

    Raises:
        MisuseError: it is not one object of ours, or the namespaces contradict each other.
    """
    body = _body(manifest)
    kind = manifest_kind(body)
    metadata = {
        key: value for key, value in body["metadata"].items() if key in _WRITTEN_BY_THE_USER and value
    }
    if kind.resource.namespaced:
        written = metadata.get("namespace")
        if namespace is not None and written not in {None, namespace}:
            raise MisuseError(
                f"{kind.name} {metadata['name']} says namespace {written}, the call says {namespace}"
            )
        metadata["namespace"] = written or namespace or default_namespace
    else:
        metadata.pop("namespace", None)
    rest = {key: value for key, value in body.items() if key not in {"metadata", "status"}}
    return kind, {**rest, "metadata": metadata}


def _body(manifest: Manifest) -> Json:
    if isinstance(manifest, BaseModel):
        # What was not set stays out: defaults are the operator's business, and applying them would own them.
        written = manifest.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        return {**written, "apiVersion": manifest.api_version, "kind": manifest.kind}
    if isinstance(manifest, Mapping):
        body = dict(manifest)
        _check(body, "the manifest")
        return body
    bodies = read_manifests(manifest)
    if len(bodies) != 1:
        raise MisuseError(
            f"{os.fspath(manifest)}: holds {len(bodies)} objects; submit them one by one from read_manifests()"
        )
    return bodies[0]


def _check(body: Any, source: str) -> None:
    if not isinstance(body, dict):
        raise MisuseError(f"{source}: not an object but {type(body).__name__}")
    manifest_kind(body, source=source)
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise MisuseError(f"{source}: metadata.name is missing")
