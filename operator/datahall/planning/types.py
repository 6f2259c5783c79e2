"""The words the planner speaks: what it is told, and what it answers.

Everything is a frozen value. Amounts are plain integers with the unit in the name: GPUs, GPU thousandths (`gpu_milli`),
CPU thousandths (`cpu_milli`), bytes, watts. Points in time are seconds since the epoch and always come from the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

ANY_MODEL = "Any"
"""The quota entry that covers every GPU model without an entry of its own."""

WHOLE_GPU_MILLI = 1000
"""GPU thousandths of a whole GPU."""


class Level(IntEnum):
    """Levels of the hall's tree, tightest first."""

    HOST = 0
    RACK = 1
    BLOCK = 2
    HALL = 3


class WaitReason(StrEnum):
    """Why a gang waits, in the words of a condition's reason."""

    QUEUE_NOT_FOUND = "QueueNotFound"
    """There is no queue of that name."""
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    """The queue exists, and does not serve the gang's namespace."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The queue's quota, and what it may borrow, is in use."""
    BORROWED_AWAY = "BorrowedAway"
    """It is within the queue's own nominal quota, which others have borrowed."""
    QUOTA_TOO_SMALL = "QuotaTooSmall"
    """The whole quota of the queue, with all that it may borrow, is less than it needs."""
    POWER_BUDGET = "PowerBudget"
    """The watts of its queue, or of a power domain, are reserved."""
    ENERGY_BUDGET = "EnergyBudget"
    """The joules that its queue may spend in a day are spent."""
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    """The queue has quota, and the hall has too few free GPUs in the right places."""
    INSUFFICIENT_RESOURCES = "InsufficientResources"
    """GPUs are there (or none are needed); CPU or memory beside them is not."""
    NO_ONE_DOMAIN = "NoOneDomain"
    """There is room, and not in the one rack, block or host that is required."""
    NEVER_FITS = "NeverFits"
    """Not even an empty hall would hold it as things stand."""
    BEHIND_OTHERS = "BehindOthers"
    """Quota is there, and kept for a gang ahead of it."""
    RESERVED = "Reserved"
    """It would fit, and room is kept for a gang ahead of it."""
    MAKING_ROOM = "MakingRoom"
    """Others are ending for it; it starts when they have gone."""


