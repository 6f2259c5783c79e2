"""A roll-out in a queue whose quota is all in use: the new replica takes over the quota of the one that it replaces.

A new replica is to answer before an old one goes, so for a while a service has one replica too many. Where the queue
has quota for it, that is charged. Where not, the roll-out would wait for ever on what its own replicas hold, or end
somebody's training for a minute's need. So one replica per service may start beside its queue: the planner judges its
room like anybody's, and its queue is charged for it as soon as an old replica has gone. Room in the hall is another
matter: without it the old ones keep answering, and the status says what is missing.

To the planner this is a queue of its own with exactly those GPUs, borrowed from a parent that has nothing else: what
only borrows never has others ended for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from datahall.control import labels
from datahall.control.serving import gate
from datahall.control.serving.gate import Standing, standing
from datahall.control.views import PodView
from datahall.planning import Limits, QueueState

TEMPLATE_HASH = "pod-template-hash"
"""Label by which a Deployment tells the pods of one version from those of another."""

PREFIX = "datahall.dev/roll-outs"
"""No Queue can have a name like this: a slash is not allowed in names."""


def predecessors(pod: PodView, siblings: Iterable[PodView]) -> list[PodView]:
    """The replicas that go when a new one answers, or are going: older ones of another version, on their nodes.

    Args:
        pod: a new replica with GPUs.
        siblings: the pods of its service.
    """
    version = pod.labels.get(TEMPLATE_HASH)
    if not version or not pod.gpus:
        return []
    return sorted(
        (
            old
            for old in siblings
            if old.labels.get(TEMPLATE_HASH, version) != version
            and old.labels.get(labels.QUEUE) == pod.labels.get(labels.QUEUE)
            and old.bound
            and standing(old) is Standing.HOLDS
            and old.created_at <= pod.created_at
            and old.gpus >= pod.gpus
        ),
        key=lambda old: (old.created_at, old.name),
    )


def may_have(pod: PodView, model: str) -> bool:
    """Whether a gated pod may run on a GPU model."""
    models = gate.gpu_models(pod)
    return not models or model in models


def queues(namespace: str, service: str, *, model: str, gpus: int) -> tuple[QueueState, QueueState]:
    """The queue of a service's one replica too many, and the parent that it borrows from: the parent first.

    Args:
        namespace: the service's namespace.
        service: the service's name.
        model: GPU model of the replica that goes.
        gpus: GPUs of one replica.
    """
    name = f"{PREFIX}/{namespace}/{service}"
    parent = QueueState(name=f"{name}/of", gpus={model: Limits(gpus)})
    return parent, QueueState(name=name, gpus={model: Limits(0)}, parent=parent.name)
