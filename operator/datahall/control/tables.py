"""The store, whole: one table per kind that the operator watches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datahall.control import labels
from datahall.control.child_views import ChildView, DeploymentView, child_view, deployment_view
from datahall.control.sources import Source
from datahall.control.storage_views import ClaimView, StorageClassView, claim_view, storage_class_view
from datahall.control.store import ObjectName, Table
from datahall.control.views import (
    JobView,
    NodeView,
    PodView,
    PowerDomainView,
    QueueView,
    ServiceView,
    job_view,
    node_view,
    pod_view,
    power_domain_view,
    queue_view,
    service_view,
)
from datahall.kube import Resource, resources

SERVED = labels.INFERENCE_SERVICE
"""Label selector of what belongs to an InferenceService."""

OURS = f"{labels.MANAGED_BY}=datahall"
"""Label selector of what we have made: the Services of InferenceServices and those of gangs."""


def pods_of_job(namespace: str, name: str) -> ObjectName:
    """Group key of a job's worker pods."""
    return namespace, f"job/{name}"


def pods_of_service(namespace: str, name: str) -> ObjectName:
    """Group key of a service's replica pods."""
    return namespace, f"service/{name}"


def _pod_group(pod: PodView) -> ObjectName | None:
    if job := pod.labels.get(labels.TRAINING_JOB):
        return pods_of_job(pod.namespace, job)
    if service := pod.labels.get(labels.INFERENCE_SERVICE):
        return pods_of_service(pod.namespace, service)
    return None


@dataclass(slots=True)
class Tables:
    """Everything that the operator knows of the cluster."""

    jobs: Table[JobView] = field(default_factory=lambda: Table(job_view))
    services: Table[ServiceView] = field(default_factory=lambda: Table(service_view))
    queues: Table[QueueView] = field(default_factory=lambda: Table(queue_view))
    power_domains: Table[PowerDomainView] = field(default_factory=lambda: Table(power_domain_view))
    pods: Table[PodView] = field(default_factory=lambda: Table(pod_view, group_by=_pod_group))
    nodes: Table[NodeView] = field(default_factory=lambda: Table(node_view))
    claims: Table[ClaimView] = field(default_factory=lambda: Table(claim_view))
    storage_classes: Table[StorageClassView] = field(default_factory=lambda: Table(storage_class_view))
    deployments: Table[DeploymentView] = field(default_factory=lambda: Table(deployment_view))
    endpoints: Table[ChildView] = field(default_factory=lambda: Table(child_view))
    budgets: Table[ChildView] = field(default_factory=lambda: Table(child_view))
    _of: dict[Resource, Table[Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Know the table of each kind."""
        self._of = {source.resource: source.table for source in (*self.by_kopf(), *self.by_reflector())}

    def by_kopf(self) -> tuple[Source, ...]:
        """Our own kinds of which there are few, changed by people."""
        return (
            Source(resources.POWER_DOMAINS, self.power_domains),
            Source(resources.QUEUES, self.queues),
            Source(resources.INFERENCE_SERVICES, self.services),
        )

    def by_reflector(self) -> tuple[Source, ...]:
        """The other kinds, in the order in which they are listed: what things are placed on before what is placed."""
        return (
            Source(resources.NODES, self.nodes),
            Source(resources.STORAGE_CLASSES, self.storage_classes),
            Source(resources.PERSISTENT_VOLUME_CLAIMS, self.claims),
            Source(resources.PODS, self.pods),
            Source(resources.DEPLOYMENTS, self.deployments, SERVED),
            Source(resources.SERVICES, self.endpoints, OURS),
            Source(resources.POD_DISRUPTION_BUDGETS, self.budgets, SERVED),
            Source(resources.TRAINING_JOBS, self.jobs),
        )

    def sizes(self) -> dict[str, int]:
        """Objects per kind."""
        return {
            source.resource.plural: len(source.table) for source in (*self.by_kopf(), *self.by_reflector())
        }

    def saw(self, resource: Resource, raw: dict[str, Any]) -> None:
        """Take in the answer to one of our own writes."""
        table = self._of.get(resource)
        if table is not None:
            table.put(raw)

    def gone(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """One of our own deletes has gone through."""
        table = self._of.get(resource)
        if table is not None:
            table.remove(namespace, name, uid)
