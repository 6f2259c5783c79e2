"""Planning: what starts where, decided over arrays. Pure: no I/O, no clock, no Kubernetes.

`Planner` is the whole interface; `types` are its words.
"""

from datahall.planning.planner import Planner
from datahall.planning.types import (
    ANY_MODEL,
    Admit,
    Decision,
    GangRequest,
    NodeState,
    Placement,
    PodUsage,
    QueueCounts,
    QueueState,
    Wait,
    WaitReason,
)

__all__ = [
    "ANY_MODEL",
    "Admit",
    "Decision",
    "GangRequest",
    "NodeState",
    "Placement",
    "Planner",
    "PodUsage",
    "QueueCounts",
    "QueueState",
    "Wait",
    "WaitReason",
]
