"""What happened to each job, and what follows from it: times to admission and the quota that was held.

Points in time are seconds of one clock that the caller chooses. Nothing here reads it. A job may be admitted, put out
and admitted again; what it held meanwhile counts each time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

Key = tuple[str, str]
"""Namespace and name of a job."""


@dataclass(slots=True)
class Entry:
    """One job: its class, its GPUs, and when each thing first happened to it (None: not yet)."""

    kind: str
    gpus: int
    workers: int
    created: float
    admitted: float | None = None
    bound: float | None = None
    finished: float | None = None
    held_since: float | None = None
    held_gpu_seconds: float = 0.0
    evictions: int = 0


class Ledger:
    """Takes down what happens. Telling it twice is telling it once."""

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}
        self.admitted = 0
        self.finished = 0

    def create(self, key: Key, *, kind: str, gpus: int, workers: int, at: float) -> None:
        """A job is about to be created."""
        self.entries[key] = Entry(kind, gpus, workers, at)

    def hold(self, key: Key, at: float) -> None:
        """It has its place and counts against its queue's quota."""
        entry = self.entries[key]
        if entry.held_since is not None or entry.finished is not None:
            return
        entry.held_since = at
        if entry.admitted is None:
            entry.admitted = at
            self.admitted += 1

    def bind(self, key: Key, at: float) -> None:
        """All its pods have a node from the scheduler."""
        entry = self.entries[key]
        if entry.bound is None:
            entry.bound = at

    def release(self, key: Key, at: float) -> None:
        """It was put out and gave its place back."""
        entry = self.entries[key]
        if self._let_go(entry, at):
            entry.evictions += 1

    def finish(self, key: Key, at: float) -> None:
        """It is done, and the quota is free again."""
        entry = self.entries[key]
        if entry.finished is not None:
            return
        self.hold(key, at)  # its admission may have passed between two looks
        self._let_go(entry, at)
        entry.finished = at
        self.finished += 1

    @staticmethod
    def _let_go(entry: Entry, at: float) -> bool:
        if entry.held_since is None:
            return False
        entry.held_gpu_seconds += entry.gpus * (at - entry.held_since)
        entry.held_since = None
        return True

    def held_gpu_seconds(self, until: float) -> float:
        """The integral of the GPUs held, up to a moment."""
        return sum(
            entry.held_gpu_seconds
            + (entry.gpus * (until - entry.held_since) if entry.held_since is not None else 0.0)
            for entry in self.entries.values()
        )

    @property
    def evictions(self) -> int:
        """How often a job was put out."""
        return sum(entry.evictions for entry in self.entries.values())

    def mean_seconds(self, what: str) -> dict[str, float]:
        """Mean time from creation to "admitted", "bound" or "finished", by class, of those that got so far."""
        times: dict[str, list[float]] = defaultdict(list)
        for entry in self.entries.values():
            at = getattr(entry, what)
            if at is not None:
                times[entry.kind].append(at - entry.created)
        return {kind: round(sum(of) / len(of), 3) for kind, of in sorted(times.items())}

    def last(self, what: str, keys: Iterable[Key] | None = None) -> float:
        """When the last of some jobs (of all) was "admitted", "bound" or "finished"."""
        chosen = self.entries.values() if keys is None else [self.entries[key] for key in keys]
        return max((at for entry in chosen if (at := getattr(entry, what)) is not None), default=0.0)


def utilisation_percent(gpu_seconds: float, *, gpus: int, seconds: float) -> float:
    """What share of a quota was used over a time, in per cent."""
    return round(100 * gpu_seconds / (gpus * seconds), 1) if gpus and seconds else 0.0
