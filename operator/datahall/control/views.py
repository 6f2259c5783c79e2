"""What the operator keeps of each object that it watches: only the fields that decide something.

Here are our own kinds, pods and nodes; `storage_views` has claims, `child_views` what we make for a service or gang.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from datahall.api.inferenceservice import InferenceService
from datahall.api.powerdomain import PowerDomain
from datahall.api.quantities import cpu_milli, memory_bytes
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.control import labels
from datahall.control.gpu_power import cap_watts

PULL_PROBLEMS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
"""Reasons of a waiting container that speak of its image."""


@dataclass(frozen=True, slots=True)
class Meta:
    """The part of metadata that every view has."""

    namespace: str
    name: str
    uid: str
    version: int


def meta_of(raw: dict[str, Any]) -> tuple[str, str, str, int]:
    """The fields of `Meta`."""
    metadata = raw["metadata"]
    return (
        metadata.get("namespace") or "",
        metadata["name"],
        metadata["uid"],
        int(metadata["resourceVersion"]),
    )


@dataclass(frozen=True, slots=True)
class Ours(Meta):
    """An object of one of our kinds.

    Attributes:
        error: why the stored object cannot be understood (it was made under another version), else None.
        generation: metadata.generation.
        deleting: whether its deletion has begun.
    """

    generation: int
    deleting: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class JobView(Ours):
    """A TrainingJob."""

    job: TrainingJob | None


@dataclass(frozen=True, slots=True)
class ServiceView(Ours):
    """An InferenceService."""

    service: InferenceService | None


@dataclass(frozen=True, slots=True)
class QueueView(Ours):
    """A Queue."""

    queue: Queue | None


@dataclass(frozen=True, slots=True)
class PowerDomainView(Ours):
    """A PowerDomain."""

    domain: PowerDomain | None


def owner_uid(metadata: dict[str, Any]) -> str:
    """The uid of the owner that controls an object, "" without one."""
    owners = metadata.get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _ours(raw: dict[str, Any], error: str | None) -> tuple[str, str, str, int, int, bool, str | None]:
    metadata = raw["metadata"]
    return (*meta_of(raw), int(metadata.get("generation") or 0), "deletionTimestamp" in metadata, error)


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def job_view(raw: dict[str, Any]) -> JobView:
    """Project a TrainingJob."""
    try:
        job, error = TrainingJob.from_json(raw), None
    except ValidationError as invalid:
        job, error = None, _complaint(invalid)
    return JobView(*_ours(raw, error), job)


def service_view(raw: dict[str, Any]) -> ServiceView:
    """Project an InferenceService."""
    try:
        service, error = InferenceService.from_json(raw), None
    except ValidationError as invalid:
        service, error = None, _complaint(invalid)
    return ServiceView(*_ours(raw, error), service)


def queue_view(raw: dict[str, Any]) -> QueueView:
    """Project a Queue."""
    try:
        queue, error = Queue.from_json(raw), None
    except ValidationError as invalid:
        queue, error = None, _complaint(invalid)
    return QueueView(*_ours(raw, error), queue)


def power_domain_view(raw: dict[str, Any]) -> PowerDomainView:
    """Project a PowerDomain."""
    try:
        domain, error = PowerDomain.from_json(raw), None
    except ValidationError as invalid:
        domain, error = None, _complaint(invalid)
    return PowerDomainView(*_ours(raw, error), domain)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended.

    Attributes:
        exit_code: its exit code.
        signal: the signal that ended it, 0 for none.
        reason: the kubelet's word: Completed, Error, OOMKilled, ...
        message: its termination message.
        finished_at: RFC 3339.
    """

    exit_code: int
    signal: int
    reason: str
    message: str
    finished_at: str | None


