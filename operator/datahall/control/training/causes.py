"""Why a worker ended: the one place that reads exit codes, kubelet reasons and termination messages.

The table is docs/contracts.md. When several workers of a gang end together, the one whose own fault it was tells the
story: its peers only lost their connection to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from datahall.api.reasons import Cause
from datahall.control.views import PodView

EXIT_BAD_INPUT = 65
EXIT_PEER_LOST = 75
SIGKILL_EXIT = 128 + 9
SIGTERM_EXIT = 128 + 15

_DISRUPTIONS = {
    "DeletionByTaintManager": Cause.NODE_LOST,
    "DeletionByPodGC": Cause.NODE_LOST,
    "EvictionByEvictionAPI": Cause.EVICTED,
    "TerminationByKubelet": Cause.EVICTED,
    "PreemptionByScheduler": Cause.PREEMPTED,
    "PreemptionByKubeScheduler": Cause.PREEMPTED,
}

_KUBELET_REFUSALS = frozenset(
    {
        "UnexpectedAdmissionError",
        "NodeAffinity",
        "OutOfcpu",
        "OutOfmemory",
        "OutOfpods",
        "Preempting",
        "Terminated",
    }
)

# First in this order tells the story. What a person can repair comes first, echoes come last.
_TELLING = (
    Cause.BAD_INPUT,
    Cause.OUT_OF_MEMORY,
    Cause.NODE_LOST,
    Cause.EVICTED,
    Cause.PREEMPTED,
    Cause.POD_DELETED,
    Cause.UNSCHEDULABLE,
    Cause.USER_CODE,
    Cause.KILLED,
    Cause.INTERRUPTED,
    Cause.PEER_LOST,
)

LOG_LINES_KEPT = 20


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How one worker ended, in the words of the catalogue.

    Attributes:
        pod: the pod.
        cause: why.
        message: why, in a sentence.
        log_lines: its last lines.
    """

    pod: PodView
    cause: Cause
    message: str
    log_lines: tuple[str, ...] = ()


def termination(pod: PodView) -> dict[str, Any] | None:
    """The JSON object that the trainer left as its termination message, or None where there is none."""
    if pod.ended is None or not pod.ended.message.startswith("{"):
        return None
    try:
        message = orjson.loads(pod.ended.message)
    except orjson.JSONDecodeError:
        return None  # cut off, or a log line that begins with a brace
    return message if isinstance(message, dict) else None


def worker_end(pod: PodView) -> WorkerEnd:
    """Classify a worker that failed, or whose pod is being deleted by someone else."""
    said = termination(pod) or {}
    if disruption := _DISRUPTIONS.get(pod.disruption):
        return WorkerEnd(pod, disruption, f"{pod.disruption}: {pod.message or 'no message'}")
    if pod.reason == "Evicted":
        return WorkerEnd(pod, Cause.EVICTED, pod.message or "evicted by the kubelet")
    if pod.reason in ("NodeLost", "NodeShutdown", "Shutdown"):
        return WorkerEnd(pod, Cause.NODE_LOST, pod.message or pod.reason)
    if pod.reason in _KUBELET_REFUSALS or pod.reason.startswith("OutOf"):
        text = f"node {pod.node} refused the pod: {pod.reason}: {pod.message}"
        return WorkerEnd(pod, Cause.UNSCHEDULABLE, text)
    if pod.deleted_at is not None and not pod.finished:
        return WorkerEnd(pod, Cause.POD_DELETED, f"the pod {pod.name} was deleted")
    if pod.ended is None:
        return WorkerEnd(
            pod, Cause.KILLED, pod.message or f"the pod failed: {pod.reason or 'no reason given'}"
        )
    lines = _said_lines(said) or _log_lines(pod)
    cause, sentence = _by_exit(pod)
    if pod.deleted_at is not None and cause is Cause.KILLED:
        return WorkerEnd(pod, Cause.POD_DELETED, f"the pod {pod.name} was deleted", lines)
    return WorkerEnd(pod, cause, str(said.get("message") or sentence), lines)


def _by_exit(pod: PodView) -> tuple[Cause, str]:
    ended = pod.ended
    assert ended is not None
    if ended.reason == "OOMKilled":
        return Cause.OUT_OF_MEMORY, "killed for memory: ask for more memory or use a smaller batch"
    if ended.exit_code == EXIT_BAD_INPUT and termination(pod) is not None:
        # A foreign program may exit 65 for reasons of its own: only our trainer's word makes it final.
        return Cause.BAD_INPUT, "the input can never work"
    if ended.exit_code == EXIT_PEER_LOST:
        return Cause.PEER_LOST, "a peer of the gang went away"
    if ended.exit_code == SIGTERM_EXIT or ended.signal == 15:
        return Cause.INTERRUPTED, "stopped by SIGTERM"
    if ended.exit_code == SIGKILL_EXIT or ended.signal == 9:
        return Cause.KILLED, "killed by SIGKILL, and not for memory"
    if ended.reason in ("ContainerCannotRun", "StartError"):
        return Cause.USER_CODE, f"the container could not start: {ended.message[:500]}"
    return Cause.USER_CODE, f"exit code {ended.exit_code}"


def _said_lines(said: dict[str, Any]) -> tuple[str, ...]:
    """The log lines of a termination message, as far as they are some: any program may write any JSON there."""
    lines = said.get("lastLogLines")
    return tuple(str(line) for line in lines[-LOG_LINES_KEPT:]) if isinstance(lines, list) else ()


def _log_lines(pod: PodView) -> tuple[str, ...]:
    """With policy FallbackToLogsOnError the kubelet puts the end of the log where a message is missing."""
    if pod.ended is None or not pod.ended.message or termination(pod) is not None:
        return ()
    return tuple(pod.ended.message.splitlines()[-LOG_LINES_KEPT:])


def telling(ends: Iterable[WorkerEnd]) -> WorkerEnd:
    """Of several ends, the one that explains the others: by cause, then by the earliest finish, then by rank."""
    return min(ends, key=lambda end: (_TELLING.index(end.cause), _finished_at(end.pod), end.pod.rank))


def _finished_at(pod: PodView) -> str:
    return (pod.ended.finished_at if pod.ended else None) or "9999"
