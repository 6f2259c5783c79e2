"""What a plan may ask for. Plans are data, so a test reads them; only the executor makes them happen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datahall.api.reasons import Reason
from datahall.kube import Resource


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object unless one of its name exists."""

    resource: Resource
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of an object of ours.

    Attributes:
        resource: the kind.
        body: what is applied.
        first: whether it is not known to exist: then an object of that name would be somebody else's.
    """

    resource: Resource
    body: dict[str, Any]
    first: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one very object: its uid, not whatever has its name by then."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """Change an object that somebody else made, if it is still what was looked at.

    Attributes:
        resource: the kind.
        namespace: its namespace.
        name: its name.
        uid: its uid.
        body: a JSON merge patch with the resourceVersion that was looked at.
    """

    resource: Resource
    namespace: str
    name: str
    uid: str
    body: dict[str, Any]


Action = Create | Apply | Delete | Patch


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell of something in an Event."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What one look at an object leads to. The status is written first: it is what a restart goes on from.

    Attributes:
        status: the new status, as JSON; None leaves it as it is.
        actions: writes to other objects, after the status; the first failure ends the run, the next look goes on.
        announcements: Events, after everything else.
        look_again_seconds: look again after this time even if nothing changes; None waits for a change.
        pending: there is something to tell, and the planner's answer, due in a moment, tells it.
    """

    status: dict[str, Any] | None = None
    actions: tuple[Action, ...] = ()
    announcements: tuple[Announce, ...] = ()
    look_again_seconds: float | None = None
    pending: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
