"""What the API server said to the children of an object, kept until it is tried again, and later each time.

A refusal is about one spec of one object. It goes with the object, with its spec, and once its children could be made:
nothing here outlives what it speaks of.
"""

from __future__ import annotations

from dataclasses import dataclass

from datahall.control.training.seen import Refusal
from datahall.control.workqueue import Key

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0
"""A refusal by the surroundings (a quota, a service account that is not there yet) is tried again, later each time."""


@dataclass(frozen=True, slots=True)
class _Kept:
    uid: str
    generation: int
    refusal: Refusal
    until: float
    patience: float


class Refusals:
    """The newest refusal per object, and until when it stands."""

    def __init__(self) -> None:
        self._kept: dict[Key, _Kept] = {}

    def __len__(self) -> int:
        """How many objects have one."""
        return len(self._kept)

    def keep(self, key: Key, *, uid: str, generation: int, refusal: Refusal, now: float) -> None:
        """Keep a refusal: twice as long as the one before it.

        Args:
            key: the object.
            uid: its uid.
            generation: its metadata.generation: another spec is another question.
            refusal: what was said.
            now: the loop's time.
        """
        before = self._of(key, uid, generation)
        patience = min(2 * before.patience, LONGEST_SECONDS) if before else FIRST_SECONDS
        self._kept[key] = _Kept(uid, generation, refusal, now + patience, patience)

    def standing(self, key: Key, *, uid: str, generation: int, now: float) -> tuple[Refusal, float] | None:
        """The refusal that stands, and for how many seconds yet; None if it may be tried (again)."""
        kept = self._of(key, uid, generation)
        if kept is None or kept.until <= now:
            return None  # one that has run out is kept all the same: the next is waited for twice as long
        return kept.refusal, kept.until - now

    def forget(self, key: Key) -> None:
        """The object is gone or has ended, or its children could be made."""
        self._kept.pop(key, None)

    def _of(self, key: Key, uid: str, generation: int) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is not None and (kept.uid, kept.generation) != (uid, generation):
            del self._kept[key]
            return None
        return kept