@dataclass(frozen=True, slots=True)
class PodView(Meta):
    """A pod, reduced to the container that is ours (the first one of a foreign pod) and what it asks for.

    Attributes:
        labels: its labels.
        owner_uid: the uid of the object that controls it, "" without one.
        node: the node it is bound to, or pinned to.
        bound: whether a scheduler has bound it.
        phase: Pending, Running, Succeeded, Failed or Unknown.
        reason: why the pod (not a container) failed: Evicted, NodeLost, UnexpectedAdmissionError, ...
        message: the sentence to it.
        disruption: reason of its DisruptionTarget condition, "" without one.
        unschedulable: the scheduler's sentence, "" where it has none.
        deleted_at: when its deletion was asked for, or None.
        created_at: RFC 3339.
        ready: whether it is Ready.
        running: whether its container runs.
        waiting_reason: why its container waits.
        waiting_message: the sentence to it.
        ended: how its container ended, or ended last time if it was restarted.
        restarts: restarts of the container by the kubelet.
        gpus: GPUs that it asks for.
        cpu_milli: thousandths of a core that it asks for.
        memory_bytes: bytes that it asks for.
        gates: its scheduling gates; while it has one, no scheduler looks at it.
        node_terms: the node selector terms that it requires, as long as it has a gate.
        placed_at: when its gate was lifted for the node that it is pinned to, RFC 3339, or None.
    """

    labels: dict[str, str]
    owner_uid: str
    node: str
    bound: bool
    phase: str
    reason: str
    message: str
    disruption: str
    unschedulable: str
    deleted_at: str | None
    created_at: str
    ready: bool
    running: bool
    waiting_reason: str
    waiting_message: str
    ended: Ended | None
    restarts: int
    gpus: int
    cpu_milli: int
    memory_bytes: int
    gates: tuple[str, ...] = ()
    node_terms: tuple[dict[str, Any], ...] = ()
    placed_at: str | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing of it runs any more; a finished pod holds no GPU."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def started(self) -> bool:
        """Whether its container ever ran."""
        return self.running or self.ended is not None

    @property
    def generation(self) -> int:
        """The gang generation that it belongs to; 0 if it is not a worker."""
        text = self.labels.get(labels.GENERATION, "")
        return int(text) if text.isdigit() else 0

    @property
    def rank(self) -> int:
        """The rank of the worker; -1 if it is not one."""
        text = self.labels.get(labels.RANK, "")
        return int(text) if text.isdigit() else -1


def pod_view(raw: dict[str, Any]) -> PodView:
    """Project a Pod."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    container = _own_status(status.get("containerStatuses") or [{}])
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    scheduled = conditions.get("PodScheduled") or {}
    gpus, cpu, memory = _requests(spec)
    gates = tuple(gate["name"] for gate in spec.get("schedulingGates") or ())
    return PodView(
        *meta_of(raw),
        labels=metadata.get("labels") or {},
        owner_uid=owner_uid(metadata),
        node=spec.get("nodeName") or _pinned(spec),
        bound=bool(spec.get("nodeName")),
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        disruption=_when_true(conditions.get("DisruptionTarget")),
        unschedulable=scheduled.get("message") or "" if scheduled.get("reason") == "Unschedulable" else "",
        deleted_at=metadata.get("deletionTimestamp"),
        created_at=metadata["creationTimestamp"],
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        running="running" in state,
        waiting_reason=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        ended=_ended(ended) if ended else None,
        restarts=int(container.get("restartCount") or 0),
        gpus=gpus,
        cpu_milli=cpu,
        memory_bytes=memory,
        gates=gates,
        node_terms=_node_terms(spec) if gates else (),
        placed_at=(metadata.get("annotations") or {}).get(labels.PLACED_AT),
    )


OUR_CONTAINERS = ("trainer", "server")


def _own_status(statuses: list[dict[str, Any]]) -> dict[str, Any]:
    """The status of our container; a mesh may have injected others, and the kubelet sorts them all by name."""
    return next((status for status in statuses if status.get("name") in OUR_CONTAINERS), statuses[0])


def _ended(terminated: dict[str, Any]) -> Ended:
    return Ended(
        exit_code=int(terminated.get("exitCode") or 0),
        signal=int(terminated.get("signal") or 0),
        reason=terminated.get("reason") or "",
        message=terminated.get("message") or "",
        finished_at=terminated.get("finishedAt"),
    )


def _when_true(condition: dict[str, Any] | None) -> str:
    return str(condition.get("reason") or "") if condition and condition.get("status") == "True" else ""


def _pinned(spec: dict[str, Any]) -> str:
    """The node that required affinity pins the pod to, as we do for workers."""
    try:
        return str(_node_terms(spec)[0]["matchFields"][-1]["values"][0])
    except (KeyError, IndexError):
        return ""


def _node_terms(spec: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The node selector terms that a pod requires, one of which must hold."""
    try:
        required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        return tuple(required["nodeSelectorTerms"])
    except (KeyError, TypeError):
        return ()


