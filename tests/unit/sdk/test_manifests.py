"""Manifests: what is read, what is refused with which sentence, what is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from datahall.api.trainingjob import TrainingJob
from datahall.sdk import MisuseError, read_manifests
from datahall.sdk.kinds import kind_of
from datahall.sdk.manifests import parse_manifests, to_apply
from tests.unit.sdk import samples


def applied(manifest: object, namespace: str | None = None) -> samples.Json:
    return to_apply(manifest, namespace=namespace, default_namespace="home")[1]  # type: ignore[arg-type]


def test_only_what_the_user_wrote_is_sent() -> None:
    stored = samples.job(**samples.running())
    stored["metadata"] |= {"uid": "u", "resourceVersion": "5", "generation": 3, "labels": {"a": "b"}}
    stored["metadata"]["managedFields"] = [{}]
    body = applied(stored)
    assert body["metadata"] == {"name": "digits", "namespace": "team-a", "labels": {"a": "b"}}
    assert "status" not in body


def test_a_model_is_sent_without_its_defaults() -> None:
    manifest = samples.job()
    model = TrainingJob.from_json(manifest)
    body = applied(model)
    assert body["spec"] == manifest["spec"]
    assert body["kind"] == "TrainingJob"
    assert body["apiVersion"] == "datahall.dev/v1alpha1"


def test_namespaces() -> None:
    manifest = samples.job()
    assert applied(manifest, "team-a")["metadata"]["namespace"] == "team-a"
    with pytest.raises(MisuseError, match="says namespace team-a, the call says team-b"):
        applied(manifest, "team-b")
    del manifest["metadata"]["namespace"]
    assert applied(manifest)["metadata"]["namespace"] == "home"
    assert applied(manifest, "team-b")["metadata"]["namespace"] == "team-b"
    assert "namespace" not in applied(samples.queue(), "team-b")["metadata"]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all([samples.queue(), samples.job(), None]))
    assert [body["kind"] for body in read_manifests(path)] == ["Queue", "TrainingJob"]
    with pytest.raises(MisuseError, match="holds 2 objects"):
        applied(path)
    path.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": [samples.service()]}))
    assert applied(str(path))["kind"] == "InferenceService"
    with pytest.raises(MisuseError, match=r"none\.yaml: No such file"):
        read_manifests(tmp_path / "none.yaml")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MisuseError, match="not a text file"):
        read_manifests(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no object"),
        ("- 1", "not an object but list"),
        ("a: [", "while parsing"),
        ("kind: Pod\napiVersion: v1", "v1/Pod is not of Datahall; .* kubectl apply takes everything else"),
        ("kind: TrainingJob\napiVersion: datahall.dev/v9", "datahall.dev/v9/TrainingJob is not of Datahall"),
        ("kind: Queue\napiVersion: datahall.dev/v1alpha1", "metadata.name is missing"),
        ("kind: Queue\napiVersion: datahall.dev/v1alpha1\nmetadata: {name: 5}", "metadata.name is missing"),
    ],
)
def test_what_is_no_manifest(text: str, message: str) -> None:
    with pytest.raises(MisuseError, match=message) as caught:
        parse_manifests(text, source="standard input")
    assert str(caught.value).startswith("standard input")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "alias", ["tj", "TJ", "trainingjob", "TrainingJob", "trainingjobs", "trainingjobs.datahall.dev"]
)
def test_kind_aliases(alias: str) -> None:
    assert kind_of(alias).name == "TrainingJob"


def test_an_unknown_kind() -> None:
    with pytest.raises(MisuseError, match="there is no kind 'pod'"):
        kind_of("pod")
