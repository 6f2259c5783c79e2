"""The kinds that Datahall reads or writes, and where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object.

    Attributes:
        group: API group, "" for the core group.
        version: API version.
        kind: CamelCase kind.
        plural: lower-case plural, the segment of the URL.
        namespaced: whether objects live in a namespace.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or `version` for the core group: the `apiVersion` of an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, *, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The URL path of one object, or of a list where `name` is None (all namespaces where `namespace` is)."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


GROUP = "datahall.dev"

TRAINING_JOBS = Resource(GROUP, "v1alpha1", "TrainingJob", "trainingjobs")
INFERENCE_SERVICES = Resource(GROUP, "v1alpha1", "InferenceService", "inferenceservices")
QUEUES = Resource(GROUP, "v1alpha1", "Queue", "queues", namespaced=False)
POWER_DOMAINS = Resource(GROUP, "v1alpha1", "PowerDomain", "powerdomains", namespaced=False)

PODS = Resource("", "v1", "Pod", "pods")
NODES = Resource("", "v1", "Node", "nodes", namespaced=False)
SERVICES = Resource("", "v1", "Service", "services")
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", namespaced=False)
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments")
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
EVENTS = Resource("events.k8s.io", "v1", "Event", "events")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False)