IN_LINE = frozenset(
    {
        WaitReason.QUOTA_EXCEEDED,
        WaitReason.BORROWED_AWAY,
        WaitReason.POWER_BUDGET,
        WaitReason.ENERGY_BUDGET,
        WaitReason.INSUFFICIENT_GPUS,
        WaitReason.INSUFFICIENT_RESOURCES,
        WaitReason.NO_ONE_DOMAIN,
        WaitReason.BEHIND_OTHERS,
        WaitReason.RESERVED,
    }
)
"""Reasons of those who just wait for their turn. They change into each other at every start and end, as numbers do, so
such a change is no news: in a long line it would be thousands at each cycle."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a queue may hold of one resource.

    Attributes:
        nominal: Its own quota. Not lent for good: whoever borrowed it gives it back.
        borrowing_limit: The most it (with everything beneath it) may use beyond its quota; None for as much as there
            is, 0 for nothing.
        lending_limit: The most of its quota that others may use while it is idle; None for all of it.
    """

    nominal: int
    borrowing_limit: int | None = None
    lending_limit: int | None = None


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
        gpu_watts: The power cap of each of its GPUs, in watts; 0 where it is not known.
        power_domains: The power domains that claim it; the one below all others feeds it. () for none.
    """

    name: str
    gpu_model: str
    gpus: int
    cpu_milli: int
    memory_bytes: int
    rack: str | None = None
    block: str | None = None
    schedulable: bool = True
    gpu_watts: int = 0
    power_domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodUsage:
    """A pod outside every gang: a foreign pod or a daemon.

    Attributes:
        uid: The pod's UID.
        node: The node it is bound to.
        gpus: Whole GPUs it requests.
        cpu_milli: CPU it requests, in thousandths of a core.
        memory_bytes: Memory it requests, in bytes.
    """

    uid: str
    node: str
    gpus: int
    cpu_milli: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class QueueState:
    """A node of the quota tree: what its gangs may hold together, and who may use it.

    Attributes:
        name: The queue's name.
        gpus: Limits per GPU model, in whole GPUs. The entry "Any" covers each model without an entry of its own, all
            of them together. A model without an entry, in a queue without "Any", has only what is borrowed.
        parent: The queue it borrows from and lends to; "" for a root.
        weight: Its part of what is contended, relative to its siblings; greater than 0.
        watts: Limits of reserved watts; None for no limit.
        joules_per_day: Limits of joules spent in 24 hours; None for no limit.
        namespaces: Namespaces that may use the queue; empty means every namespace.
        minimum_run_seconds: How long a gang of the queue runs before it may be ended for another.
    """

    name: str
    gpus: Mapping[str, Limits] = field(default_factory=dict)
    parent: str = ""
    weight: float = 1.0
    watts: Limits | None = None
    joules_per_day: Limits | None = None
    namespaces: frozenset[str] = frozenset()
    minimum_run_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class GangRequest:
    """A gang: equal pods that start together or not at all. A replica of a service is a gang of one.

    Attributes:
        key: Identity of the gang for the caller, never shown to people.
        name: "namespace/name", for messages.
        namespace: Namespace of the job.
        queue: The queue it asks for GPUs.
        priority: Higher goes first.
        created_seconds: When it was created, seconds since the epoch; older goes first within a priority.
        workers: How many pods it starts with where they fit.
        gpus: GPUs per worker; 0 is legal.
        gpu_models: Models it may run on, in order of preference; empty means any. All workers of a gang get the same
            model. Without meaning when `gpus` is 0.
        cpu_milli: CPU per worker, in thousandths of a core.
        memory_bytes: Memory per worker, in bytes.
        min_workers: The fewest pods it starts with; None for all of them.
        gpu_milli: Thousandths of each GPU: 1000 for whole ones; less, with `gpus` of 1, for a share of one GPU.
        level: The level of the hall's tree of which one domain is asked for; None for anywhere.
        required: Whether more than one domain of that level will not do.
        avoid_nodes: Nodes it must not be placed on, such as those where its last start failed.
        preemptible: Whether it may be ended for another; False for replicas of a service.
        evictions: How often it was ended for others before.
        run_seconds: How long it will run once started, at most; None if nobody knows.
        spread_with: Gangs of one worker that name the same are spread: where it can be helped, no node holds more than
            half of them. For replicas of a service, which must not all go with one node. "" for none.
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
    min_workers: int | None = None
    gpu_milli: int = WHOLE_GPU_MILLI
    level: Level | None = None
    required: bool = False
    avoid_nodes: frozenset[str] = frozenset()
    preemptible: bool = True
    evictions: int = 0
    run_seconds: float | None = None
    spread_with: str = ""


