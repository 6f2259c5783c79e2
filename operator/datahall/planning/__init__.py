"""Planning: what starts where, decided over arrays. Pure: no I/O, no clock, no Kubernetes.

`Planner` is the whole interface; `types` are its words. Inside, one room per question:

* what there is: `state` (nodes as arrays), `topology`, `power_tree`, `power_shape`, together `hall`; who holds what:
  `holdings`; all of it: `books`
* who waits: `waiting`, `shape`; whose turn it is and within which quota: `queues`
* one pass of decisions: `cycle`; may it start, and where: `judging`, `within_quota`, `fitting`, `placing`, `packing`
* for whom room is kept: `backfill`, `holds`, `promises`; who ends for whom: `preempting`, `preemption`,
  `watts_preemption`, `candidates`, `victims`; who moves, grows or shrinks: `moving`, `growing`, `shrinking`
* what people are told: `messages`, `placing_messages`, `power_messages`, `reports`
"""

from datahall.planning.planner import Planner
from datahall.planning.power_shape import PowerDomainSpec
from datahall.planning.power_tree import PowerReport
from datahall.planning.types import (
    ANY_MODEL,
    IN_LINE,
    Admit,
    Blocker,
    Decision,
    Evict,
    EvictCause,
    GangProgress,
    GangRequest,
    Level,
    Limits,
    NodeState,
    Placement,
    PodUsage,
    QueueCounts,
    QueueEntry,
    QueueReport,
    QueueState,
    QueueUse,
    Wait,
    WaitReason,
)

__all__ = [
    "ANY_MODEL",
    "IN_LINE",
    "Admit",
    "Blocker",
    "Decision",
    "Evict",
    "EvictCause",
    "GangProgress",
    "GangRequest",
    "Level",
    "Limits",
    "NodeState",
    "Placement",
    "Planner",
    "PodUsage",
    "PowerDomainSpec",
    "PowerReport",
    "QueueCounts",
    "QueueEntry",
    "QueueReport",
    "QueueState",
    "QueueUse",
    "Wait",
    "WaitReason",
]
