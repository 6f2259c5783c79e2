"""What the operator keeps of the Services, Deployments and PodDisruptionBudgets that it made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datahall.control.views import Meta, meta_of, owner_uid


@dataclass(frozen=True, slots=True)
class ChildView(Meta):
    """A Service or PodDisruptionBudget of ours.

    Attributes:
        spec_hash: our hash of what was applied.
        labels: its labels.
        owner_uid: the uid of the object that it belongs to, "" without one.
    """

    spec_hash: str
    labels: dict[str, str]
    owner_uid: str


def child_view(raw: dict[str, Any]) -> ChildView:
    """Project a Service or PodDisruptionBudget of ours."""
    metadata = raw["metadata"]
    spec_hash = (metadata.get("annotations") or {}).get(SPEC_HASH, "")
    return ChildView(
        *meta_of(raw),
        spec_hash=spec_hash,
        labels=metadata.get("labels") or {},
        owner_uid=owner_uid(metadata),
    )


@dataclass(frozen=True, slots=True)
class DeploymentView(Meta):
    """A Deployment of ours.

    Attributes:
        generation: metadata.generation.
        observed_generation: what its controller has seen.
        spec_hash: our hash of what was applied, from its annotation.
        replicas: pods that exist.
        updated: pods of the newest template.
        ready: pods that are Ready.
        available: pods that are available.
    """

    generation: int
    observed_generation: int
    spec_hash: str
    replicas: int
    updated: int
    ready: int
    available: int
    wanted: int
    labels: dict[str, str] = field(default_factory=dict)


SPEC_HASH = "datahall.dev/applied"
"""Annotation with a hash of what was applied: unchanged means there is nothing to write."""


def deployment_view(raw: dict[str, Any]) -> DeploymentView:
    """Project a Deployment."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    return DeploymentView(
        *meta_of(raw),
        generation=int(metadata.get("generation") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        spec_hash=(metadata.get("annotations") or {}).get(SPEC_HASH, ""),
        replicas=int(status.get("replicas") or 0),
        updated=int(status.get("updatedReplicas") or 0),
        ready=int(status.get("readyReplicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        wanted=int(spec.get("replicas") or 0),
        labels=metadata.get("labels") or {},
    )
