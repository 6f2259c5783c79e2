"""The words that conditions, Events and failures use: a fixed catalogue, documented in docs/reference.

Programs match on these words, so a word is never renamed and never reused for something else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class EventType(StrEnum):
    """How `kubectl get events` marks an Event."""

    NORMAL = "Normal"
    WARNING = "Warning"


_NORMAL = EventType.NORMAL
_WARNING = EventType.WARNING


class Reason(StrEnum):
    """Why a condition has its status, and what an Event tells of."""

    event_type: EventType
    description: str

    def __new__(cls, value: str, event_type: EventType, description: str) -> Self:
        """A word, how its Event is marked, and what it means."""
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.event_type = event_type
        reason.description = description
        return reason

    # Of every kind
    NOT_STARTED = "NotStarted", _NORMAL, "Nothing has happened yet that this condition could speak of."
    PROGRESSING = "Progressing", _NORMAL, "The operator is on its way to what the spec says."
    UP_TO_DATE = "UpToDate", _NORMAL, "What runs is what the spec says; nothing is left to do."
    NOT_STALLED = "NotStalled", _NORMAL, "Nothing stands in the way that only a person could remove."
    INVALID_SPEC = (
        "InvalidSpec",
        _WARNING,
        "The stored spec breaks a rule of this version; the message names it.",
    )
    REQUEST_REFUSED = (
        "RequestRefused",
        _WARNING,
        "The API server refused a child object (quota, pod security, admission policy); the message quotes it.",
    )

    # Waiting
    QUEUE_NOT_FOUND = "QueueNotFound", _WARNING, "The Queue that spec.queue names does not exist."
    QUEUE_FORBIDDEN = "QueueForbidden", _WARNING, "The Queue does not list this namespace in spec.namespaces."
    QUOTA_EXCEEDED = "QuotaExceeded", _NORMAL, "The Queue's quota is in use; the message says how much of it."
    QUOTA_TOO_SMALL = (
        "QuotaTooSmall",
        _WARNING,
        "The Queue's whole quota is less than what is asked for: waiting cannot help.",
    )
    NO_ROOM = (
        "NoRoom",
        _NORMAL,
        "Quota is there, but no nodes with room for the whole gang; the message says how near it is.",
    )
    NO_SUCH_NODES = (
        "NoSuchNodes",
        _WARNING,
        "No set of nodes could ever hold it, even empty; the message says what is missing.",
    )
    BORROWED_AWAY = (
        "BorrowedAway",
        _NORMAL,
        "It is within the Queue's own nominal quota, which others have borrowed: they give it back.",
    )
    POWER_BUDGET = (
        "PowerBudgetExceeded",
        _NORMAL,
        "The Queue or a power domain has too few watts left; the message says how many.",
    )
    ENERGY_BUDGET = (
        "EnergyBudgetExceeded",
        _NORMAL,
        "The joules per day of the Queue, or of one above it, are spent; what was spent comes back a day later.",
    )
    TOPOLOGY_NO_ROOM = (
        "NoRoomInOneDomain",
        _NORMAL,
        "GPUs are there, but not within one host, rack or block, as spec.topology requires; the message says how near "
        "the best one is.",
    )
    RESERVED_FOR_OTHER = (
        "ReservedForOther",
        _NORMAL,
        "It would fit, and the room is kept for a gang ahead of it; the message names that one.",
    )
    MAKING_ROOM = (
        "MakingRoom",
        _NORMAL,
        "Jobs of lower priority, or borrowers, are being ended for it: it starts when they have saved and gone.",
    )
    WAITING_IN_LINE = "WaitingInLine", _NORMAL, "A job of higher priority, or an older one, goes first."
    CLAIM_NOT_FOUND = (
        "ClaimNotFound",
        _WARNING,
        "A PersistentVolumeClaim that a pvc:// URI names does not exist.",
    )
    CLAIM_NOT_BOUND = (
        "ClaimNotBound",
        _WARNING,
        "A PersistentVolumeClaim that a pvc:// URI names has no volume; the message says what it waits for.",
    )
    NAME_IN_USE = (
        "NameInUse",
        _NORMAL,
        "An object of an earlier TrainingJob of this name is not gone yet; the message names it.",
    )
    PLACE_REFUSED = (
        "PlaceRefused",
        _WARNING,
        "Nodes that were chosen refused the gang more than once: it is tried again, later each time.",
    )

    # Running a gang
    ADMITTED = "Admitted", _NORMAL, "Quota is reserved and every worker has a node."
    NOT_ADMITTED = "NotAdmitted", _NORMAL, "It holds no quota and no nodes."
    PODS_STARTING = "PodsStarting", _NORMAL, "Pods exist, and not all of them run yet."
    GANG_RUNNING = "GangRunning", _NORMAL, "Every worker runs."
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        _WARNING,
        "The kubelet cannot pull a container image; the message names it.",
    )
    NOT_RUNNING = "NotRunning", _NORMAL, "No worker runs."
    WORKER_FAILED = (
        "WorkerFailed",
        _WARNING,
        "A worker failed by itself: the gang starts again, and this counts against maxRestarts.",
    )
    WORKER_LOST = (
        "WorkerLost",
        _WARNING,
        "A worker was taken away (eviction, preemption, node): the gang starts again, uncounted.",
    )
    PREEMPTED = (
        "Preempted",
        _NORMAL,
        "The job was ended to make room for another, which the message names: it saved and waits again, uncounted.",
    )
    PREEMPTING = (
        "Preempting",
        _NORMAL,
        "Other jobs are ended to make room for this one; the message names them.",
    )
    RESIZED = (
        "Resized",
        _NORMAL,
        "The gang was started again with more or fewer workers, from its last checkpoint.",
    )
    MOVED = (
        "Moved",
        _NORMAL,
        "The gang was moved to other nodes, from its last checkpoint, to free a rack for another.",
    )
    RESTARTED = "Restarted", _NORMAL, "The gang runs again, from its last checkpoint."
    NOT_RESTARTING = "NotRestarting", _NORMAL, "The gang is not being started again."
    SUSPEND_REQUESTED = (
        "SuspendRequested",
        _NORMAL,
        "spec.suspend is true: the workers are stopped and their GPUs are free.",
    )
    RESUMED = "Resumed", _NORMAL, "spec.suspend became false: the job waits in its queue again."
    NOT_SUSPENDED = "NotSuspended", _NORMAL, "spec.suspend is not true."

    # The end of a TrainingJob
    TRAINING_SUCCEEDED = (
        "TrainingSucceeded",
        _NORMAL,
        "The trained model is complete; status.output has its place and digest.",
    )
    NOT_FINISHED = "NotFinished", _NORMAL, "The job has not ended."
    BAD_INPUT = "BadInput", _WARNING, "Data, model or configuration can never work; the message names what."
    RESTARTS_EXHAUSTED = (
        "RestartsExhausted",
        _WARNING,
        "A worker failed once more than failurePolicy.maxRestarts allows.",
    )
    DEADLINE_EXCEEDED = "DeadlineExceeded", _WARNING, "activeDeadlineSeconds passed before the job ended."

    # Serving
    SERVING = "Serving", _NORMAL, "As many replicas as the spec asks for answer requests."
    MODEL_PINNED = "ModelPinned", _NORMAL, "The model is known; status.model has its place and digest."
    TRAINING_JOB_NOT_FOUND = (
        "TrainingJobNotFound",
        _WARNING,
        "The TrainingJob that the model comes from does not exist.",
    )
    WAITING_FOR_TRAINING_JOB = "WaitingForTrainingJob", _NORMAL, "The TrainingJob has not ended yet."
    TRAINING_JOB_FAILED = "TrainingJobFailed", _WARNING, "The TrainingJob failed: there is no model to serve."
    NO_TRAINED_MODEL = (
        "NoTrainedModel",
        _WARNING,
        "The TrainingJob succeeded without an output (a Custom task may).",
    )
    REPLICAS_STARTING = "ReplicasStarting", _NORMAL, "Replicas exist that do not answer yet."
    REPLICAS_READY = "ReplicasReady", _NORMAL, "Every replica answers."
    ROLLING_OUT = (
        "RollingOut",
        _NORMAL,
        "Replicas are being replaced one by one; the old ones answer meanwhile.",
    )
    REPLICA_FAILING = "ReplicaFailing", _WARNING, "A replica ends again and again; status.failure says how."
    SCALED_TO_ZERO = "ScaledToZero", _NORMAL, "spec.replicas.min is 0: nothing serves, as asked."
    GPUS_RESERVED = "GPUsReserved", _NORMAL, "Every replica has its GPUs."
    NO_GPUS_REQUESTED = "NoGPUsRequested", _NORMAL, "resources.gpus is 0: the replicas compute on the CPU."

    # Queues
    QUEUE_READY = "QueueReady", _NORMAL, "The Queue is in use by the operator."
    QUEUE_OVERCOMMITTED = (
        "QueueOvercommitted",
        _WARNING,
        "More GPUs are held than quota and borrowing now allow (one was lowered): nothing starts until use falls.",
    )
    QUEUE_PARENT_NOT_FOUND = (
        "QueueParentNotFound",
        _WARNING,
        "The Queue that spec.parent names does not exist: until it does, this one neither borrows nor lends.",
    )
    QUEUE_PARENTS_IN_CIRCLE = (
        "QueueParentsInCircle",
        _WARNING,
        "The parents go in a circle, which the message shows: until one names another, each neither borrows nor lends.",
    )

    # Power domains
    POWER_DOMAIN_READY = "PowerDomainReady", _NORMAL, "Work is started within the budget of the PowerDomain."
    POWER_DOMAIN_OVERCOMMITTED = (
        "PowerDomainOvercommitted",
        _WARNING,
        "More watts are reserved than the budget now allows (it was lowered): nothing starts until work has ended.",
    )
    POWER_DOMAIN_PARENT_NOT_FOUND = (
        "PowerDomainParentNotFound",
        _WARNING,
        "The PowerDomain that spec.parent names, or one further up, does not exist: until it does, nothing starts.",
    )
    POWER_DOMAINS_IN_CIRCLE = (
        "PowerDomainsInCircle",
        _WARNING,
        "The parents go in a circle, which the message shows: until one names another, nothing starts below them.",
    )
    POWER_DOMAIN_NODES_SHARED = (
        "PowerDomainNodesShared",
        _WARNING,
        "Another PowerDomain selects some of its nodes, too, and neither feeds the other: nothing starts on these.",
    )


class Cause(StrEnum):
    """What ended a worker or a replica: `status.failure.cause`."""

    description: str
    counted: bool
    fatal: bool

    def __new__(cls, value: str, description: str, counted: bool, fatal: bool = False) -> Self:
        """A word, what it means, whether a restart counts against maxRestarts, whether no restart can help."""
        cause = str.__new__(cls, value)
        cause._value_ = value
        cause.description = description
        cause.counted = counted
        cause.fatal = fatal
        return cause

    BAD_INPUT = (
        "BadInput",
        "The input can never work: data, model, configuration, NaN loss, no space left.",
        True,
        True,
    )
    USER_CODE = "UserCode", "An exception in the program.", True
    PEER_LOST = "PeerLost", "Another worker of the gang went away, and none tells why.", True
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "Killed by the kernel for memory: ask for more, or use a smaller batch.",
        True,
    )
    KILLED = "Killed", "Killed by SIGKILL, and not for memory.", True
    IMAGE_PULL = "ImagePull", "The container image cannot be pulled.", True
    UNSCHEDULABLE = "Unschedulable", "The pod could not be bound to the node that was chosen for it.", False
    INTERRUPTED = "Interrupted", "SIGTERM: the worker saved a checkpoint and left in order.", False
    EVICTED = "Evicted", "The kubelet evicted the pod: the node ran short of something.", False
    NODE_LOST = "NodeLost", "The node went away or stopped answering.", False
    POD_DELETED = "PodDeleted", "Someone deleted the pod.", False
    PREEMPTED = (
        "Preempted",
        "Ended to make room: for a higher priority, or for a queue that takes back what it lent.",
        False,
    )
    DEADLINE = "Deadline", "activeDeadlineSeconds passed.", False, True