def _requests(spec: dict[str, Any]) -> tuple[int, int, int]:
    """GPUs, milli-cores and bytes that a pod asks for, as the kube-scheduler counts them.

    The sum of its containers and sidecars, or what an init container needs beside the sidecars that start before it,
    whichever is more; what is asked for the pod as a whole goes before that, and the overhead of its runtime on top.
    """
    running, most = [0, 0, 0], [0, 0, 0]
    for container in spec.get("initContainers") or ():
        asked = _container_requests(container)
        beside = [here + more for here, more in zip(running, asked, strict=True)]
        most = [max(pair) for pair in zip(most, beside, strict=True)]
        if container.get("restartPolicy") == "Always":
            running = beside
    for container in spec.get("containers") or ():
        running = [here + more for here, more in zip(running, _container_requests(container), strict=True)]
    gpus, cpu, memory = (max(pair) for pair in zip(most, running, strict=True))
    whole = (spec.get("resources") or {}).get("requests") or {}
    cpu = cpu_milli(str(whole["cpu"])) if "cpu" in whole else cpu
    memory = memory_bytes(str(whole["memory"])) if "memory" in whole else memory
    overhead = spec.get("overhead") or {}
    cpu += cpu_milli(str(overhead.get("cpu", "0")))
    memory += memory_bytes(str(overhead.get("memory", "0")))
    return gpus, cpu, memory


def _container_requests(container: dict[str, Any]) -> tuple[int, int, int]:
    resources = container.get("resources") or {}
    wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return (
        int(wanted.get(labels.GPU_RESOURCE, 0)),
        cpu_milli(str(wanted.get("cpu", "0"))),
        memory_bytes(str(wanted.get("memory", "0"))),
    )


@dataclass(frozen=True, slots=True)
class NodeView(Meta):
    """A node.

    Attributes:
        gpu_model: its GPU model, "" without GPUs.
        gpus: allocatable GPUs.
        cpu_milli: allocatable thousandths of a core.
        memory_bytes: allocatable bytes.
        rack: its rack, or None.
        block: its block of racks, or None.
        ready: whether the kubelet says Ready.
        ready_changed_at: when that last changed, RFC 3339.
        schedulable: ready, not cordoned, and without a taint that our pods do not tolerate.
        gpu_watts: the power cap of each GPU, in watts; 0 where it is not known.
        labels: its labels.
    """

    gpu_model: str
    gpus: int
    cpu_milli: int
    memory_bytes: int
    rack: str | None
    block: str | None
    ready: bool
    ready_changed_at: str | None
    schedulable: bool
    gpu_watts: int
    labels: dict[str, str]


TOLERATED_TAINTS = frozenset({labels.GPU_RESOURCE})
"""Keys of taints that our pods tolerate: GPU nodes are often kept for GPU work by a taint of this name."""


def node_view(raw: dict[str, Any]) -> NodeView:
    """Project a Node."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    node_labels = metadata.get("labels") or {}
    allocatable = status.get("allocatable") or {}
    ready: dict[str, Any] = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})
    is_ready = ready.get("status") == "True"
    repelled = any(
        taint["effect"] in ("NoSchedule", "NoExecute") and taint["key"] not in TOLERATED_TAINTS
        for taint in spec.get("taints") or ()
    )
    gpus = int(allocatable.get(labels.GPU_RESOURCE, 0))
    gpu_model = node_labels.get(labels.GPU_PRODUCT, "Unknown") if gpus else ""
    return NodeView(
        *meta_of(raw),
        gpu_model=gpu_model,
        gpus=gpus,
        cpu_milli=cpu_milli(str(allocatable.get("cpu", "0"))),
        memory_bytes=memory_bytes(str(allocatable.get("memory", "0"))),
        rack=node_labels.get(labels.RACK),
        block=node_labels.get(labels.BLOCK),
        ready=is_ready,
        ready_changed_at=ready.get("lastTransitionTime"),
        schedulable=is_ready and not spec.get("unschedulable") and not repelled,
        gpu_watts=cap_watts(node_labels, gpu_model),
        labels=node_labels,
    )
