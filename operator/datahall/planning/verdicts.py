"""What a judgement comes to: where a gang goes, or why it does not start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from datahall.planning import placing_messages
from datahall.planning.backfill import Reservation
from datahall.planning.placing import Placing
from datahall.planning.queues.verdicts import Refused
from datahall.planning.types import GangRequest, WaitReason
from datahall.planning.waiting import KindKey

Tell = Callable[[], str]


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Where a gang goes.

    Attributes:
        model: The GPU model of all its workers; "" without GPUs.
        placing: Nodes and workers.
    """

    model: str
    placing: Placing


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """Why a gang does not start in this pass.

    Attributes:
        reason: For a program.
        tell: Makes the sentence for a person.
        starts_seconds: When it is expected to start, if that is known.
        short_of: The quota that it lacks, if that is what it lacks.
        model: The GPU model for which it was found.
        beside: Further reasons, less important.
    """

    reason: WaitReason
    tell: Tell
    starts_seconds: float | None = None
    short_of: Refused | None = None
    model: str = ""
    beside: tuple[Refusal, ...] = ()

    def all(self) -> Iterator[Refusal]:
        """This reason and all that are less important."""
        yield self
        for other in self.beside:
            yield from other.all()

    def models_for_room(self) -> tuple[str, ...]:
        """GPU models on which it waits for room alone."""
        found = (each.model for each in self.all() if each.reason in WAITS_FOR_ROOM)
        return tuple(dict.fromkeys(found))

    @property
    def is_for_all_alike(self) -> bool:
        """Whether it is true of every gang that asks for the same of the same quota, whoever is ahead of it."""
        if self.reason is WaitReason.POWER_BUDGET:
            return all(one.short_of is not None or one.reason in _FOR_ALL_ALIKE for one in self.all())
        # Reasons of the hall come before these (`NEAREST`): quota alone refused it, on every model.
        return self.reason in _FOR_ALL_ALIKE

    def with_beside(self, further: Refusal) -> Refusal:
        """The same with one more reason."""
        return replace(self, beside=(*self.beside, further))

    def starting(self, reservation: Reservation, now_seconds: float) -> Refusal:
        """The same for the gang that room is reserved for: with the time at which it starts."""
        said = self.tell

        def tell() -> str:
            return f"{said()}; {placing_messages.would_start(reservation, now_seconds)}"

        return replace(self, tell=tell, starts_seconds=reservation.at_seconds)


_FOR_ALL_ALIKE = frozenset(
    {
        WaitReason.QUEUE_NOT_FOUND,
        WaitReason.NAMESPACE_NOT_ALLOWED,
        WaitReason.NEVER_FITS,
        WaitReason.QUOTA_TOO_SMALL,
        WaitReason.ENERGY_BUDGET,
        WaitReason.BEHIND_OTHERS,
    }
)


@dataclass(slots=True, eq=False)
class Kept:
    """Room in the hall that is kept for a gang ahead.

    Attributes:
        gang: The gang.
        kind: Its kind.
        model: The GPU model it is kept on.
        reservation: Where, and from when on.
        nodes: Names of the reservation's columns, which may be other nodes' later.
    """

    gang: GangRequest
    kind: KindKey
    model: str
    reservation: Reservation
    nodes: tuple[str, ...]


HOPELESS = frozenset(
    {
        WaitReason.QUEUE_NOT_FOUND,
        WaitReason.NAMESPACE_NOT_ALLOWED,
        WaitReason.QUOTA_TOO_SMALL,
        WaitReason.NEVER_FITS,
        WaitReason.ENERGY_BUDGET,
    }
)
"""Reasons for which nothing is kept: no end of a gang would help."""

WAITS_FOR_ROOM = frozenset(
    {
        WaitReason.INSUFFICIENT_GPUS,
        WaitReason.INSUFFICIENT_RESOURCES,
        WaitReason.NO_ONE_DOMAIN,
        WaitReason.RESERVED,
    }
)
"""Reasons of gangs that have quota, and no room."""

NEAREST = (
    WaitReason.RESERVED,
    WaitReason.NO_ONE_DOMAIN,
    WaitReason.INSUFFICIENT_GPUS,
    WaitReason.INSUFFICIENT_RESOURCES,
    WaitReason.POWER_BUDGET,
    WaitReason.BEHIND_OTHERS,
    WaitReason.BORROWED_AWAY,
    WaitReason.QUOTA_EXCEEDED,
    WaitReason.ENERGY_BUDGET,
    WaitReason.QUOTA_TOO_SMALL,
)
"""Of reasons for several GPU models the one that is nearest to a start comes first."""
