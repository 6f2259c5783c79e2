"""The words the planner speaks: what it is told, and what it answers.

Everything is a frozen value. Amounts are plain integers with the unit in the name: whole GPUs, CPU thousandths
(`cpu_milli`), bytes. Points in time are seconds since the epoch and always come from the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

ANY_MODEL = "Any"
"""The quota entry that covers every GPU model without an entry of its own."""


class WaitReason(StrEnum):
    """Why a gang waits, in the words of a condition's reason."""

    QUEUE_NOT_FOUND = "QueueNotFound"
    """There is no queue of that name."""
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    """The queue exists, and does not serve the gang's namespace."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The queue's quota is in use; it starts when running work of the queue ends."""
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    """The queue has quota, and the hall has too few free GPUs in the right places."""
    INSUFFICIENT_RESOURCES = "InsufficientResources"
    """GPUs are there (or none are needed); CPU or memory beside them is not."""
    NEVER_FITS = "NeverFits"
    """Not even an empty hall would hold it as things stand."""
    QUOTA_TOO_SMALL = "QuotaTooSmall"
    """The whole quota of the queue is less than it needs."""
    BEHIND_OTHERS = "BehindOthers"
    """It would fit, and what it would take is kept for a gang ahead of it."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """What one node can give to pods.

    Attributes:
        name: The node's name, unique in the cluster.
        gpu_model: Model of its GPUs, such as "H100"; "" for a node without GPUs. GPUs without a known model are
            legal: only gangs that name no model get them.
        gpus: Allocatable whole GPUs.
        cpu_milli: Allocatable CPU, in thousandths of a core.
        memory_bytes: Allocatable memory, in bytes.
        rack: The rack it stands in, if known.
        block: The block (network island) of that rack, if known.
        schedulable: False when cordoned or not ready: nothing new is placed there, what runs there still counts.
    """

    name: str
    gpu_model: str
    gpus: int
    cpu_milli: int
    memory_bytes: int
    rack: str | None = None
    block: str | None = None
    schedulable: bool = True


@dataclass(frozen=True, slots=True)
class PodUsage:
    """A pod outside every held gang: a foreign pod, a daemon, or a replica of an inference service.

    Attributes:
        uid: The pod's UID.
        node: The node it is bound to; "" while it has none (it then only counts against its queue).
        gpus: Whole GPUs it requests.
        cpu_milli: CPU it requests, in thousandths of a core.
        memory_bytes: Memory it requests, in bytes.
        queue: The queue whose quota it counts against; None for pods that are not ours.
    """

    uid: str
    node: str
    gpus: int
    cpu_milli: int
    memory_bytes: int
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue: how many GPUs its gangs and replicas may hold together, and who may use it.

    Attributes:
        name: The queue's name.
        nominal: GPUs per model. The entry "Any" covers each model without an entry of its own, all of them together.
            A model without an entry, in a queue without "Any", has no quota.
        namespaces: Namespaces that may use the queue; empty means every namespace.
    """

    name: str
    nominal: Mapping[str, int]
    namespaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class GangRequest:
    """A gang: `workers` equal pods that start together or not at all.

    Attributes:
        key: Identity of the gang for the caller, never shown to people.
        name: "namespace/name", for messages.
        namespace: Namespace of the job.
        queue: The queue it asks for GPUs.
        priority: Higher goes first.
        created_seconds: When it was created, seconds since the epoch; older goes first within a priority.
        workers: How many pods.
        gpus: Whole GPUs per worker; 0 is legal.
        gpu_models: Models it may run on, in order of preference; empty means any. All workers of a gang get the same
            model. Without meaning when `gpus` is 0.
        cpu_milli: CPU per worker, in thousandths of a core.
        memory_bytes: Memory per worker, in bytes.
        avoid_nodes: Nodes it must not be placed on, such as those where its last start failed.
    """

    key: str
    name: str
    namespace: str
    queue: str
    priority: int
    created_seconds: float
    workers: int
    gpus: int
    gpu_models: tuple[str, ...]
    cpu_milli: int
    memory_bytes: int
    avoid_nodes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one worker runs.

    Attributes:
        rank: The worker's rank, from 0.
        node: The node's name.
        gpu_model: Model of the GPUs it gets there, which is what its queue is charged for; "" with no GPUs.
    """

    rank: int
    node: str
    gpu_model: str


@dataclass(frozen=True, slots=True)
class Admit:
    """Decision: start this gang now. It is held from here on, until it is withdrawn or requeued.

    Attributes:
        key: The gang's key.
        placements: One for each worker, by rank.
    """

    key: str
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Decision: this gang waits.

    Attributes:
        key: The gang's key.
        reason: Why, for a program.
        message: Why, for a person, with numbers. They move as others come and go: compare `reason` to find out
            whether something really changed.
        position: Place among the waiting gangs of its queue; 1 is next.
    """

    key: str
    reason: WaitReason
    message: str
    position: int


Decision = Admit | Wait


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many gangs of a queue wait and how many are held.

    Attributes:
        waiting: Gangs that wait.
        held: Gangs that hold their place.
    """

    waiting: int
    held: int