@dataclass(frozen=True, slots=True)
class GangProgress:
    """How a held gang does. It changes all the time, and changes nothing that is held.

    Attributes:
        started_seconds: When it started, seconds since the epoch.
        saved_seconds: When what it would go on from was saved; None if nothing was yet.
        end_seconds: When it is expected to end, from its measured step rate; None if nobody knows.
        restart_seconds: What a restart takes.
    """

    started_seconds: float
    saved_seconds: float | None = None
    end_seconds: float | None = None
    restart_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one worker runs.

    Attributes:
        rank: The worker's rank, from 0.
        node: The node's name.
        gpu_model: Model of the GPUs it gets there, which is what its queue is charged for; "" with no GPUs.
        card: The shared GPU of the node that it gets a share of, by number; None for whole GPUs or none.
    """

    rank: int
    node: str
    gpu_model: str
    card: int | None = None


@dataclass(frozen=True, slots=True)
class Admit:
    """Decision: start this gang now. It is held from here on, until it is withdrawn or requeued.

    Attributes:
        key: The gang's key.
        placements: One for each worker, by rank.
        spread: How it is spread, for people, such as "on one rack".
    """

    key: str
    placements: tuple[Placement, ...]
    spread: str = ""


class EvictCause(StrEnum):
    """Why a gang is ended."""

    MADE_WAY = "MadeWay"
    """Another has the better right to the room; it waits in line again."""
    MOVED = "Moved"
    """It starts again at once at another place, which is held for it, so that another gang gets this one."""
    RESIZED = "Resized"
    """It starts again at once with more workers: room is held for them."""


@dataclass(frozen=True, slots=True)
class Evict:
    """Decision: end this gang. It saves first, and the caller tells when it is gone.

    Attributes:
        key: The gang to end.
        preemptor: Key of the gang that it makes room for; "" for none.
        message: What happens, for a person, with numbers.
        cause: Why.
    """

    key: str
    preemptor: str
    message: str
    cause: EvictCause = EvictCause.MADE_WAY


@dataclass(frozen=True, slots=True)
class Blocker:
    """One of the things that keep a gang from starting.

    Attributes:
        reason: For a program.
        message: For a person, with numbers.
    """

    reason: WaitReason
    message: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Decision: this gang waits.

    Attributes:
        key: The gang's key.
        reason: Why, for a program.
        message: Why, for a person, with numbers. They move as others come and go: compare `reason` to find out
            whether something really changed.
        position: Place among the waiting gangs of its queue; 1 is next.
        starts_seconds: When it is expected to start, seconds since the epoch; None if nobody knows.
        blockers: Everything that is known to be in its way, most important first; the first says what `message` says.
    """

    key: str
    reason: WaitReason
    message: str
    position: int
    starts_seconds: float | None = None
    blockers: tuple[Blocker, ...] = ()


Decision = Admit | Evict | Wait


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many gangs of a queue wait and how many are held.

    Attributes:
        waiting: Gangs that wait.
        held: Gangs that hold their place.
    """

    waiting: int
    held: int


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """What a queue holds of one resource.

    Attributes:
        nominal: Its own quota.
        used: What its own gangs hold.
        borrowed: How much of that is beyond its nominal.
        available: What one more gang could take, by quota; None for no limit.
        over: How much of what is borrowed is more than limits allow by now; they were lowered.
    """

    nominal: int
    used: int
    borrowed: int
    available: int | None
    over: int = 0


@dataclass(frozen=True, slots=True)
class QueueUse:
    """What a queue itself has used over time, to be kept while no planner lives: `use` of one, `resume` of the next.

    Attributes:
        as_of_seconds: Until when it is counted, seconds since the epoch.
        gpu_seconds: GPU-seconds, as they count then in whose turn it is: what is older counts less.
        joules: Joules, likewise.
        joules_by_hour: Joules of the rolling day, by hour since the epoch, not decayed: first those of the hour of
            `as_of_seconds`, then those of the hours before it. Hours that are missing at the end had none.
    """

    as_of_seconds: float
    gpu_seconds: float
    joules: float
    joules_by_hour: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueReport:
    """Where a queue stands.

    Attributes:
        gpus: Per entry of its quota ("H100", "Any"), and per model in use without one, in whole GPUs rounded up.
        watts: Reserved watts.
        joules: Joules in the last 24 hours.
        share: Its dominant share of the hall beyond nominal, by weight, over the last half-life: the smallest goes
            first.
        total_share: Its dominant share of the hall, by weight.
        waiting: Gangs that wait.
        held: Gangs that hold their place.
        parent: The queue it really borrows from; "" for a root and for one that stands alone.
        trouble: What is wrong with its place in the tree, for people; "" for nothing.
    """

    gpus: Mapping[str, QueueEntry]
    watts: QueueEntry
    joules: QueueEntry
    share: float
    total_share: float
    waiting: int
    held: int
    parent: str
    trouble: str
