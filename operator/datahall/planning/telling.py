"""Who is told why it waits: those never told, and those whose sort of reason has changed; now and then new numbers.

Nothing here goes over all who wait: what was told is kept by kind and by group, and only what is odd is looked at.
Sentences, positions and numbers are made when somebody is told, or asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from datahall.planning.cycle import Outcome
from datahall.planning.types import IN_LINE, Blocker, Wait
from datahall.planning.verdicts import Refusal
from datahall.planning.waiting import Group, Kind, WaitingLine

REFRESH_SECONDS = 15.0
"""How often gangs at the head of a line are told that only the numbers of their message have moved."""

_REFRESHED_KINDS = 64
_REFRESHED_PER_KIND = 8
_BLOCKERS = 8


class Teller:
    """What the last pass found about those who wait, and what they were told of it."""

    def __init__(self, line: WaitingLine) -> None:
        self._line = line
        self._outcome = Outcome()
        self._told: dict[str, tuple[str, str]] = {}
        # Gangs that may have been told another reason than their kind was.
        self._told_own: set[str] = set()
        self._refresh_at_seconds = 0.0

    def forget(self, key: str) -> None:
        """A gang does not wait any more: should it come back, it is told anew."""
        self._told.pop(key, None)
        self._told_own.discard(key)

    def why(self, key: str) -> Wait | None:
        """Why a gang waits, with the numbers of now; None if it does not wait or was not examined yet."""
        kind = self._line.kind(key)
        if kind is None:
            return None
        refusal = self._outcome.apart.get(key) or self._outcome.refusal_of(kind)
        return None if refusal is None else self._wait(key, refusal)

    def news(self, outcome: Outcome, now_seconds: float) -> list[Wait]:
        """Take in what a pass found; who is told something.

        Args:
            outcome: The pass.
            now_seconds: The time, in seconds since the epoch.
        """
        self._outcome = outcome
        found: list[Wait] = []
        for key in outcome.apart:
            kind = self._line.kind(key)
            if kind is not None and kind.group is not None:
                kind.group.odd[kind] = None
        for kind_key, refusal in outcome.refused.items():
            kind = self._line.kind_of(kind_key)
            if kind is not None:
                found += self._of_kind(kind, refusal)
                if kind.group is not None:
                    kind.group.odd[kind] = None
        for group in outcome.spans:
            found += self._of_group(group)
        if now_seconds >= self._refresh_at_seconds:
            self._refresh_at_seconds = now_seconds + REFRESH_SECONDS
            for kind, refusal in self._first_kinds():
                found += self._new_numbers(kind, refusal)
        for key, refusal in outcome.apart.items():
            if self._line.get(key) is not None and _sort(self._told.get(key, ("", ""))[0]) != _sort(
                refusal.reason
            ):
                found.append(self._tell(key, refusal))
                self._told_own.add(key)
        return found

    # ---- by group, by kind, one by one

    def _of_group(self, group: Group) -> list[Wait]:
        """News of kinds that were refused without being looked at."""
        outcome = self._outcome
        sorts = {_sort(span.refusal.reason) for span in outcome.spans[group]}
        if sorts == {group.told}:
            kinds = list(group.odd)
        else:
            kinds = [self._line.at(place)[1] for place in group.order]
            group.told = sorts.pop() if len(sorts) == 1 else ""
            group.odd = dict.fromkeys(kinds)
        found: list[Wait] = []
        for kind in kinds:
            if kind.key in outcome.refused:
                continue
            refusal = outcome.refusal_of(kind)
            if refusal is None:
                continue
            found += self._of_kind(kind, refusal)
            if _sort(refusal.reason) == group.told and not self._has_own_reasons(kind):
                del group.odd[kind]
        return found

    def _has_own_reasons(self, kind: Kind) -> bool:
        return any(self._line.kind(key) is kind for key in self._outcome.apart)

    def _of_kind(self, kind: Kind, refusal: Refusal) -> list[Wait]:
        sort = _sort(refusal.reason)
        if kind.told != sort:
            kind.told = sort
            keys = [place[2] for place in kind.line]
        else:
            if not (kind.untold or self._told_own):
                return []
            keys = sorted(kind.untold)
            # A gang that had a reason of its own, and has it no more.
            first = [place[2] for place in kind.line[:_REFRESHED_PER_KIND]]
            keys += [
                key
                for key in first
                if key in self._told_own and _sort(self._told.get(key, (refusal.reason, ""))[0]) != sort
            ]
        kind.untold.clear()
        apart = self._outcome.apart
        own = [key for key in keys if key in apart] if apart else []
        keys = [key for key in dict.fromkeys(keys) if key not in apart]
        self._told_own.difference_update(keys)
        self._told_own.update(own)
        if not keys:
            return []
        blockers = _blockers(refusal)
        return [self._tell(key, refusal, blockers) for key in keys]

    def _first_kinds(self) -> Iterator[tuple[Kind, Refusal]]:
        """The first kinds of the first queues: numbers are told anew to so many."""
        number = 0
        for queue in self._line.queues():
            for kind in self._line.kinds(queue):
                refusal = self._outcome.refusal_of(kind)
                if refusal is not None:
                    yield kind, refusal
                    number += 1
                    if number == _REFRESHED_KINDS:
                        return

    def _new_numbers(self, kind: Kind, refusal: Refusal) -> list[Wait]:
        found: list[Wait] = []
        blockers = _blockers(refusal)
        for _, _, key in kind.line[:_REFRESHED_PER_KIND]:
            own = self._outcome.apart.get(key)
            reason, message = blockers[0].reason, blockers[0].message
            if own is not None:
                reason, message = own.reason, own.tell()
            if self._told.get(key) not in (None, (reason, message)):
                found.append(self._tell(key, refusal, blockers) if own is None else self._tell(key, own))
        return found

    def _tell(self, key: str, refusal: Refusal, blockers: tuple[Blocker, ...] = ()) -> Wait:
        wait = self._wait(key, refusal, blockers)
        self._told[key] = wait.reason, wait.message
        return wait

    def _wait(self, key: str, refusal: Refusal, blockers: tuple[Blocker, ...] = ()) -> Wait:
        blockers = blockers or _blockers(refusal)
        return Wait(
            key,
            refusal.reason,
            blockers[0].message,
            self._line.position(key),
            refusal.starts_seconds,
            blockers,
        )


def _sort(reason: str) -> str:
    """What is news when it changes: reasons of those who wait for their turn change into each other all the time."""
    return "in line" if reason in IN_LINE else reason


def _blockers(refusal: Refusal) -> tuple[Blocker, ...]:
    """Everything that is known to be in the way, in sentences, each once."""
    return tuple(dict.fromkeys(Blocker(r.reason, r.tell()) for r in refusal.all()))[:_BLOCKERS]
