"""Held gangs as arrays, brought up to date where they changed.

Thousands of gangs are held, and a few come and go between two looks: making the arrays anew cost more than all
decisions of a cycle. So gangs that left are masked out, those that came are appended, and the order of keys, which
breaks ties between equals, is kept by counting.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import numpy.typing as npt

from datahall.planning.held import GPU_FAMILY, Held
from datahall.planning.packing.demand import Floats
from datahall.planning.queues.spec import WATTS
from datahall.planning.state import GPU, BoolArray, IntArray, NodeArrays

_ROW = np.dtype(
    [
        ("priority", np.int64),
        ("evictions", np.int64),
        ("preemptible", np.bool_),
        ("leaving", np.bool_),
        ("shares", np.bool_),
        ("queue", np.int64),
        ("gpus", np.float64),
        ("gpu_milli", np.int64),
        ("gpu_resources", np.int64),
        ("watts", np.int64),
        ("started", np.float64),
        ("saved", np.float64),
        ("restart", np.float64),
        ("ends", np.float64),
        ("key_rank", np.int64),
    ]
)


class HeldArrays:
    """All held gangs. What it gives is good until the next change; nobody else writes to it.

    Attributes:
        held: The gangs.
        gang: The gang of each entry, ascending, [entry]; one entry for each column that a gang holds something on.
        column: The column of each entry, [entry].
        amounts: What is held there; a GPU that several share is held by the last of them to end, [resource, entry].
        alone: The same; a GPU that several share is held by none of them, [resource, entry].
    """

    def __init__(self, nodes: NodeArrays) -> None:
        self._nodes = nodes
        self.held: list[Held] = []
        self.gang: IntArray = np.zeros(0, dtype=np.int64)
        self.column: IntArray = np.zeros(0, dtype=np.int64)
        self.amounts: IntArray = np.zeros((3, 0), dtype=np.int64)
        self.alone: IntArray = self.amounts
        self._keys: tuple[str, ...] | None = None
        self._whole: IntArray = self.amounts
        self._rows: npt.NDArray[np.void] = np.zeros(0, dtype=_ROW)
        self._in_order: list[str] = []
        self._number_of: dict[str, int] = {}
        self._gpu_resources: dict[tuple[str, ...], int] = {}
        self._came: dict[str, Held] = {}
        self._left: list[Held] = []

    # ---- changes

    def add(self, held: Held) -> None:
        """A gang holds its place from now on."""
        self._came[held.gang.key] = held

    def remove(self, held: Held) -> None:
        """A gang that was added holds nothing any more."""
        if held.row >= 0:
            self._left.append(held)
        else:
            del self._came[held.gang.key]

    def told(self, held: Held) -> None:
        """Something that changes all the time has changed: its progress, or that it leaves."""
        if held.row >= 0:
            self._rows[held.row] = (*self._row(held)[:-1], self._rows["key_rank"][held.row])

    def bring_up(self) -> None:
        """Take in what changed; to be called before anything is read."""
        if not (self._left or self._came):
            return
        if self._left:
            self._take_out()
        if self._came:
            self._put_in()
        for row, held in enumerate(self.held):
            held.row = row
        self._keys = None
        self.amounts, self.alone = self._with_cards()

    # ---- views, [gang]

    @property
    def keys(self) -> tuple[str, ...]:
        """The gangs' keys."""
        if self._keys is None:
            self._keys = tuple([held.gang.key for held in self.held])
        return self._keys

    def whole_numbers(self, name: str) -> IntArray:
        """One of: priority, evictions, gpu_milli, watts, key_rank."""
        return self._rows[name]

    def times(self, name: str) -> Floats:
        """One of: started, saved, restart and ends (infinite where nobody knows), in seconds; or gpus."""
        return self._rows[name]

    def flags(self, name: str) -> BoolArray:
        """One of: preemptible, leaving."""
        return self._rows[name]

    def of_queue(self, queue: str) -> BoolArray:
        """Whether each gang is of a queue."""
        mine: BoolArray = self._rows["queue"] == self._number_of.get(queue, -1)
        return mine

    def by_queue(self, amounts: dict[str, float]) -> Floats:
        """What is told of each gang's queue; 0 where nothing is."""
        by_number = np.array([amounts.get(queue, 0.0) for queue in self._number_of] or [0.0])
        found: Floats = by_number[self._rows["queue"]]
        return found

    def charged(self, rows: IntArray) -> dict[str, IntArray]:
        """What some gangs are charged, by resource, [row]."""
        found = {WATTS: self._rows["watts"][rows]}
        number, milli = self._rows["gpu_resources"][rows], self._rows["gpu_milli"][rows]
        for resources, each in self._gpu_resources.items():
            alike = np.flatnonzero(number == each)
            for resource in resources if len(alike) else ():
                amounts = found.setdefault(resource, np.zeros(len(rows), dtype=np.int64))
                if len(resources) == 1:
                    amounts[alike] = milli[alike]
                else:  # gangs of several models are rare: nothing starts so
                    amounts[alike] = [self.held[row].charges[resource] for row in rows[alike].tolist()]
        return found

    # ---- inside

    def _row(self, held: Held) -> tuple[object, ...]:
        gang = held.gang
        gpus = tuple(resource for resource in held.charges if resource.startswith(GPU_FAMILY))
        return (
            gang.priority,
            gang.evictions,
            gang.preemptible,
            held.leaving,
            held.shares,
            self._number_of.setdefault(gang.queue, len(self._number_of)),
            held.gpus,
            sum(held.charges[resource] for resource in gpus),
            self._gpu_resources.setdefault(gpus, len(self._gpu_resources)),
            held.charges.get(WATTS, 0),
            held.started_seconds,
            held.saved_seconds,
            held.restart_seconds,
            held.known_end_seconds,
            0,
        )

    def _take_out(self) -> None:
        stay = np.ones(len(self.held), dtype=np.bool_)
        for held in self._left:
            stay[held.row] = False
        ranks = np.sort(self._rows["key_rank"][~stay])
        for rank in ranks[::-1].tolist():
            del self._in_order[rank]
        for held in self._left:
            held.row = -1
        self._left = []
        self.held = [held for held, stays in zip(self.held, stay.tolist(), strict=True) if stays]
        entries = stay[self.gang]
        self.gang = (stay.cumsum() - 1)[self.gang[entries]]
        self.column, self._whole = self.column[entries], self._whole[:, entries]
        self._rows = self._rows[stay]
        self._rows["key_rank"] -= np.searchsorted(ranks, self._rows["key_rank"])

    def _put_in(self) -> None:
        came = list(self._came.values())
        self._came = {}
        rows = np.array([self._row(held) for held in came], dtype=_ROW)
        keys = sorted(held.gang.key for held in came)
        places = np.array([bisect_left(self._in_order, key) for key in keys], dtype=np.int64)
        self._rows["key_rank"] += np.searchsorted(places, self._rows["key_rank"], side="right")
        rank_of = {
            key: place + number for number, (key, place) in enumerate(zip(keys, places.tolist(), strict=True))
        }
        rows["key_rank"] = [rank_of[held.gang.key] for held in came]
        self._in_order = sorted(self._in_order + keys)
        first = len(self.held)
        sizes = [len(held.columns) for held in came]
        self.held = self.held + came
        self._rows = np.concatenate([self._rows, rows])
        self.gang = np.concatenate([self.gang, np.repeat(np.arange(first, first + len(came)), sizes)])
        self.column = np.concatenate([self.column, *(held.columns for held in came)])
        self._whole = np.concatenate([self._whole, *(held.amounts for held in came)], axis=1)

    def _with_cards(self) -> tuple[IntArray, IntArray]:
        """Amounts with GPUs that are shared: with the last to end, and with whoever is alone there."""
        sharing = np.flatnonzero(self._rows["shares"]).tolist()
        if not sharing:
            return self._whole, self._whole
        amounts, alone = self._whole.copy(), self._whole.copy()
        users: dict[tuple[int, int], list[Held]] = {}
        for row in sharing:
            held = self.held[row]
            for placement in held.placements:
                column = self._nodes.column(placement.node)
                assert column is not None, "a node that something is accounted on has a column"
                here = users.setdefault((column, placement.card or 0), [])
                if held not in here:
                    here.append(held)
        for (column, _), here in users.items():
            last = max(here, key=lambda held: (held.known_end_seconds, held.gang.key))
            entry = int(np.searchsorted(self.gang, last.row)) + int(np.searchsorted(last.columns, column))
            amounts[GPU, entry] += 1
            if len(here) == 1:
                alone[GPU, entry] += 1
        return amounts, alone
