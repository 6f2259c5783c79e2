"""Planning: what starts where, decided over arrays. Pure: no I/O, no clock, no Kubernetes.

`Planner` is the whole interface; `types` are its words. It is made of `cycle`, `ordering`, `quota`, `state`,
`transaction` and `packing.best_fit`.

The rest is built and tested, and the planner does not use it yet: `packing` (which node and GPU), `topology` and
`placing` (racks and blocks), `backfill` (reservations), `queues` (the quota tree and fairness), `preemption` (whom to
end), `power_tree` (watts as a resource of admission).
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
