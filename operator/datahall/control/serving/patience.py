"""How long a replica may take to be bound, and what follows when nodes refuse replicas of a service again and again.

The planner counts what pods ask for. A node may have other reasons to refuse one: a volume that cannot be had there, a
taint, somebody who was faster. Such a pod is made anew and its node avoided for a while; after the second refusal in a
row the next start waits, longer each time. So a service that no node takes costs a pod now and then, and no hot loop.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from datahall.control import times
from datahall.control.views import PodView

BIND_PATIENCE_SECONDS = 30.0
"""How long a pod whose gate was lifted may stay unschedulable before another takes its place."""

AVOID_SECONDS = 300.0
"""How long a node that refused a replica is not tried again for that service."""

BACK_OFF_FIRST_SECONDS = 30.0
BACK_OFF_LONGEST_SECONDS = 600.0
"""The second refusal in a row is waited for 30 s, each further one twice as long."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What nodes have done to the replicas of one service.

    Attributes:
        refusals: refusals in a row; 0 once a replica was bound.
        avoid: nodes to avoid, with the time until which they are, seconds since the epoch.
        until_seconds: nothing is tried before this time.
        message: the last refusal.
    """

    refusals: int = 0
    avoid: Mapping[str, float] = field(default_factory=dict)
    until_seconds: float = 0.0
    message: str = ""

    def refused(self, node: str, message: str, now_seconds: float) -> Trouble:
        """One refusal more; without a node if it was the API server that refused."""
        count = self.refusals + 1
        patience = min(BACK_OFF_FIRST_SECONDS * 2.0 ** min(count - 2, 16), BACK_OFF_LONGEST_SECONDS)
        return Trouble(
            refusals=count,
            avoid=self._avoided(now_seconds) | ({node: now_seconds + AVOID_SECONDS} if node else {}),
            until_seconds=now_seconds + patience if count > 1 else 0.0,
            message=message,
        )

    def bound(self) -> Trouble:
        """A replica was bound: what is left is to avoid where another one was not."""
        return Trouble(avoid=self.avoid)

    def avoided(self, now_seconds: float) -> frozenset[str]:
        """The nodes to avoid now."""
        return frozenset(self._avoided(now_seconds))

    def next_change(self, now_seconds: float) -> float | None:
        """In how many seconds something of this ends by itself; None if nothing does."""
        ends = [end for end in (self.until_seconds, *self.avoid.values()) if end > now_seconds]
        return min(ends) - now_seconds if ends else None

    def sentence(self) -> str:
        """Why the next replica is not tried yet."""
        at = times.to_text(datetime.datetime.fromtimestamp(self.until_seconds, datetime.UTC))
        return f"{self.refusals} starts in a row were refused; the next is tried at {at}. The last: {self.message}"

    def _avoided(self, now_seconds: float) -> dict[str, float]:
        return {node: end for node, end in self.avoid.items() if end > now_seconds}


def refusal(pod: PodView, now: datetime.datetime) -> str | None:
    """How its node refused a replica whose gate was lifted; None if it did not, or may yet take it."""
    if pod.placed_at is None:
        return None
    if pod.phase == "Failed" and not pod.started and not pod.disruption:
        if times.since(pod.placed_at, now) > AVOID_SECONDS:
            return None  # its object may stay for ever
        # Bound, and turned away by the kubelet: OutOfcpu, UnexpectedAdmissionError, ...
        return f"node {pod.node}: {pod.reason or 'Failed'}: {pod.message}".rstrip(": ")
    if pod.bound or pod.deleted_at is not None or patience_left(pod, now) > 0:
        return None
    return f"node {pod.node}: {pod.unschedulable}" if pod.unschedulable else None


def patience_left(pod: PodView, now: datetime.datetime) -> float:
    """For how many seconds more a pod whose gate was lifted may be unbound."""
    return BIND_PATIENCE_SECONDS - times.since(pod.placed_at, now)
