"""A replica's scheduling gate: what the pod is to the planner, and the one write that lets it go to its node.

A Deployment makes the pods, so the node cannot be in them from the start as it is in a worker's. Each carries the gate
`datahall.dev/placement` instead: no scheduler looks at it before the planner has found it a node. Kubernetes then lets
required node affinity only be tightened, and gates only be removed; both happen in one write, so there is no moment
at which the pod is free and not pinned. All that is needed to know where a replica stands is in its pod.
"""

from __future__ import annotations

import datetime
from enum import Enum, auto
from typing import Any

from datahall.control import labels, times
from datahall.control.actions import Patch
from datahall.control.views import PodView
from datahall.kube.resources import PODS
from datahall.planning import GangRequest


class Standing(Enum):
    """What a replica's pod is to the planner."""

    WAITS = auto()
    """It is gated: it asks for a place."""

    HOLDS = auto()
    """It is bound, or its gate was lifted for a node: it has that place until it is gone."""

    NEITHER = auto()
    """It has ended, leaves without ever having had a place, or is not for us to place."""


def standing(pod: PodView) -> Standing:
    """What a replica's pod is to the planner."""
    if pod.finished:
        return Standing.NEITHER
    if labels.PLACEMENT_GATE in pod.gates:
        # While others gate it as well, room would be kept for a pod that cannot come.
        alone = len(pod.gates) == 1
        return Standing.WAITS if alone and pod.deleted_at is None else Standing.NEITHER
    # Without gate and node it was made by an earlier operator: the kube-scheduler finds it one.
    return Standing.HOLDS if pod.node and not pod.gates else Standing.NEITHER


def gang(
    pod: PodView, *, queue: str, priority: int = 0, avoid_nodes: frozenset[str] = frozenset()
) -> GangRequest:
    """The replica as a gang of one, which nobody may end for another.

    Args:
        pod: its pod.
        queue: the queue that pays for it.
        priority: the service's priority; higher goes first.
        avoid_nodes: nodes that refused replicas of the service a while ago.
    """
    return GangRequest(
        key=pod.uid,
        name=f"{pod.namespace}/{pod.name}",
        namespace=pod.namespace,
        queue=queue,
        priority=priority,
        created_seconds=times.from_text(pod.created_at).timestamp(),
        workers=1,
        gpus=pod.gpus,
        gpu_models=gpu_models(pod) if pod.gpus else (),
        cpu_milli=pod.cpu_milli,
        memory_bytes=pod.memory_bytes,
        avoid_nodes=avoid_nodes,
        preemptible=False,
        spread_with=f"{pod.namespace}/{pod.labels.get(labels.INFERENCE_SERVICE, '')}",
    )


def gpu_affinity(models: tuple[str, ...]) -> dict[str, Any]:
    """The affinity of a Deployment's pods that may only run on some GPU models, in order of preference."""
    term = {"matchExpressions": [{"key": labels.GPU_PRODUCT, "operator": "In", "values": list(models)}]}
    return {"nodeAffinity": _required([term])}


def gpu_models(pod: PodView) -> tuple[str, ...]:
    """The GPU models that a gated pod may run on, as `gpu_affinity` wrote them; none for any."""
    for term in pod.node_terms:
        for expression in term.get("matchExpressions") or ():
            if expression.get("key") == labels.GPU_PRODUCT and expression.get("operator") == "In":
                return tuple(expression.get("values") or ())
    return ()


def place(pod: PodView, node: str, now: datetime.datetime) -> Patch:
    """Pin a gated pod to its node and lift the gate, if the pod is still the one that was looked at.

    Whatever the pod requires of nodes already stays, and in its order: only what comes after it is an addition to the
    API server. Of several terms one has to hold, so each of them is tightened.
    """
    pin = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = [
        {**term, "matchFields": [*(term.get("matchFields") or ()), pin]} for term in pod.node_terms or ({},)
    ]
    gates = [{"name": name} for name in pod.gates if name != labels.PLACEMENT_GATE]
    body = {
        "metadata": {
            "resourceVersion": str(pod.version),
            "annotations": {labels.PLACED_AT: times.to_text(now)},
        },
        "spec": {"schedulingGates": gates or None, "affinity": {"nodeAffinity": _required(terms)}},
    }
    return Patch(PODS, pod.namespace, pod.name, pod.uid, body)


def _required(terms: list[dict[str, Any]]) -> dict[str, Any]:
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
