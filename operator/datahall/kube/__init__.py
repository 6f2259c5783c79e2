"""A thin asynchronous Kubernetes client: raw JSON in, raw JSON out, our own small error hierarchy.

Typed client models cost half the CPU of an operator at a few thousand objects, so objects stay dictionaries here and
are projected where they are used. The official client contributes what is hard to get right: kubeconfig, exec
plug-ins and in-cluster login (`kubernetes.aio.config`).
"""

from datahall.kube.client import KubeClient, WatchEvent
from datahall.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeConfigError,
    KubeError,
    NotFoundError,
    ResourceExpiredError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
)
from datahall.kube.resources import Resource

__all__ = [
    "AlreadyExistsError",
    "ConflictError",
    "ForbiddenError",
    "InvalidError",
    "KubeClient",
    "KubeConfigError",
    "KubeError",
    "NotFoundError",
    "Resource",
    "ResourceExpiredError",
    "TooManyRequestsError",
    "UnauthorizedError",
    "UnavailableError",
    "WatchEvent",
]
