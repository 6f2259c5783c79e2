"""The CustomResourceDefinitions, made from the models: `python -m datahall.api.crds --write`.

Writes `crds/` (for `kubectl apply -f crds/`) and the same as templates of the Helm chart. `--check` writes nothing
and fails if a file differs from what the models say.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from . import GROUP, VERSION
from .common import Model
from .inferenceservice import InferenceService
from .powerdomain import PowerDomain
from .queue import Queue
from .schema import structural_schema
from .trainingjob import TrainingJob


class Column(NamedTuple):
    """A column of `kubectl get`."""

    name: str
    type: str
    path: str
    description: str
    wide: bool = False

    def to_json(self) -> dict[str, Any]:
        """As the CustomResourceDefinition has it."""
        column = {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.path,
            "description": self.description,
        }
        return column | ({"priority": 1} if self.wide else {})


class Kind(NamedTuple):
    """What a CustomResourceDefinition says beside its schema."""

    model: type[Model]
    plural: str
    short_names: tuple[str, ...]
    scope: str
    columns: tuple[Column, ...]
    selectable_fields: tuple[str, ...] = ()
    scale: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """The kind."""
        return self.model.__name__


_AGE = Column("Age", "date", ".metadata.creationTimestamp", "Time since creation.")

KINDS = (
    Kind(
        TrainingJob,
        plural="trainingjobs",
        short_names=("tj",),
        scope="Namespaced",
        columns=(
            Column("State", "string", ".status.state", "One word for where the job stands."),
            Column("Queue", "string", ".spec.queue", "The queue that pays."),
            Column("Workers", "integer", ".status.workers", "Workers of the present generation."),
            Column("GPUs", "integer", ".status.effective.resources.gpus", "GPUs per worker."),
            Column("Percent", "integer", ".status.progress.percent", "Share of the steps done."),
            Column("ETA-s", "integer", ".status.progress.etaSeconds", "Seconds left at the present speed."),
            Column("Of", "integer", ".status.effective.workers.count", "Workers at full size.", wide=True),
            Column("Waits-For", "string", ".status.waiting.reason", "What it waits for most.", wide=True),
            Column("Restarts", "integer", ".status.restarts.counted", "Restarts that count.", wide=True),
            Column(
                "Preempted", "integer", ".status.preemptions", "Times it made room for another.", wide=True
            ),
            Column("Cause", "string", ".status.failure.cause", "Cause of the newest failure.", wide=True),
            _AGE,
        ),
        selectable_fields=(".spec.queue", ".status.state"),
    ),
    Kind(
        InferenceService,
        plural="inferenceservices",
        short_names=("infs",),
        scope="Namespaced",
        columns=(
            Column("State", "string", ".status.state", "One word for where the service stands."),
            Column("Queue", "string", ".spec.queue", "The queue that pays."),
            Column("Ready", "integer", ".status.readyReplicas", "Replicas that answer requests."),
            Column("Replicas", "integer", ".spec.replicas.min", "Replicas that are asked for."),
            Column("URL", "string", ".status.url", "Where requests go, inside the cluster.", wide=True),
            Column("From", "string", ".status.model.fromTrainingJob", "TrainingJob of the model.", wide=True),
            _AGE,
        ),
        selectable_fields=(".spec.queue", ".status.state"),
        scale={
            "specReplicasPath": ".spec.replicas.min",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    ),
    Kind(
        Queue,
        plural="queues",
        short_names=("dhq",),
        scope="Cluster",
        columns=(
            Column("Parent", "string", ".spec.parent", "The queue above it."),
            Column("Used", "string", ".status.summary", "GPUs held and of its own, per model."),
            Column("Watts", "integer", ".status.watts.reserved", "Watts reserved.", wide=True),
            Column("Share", "string", ".status.share", "Share beyond its own, by weight: least goes first."),
            Column("Admitted", "integer", ".status.admitted", "Jobs and services that hold their resources."),
            Column("Waiting", "integer", ".status.waiting", "Jobs and services that wait."),
            _AGE,
        ),
    ),
    Kind(
        PowerDomain,
        plural="powerdomains",
        short_names=("pd",),
        scope="Cluster",
        columns=(
            Column("State", "string", ".status.state", "One word for where it stands."),
            Column("Parent", "string", ".spec.parent", "The PowerDomain that feeds it."),
            Column("Watts", "integer", ".spec.watts", "The budget."),
            Column("Reserved", "integer", ".status.reservedWatts", "Watts reserved below it."),
            Column(
                "Available", "integer", ".status.availableWatts", "Watts left, by its budget and those above."
            ),
            Column("Nodes", "integer", ".status.nodes", "Nodes below it."),
            Column("Margin-%", "integer", ".spec.marginPercent", "Part of the budget left alone.", wide=True),
            _AGE,
        ),
    ),
)
"""Every kind, in the order of the documentation."""


def custom_resource_definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind, as the API server takes it."""
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [column.to_json() for column in kind.columns],
        "subresources": {"status": {}} | ({"scale": kind.scale} if kind.scale else {}),
        "schema": {"openAPIV3Schema": structural_schema(kind.model)},
    }
    if kind.selectable_fields:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable_fields]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": kind.scope,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": list(kind.short_names),
                "categories": ["datahall", "ml"],
            },
            "versions": [version],
        },
    }


_HEADER = "# Generated by python -m datahall.api.crds --write from operator/datahall/api: change it there.\n"


def manifest(kind: Kind) -> str:
    """`crds/PLURAL.yaml`."""
    body = yaml.safe_dump(custom_resource_definition(kind), sort_keys=False, width=110, allow_unicode=True)
    return f"{_HEADER}{body}"


def chart_template(kind: Kind) -> str:
    """The same as a template: installed if `crds.enabled`, kept on uninstall if `crds.keep`."""
    text = manifest(kind)
    assert "{{" not in text, "a description with braces would be taken for a template"
    name = f"  name: {kind.plural}.{GROUP}\n"
    keep = "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    return f"{{{{- if .Values.crds.enabled }}}}\n{text.replace(name, name + keep, 1)}{{{{- end }}}}\n"


def generated_files() -> dict[str, str]:
    """Path below the repository's root, and text, of everything that is generated here."""
    files = {f"crds/{kind.plural}.yaml": manifest(kind) for kind in KINDS}
    return files | {
        f"charts/datahall/templates/crds/{kind.plural}.yaml": chart_template(kind) for kind in KINDS
    }


def write_or_check(files: dict[str, str], argv: list[str] | None, *, command: str) -> int:
    """Write generated files, or compare them with what is there.

    Returns:
        The exit status: 1 if `--check` found a difference.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {command}")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[3], help="root of the repository")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="write the files")
    what.add_argument("--check", action="store_true", help="fail if a file differs (the default)")
    options = parser.parse_args(argv)
    stale = [
        path
        for path, text in files.items()
        if not (options.root / path).is_file() or (options.root / path).read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if options.write:
            (options.root / path).parent.mkdir(parents=True, exist_ok=True)
            (options.root / path).write_text(files[path], encoding="utf-8")
        sys.stderr.write(
            f"{path}: {'written' if options.write else f'stale, run python -m {command} --write'}\n"
        )
    return 1 if stale and not options.write else 0


def main(argv: list[str] | None = None) -> int:
    """Write or check `crds/` and the chart's copies."""
    return write_or_check(generated_files(), argv, command="datahall.api.crds")


if __name__ == "__main__":
    sys.exit(main())
