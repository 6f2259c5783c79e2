"""What the operator keeps of PersistentVolumeClaims and StorageClasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datahall.control.views import Meta, meta_of


@dataclass(frozen=True, slots=True)
class ClaimView(Meta):
    """A PersistentVolumeClaim.

    Attributes:
        phase: Pending, Bound or Lost.
        storage_class: the class that it names, "" for none.
        volume: the volume that it names or is bound to, "" for none.
    """

    phase: str
    storage_class: str
    volume: str


CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
"""Where a claim named its class before there was a field; it still goes before the field."""


def claim_view(raw: dict[str, Any]) -> ClaimView:
    """Project a PersistentVolumeClaim."""
    spec, annotations = raw.get("spec") or {}, raw["metadata"].get("annotations") or {}
    return ClaimView(
        *meta_of(raw),
        phase=(raw.get("status") or {}).get("phase") or "Pending",
        storage_class=annotations.get(CLASS_ANNOTATION) or spec.get("storageClassName") or "",
        volume=spec.get("volumeName") or "",
    )


@dataclass(frozen=True, slots=True)
class StorageClassView(Meta):
    """A StorageClass.

    Attributes:
        waits_for_pod: whether claims of it are bound only when a pod that uses them is scheduled.
    """

    waits_for_pod: bool


def storage_class_view(raw: dict[str, Any]) -> StorageClassView:
    """Project a StorageClass."""
    return StorageClassView(
        *meta_of(raw), waits_for_pod=raw.get("volumeBindingMode") == "WaitForFirstConsumer"
    )
