"""Whether a gang may start now, and where: quota, power and room, in that order; and if not, why.

One `Judge` lasts for one pass of decisions. Within a pass room only shrinks, so what failed once fails again: verdicts
are kept, and thousands of like gangs cost one examination. Sentences are made only for those that are told.
"""

from __future__ import annotations

import numpy as np

from datahall.planning import messages, placing_messages
from datahall.planning.attainable import Attainable
from datahall.planning.backfill import Need, Reservation, reserve
from datahall.planning.books import Books
from datahall.planning.fitting import limited_by_power, slots
from datahall.planning.holds import Hold, Holds
from datahall.planning.packing.demand import PodClass
from datahall.planning.packing.hall_cost import MOST_WATTS
from datahall.planning.placing import NoPlace, Placing, holds, place
from datahall.planning.power_messages import no_watts
from datahall.planning.promises import Promises
from datahall.planning.shape import Shape
from datahall.planning.state import GPU, BoolArray, IntArray
from datahall.planning.topology import Domain
from datahall.planning.types import GangRequest, Level, WaitReason
from datahall.planning.verdicts import HOPELESS, NEAREST, Fit, Kept, Refusal
from datahall.planning.waiting import KindKey
from datahall.planning.within_quota import Units, WithinQuota


class Judge:
    """What one pass knows."""

    def __init__(
        self, books: Books, attainable: Attainable, units: Units, holds: Holds, *, now_seconds: float
    ) -> None:
        """Begin a pass.

        Args:
            books: The planner's memory; changed by the caller as gangs are admitted, followed by `started`.
            attainable: What the last passes found out about the hall.
            units: And about quotas.
            holds: What is held for gangs for which others are ending; changes are followed by `hold_back`.
            now_seconds: The time, in seconds since the epoch.
        """
        self._books = books
        self._hall = books.hall
        self._now = now_seconds
        self._holds = holds
        self._held_back = holds.back(books)
        nodes = self._hall.nodes
        attainable.renew()
        self._attainable = attainable
        self._failed: set[tuple[Shape, str, bool]] = set()
        self._slots: dict[tuple[Shape, str, str], tuple[IntArray, IntArray, int]] = {}
        self.quota = WithinQuota(books, holds, units)
        self._coming: IntArray | None = None
        self._promised_room: Promises | None = None
        self._promised_watts: Promises | None = None
        self.free: IntArray = nodes.free() - self._held_back
        self.pieces: IntArray = nodes.pieces
        self._busy: BoolArray = (nodes.pods[GPU] + nodes.gangs[GPU] + self._held_back[GPU]) > 0
        self.kept: Kept | None = None

    def hold_back(self, hold: Hold, sign: int = 1) -> None:
        """Hold more back from now on, or less: what is held for a gang has come, or with -1 has gone."""
        columns = []
        for name, taken in hold.places.items():
            column = self._hall.nodes.column(name)
            if column is not None:
                self._held_back[:, column] += np.multiply(taken, sign)
                columns.append(column)
        for promises in (self._promised_room, self._promised_watts):
            if promises is not None:
                promises.count(hold.gang.key, sign)
        if sign < 0:
            self._failed.clear()
        self.started(np.array(columns, dtype=np.int64))

    def among_those_held_for(self, begins: bool) -> None:
        """Judge gangs that room is held for, from now on or no longer: what will come for the others is not held back.

        On a node where five end for five, the first whose room is there starts; the other four are sure of what comes
        yet (`promises`). Nobody else may count on that: it would make those wait for whom room was made.
        """
        nodes, books, holds = self._hall.nodes, self._books, self._holds
        self._coming = books.holdings.coming(nodes.columns) if begins else None
        self._promised_room = holds.promised_room(books) if begins else None
        fed = begins and self._hall.fed_by() is not None
        self._promised_watts = holds.promised_watts(books) if fed else None
        self._hall.power.count_held(self._promised_watts)
        self._failed.clear()
        self.started(np.arange(nodes.columns))

    def spare(self) -> IntArray:
        """What is free and kept for nobody, for a use without an end, [resource, column]."""
        return self.free if self.kept is None else self.kept.reservation.usable(self.free, None)

    def started(self, columns: IntArray) -> None:
        """Look at some columns anew: something is held there now. What was looked at before stays as it was."""
        nodes = self._hall.nodes
        used = nodes.pods[:, columns] + nodes.gangs[:, columns]
        held_back = self._held_back[:, columns]
        self.free, self._busy = self.free.copy(), self._busy.copy()
        self._busy[columns] = (used[GPU] + held_back[GPU]) > 0
        if self._promised_room is not None:
            held_back = self._promised_room.lacking(columns)
        self.free[:, columns] = nodes.total[:, columns] - used - held_back
        self.pieces = nodes.pieces

    # ---- the judgement

    def judge(
        self,
        kind: KindKey,
        gang: GangRequest,
        *,
        stay: Domain | None = None,
        holding: bool = False,
        may_borrow: bool = True,
    ) -> Fit | Refusal | None:
        """Say where a gang would start now, or why it does not. The caller applies a fit before the next call.

        Args:
            kind: Its kind.
            gang: The gang.
            stay: The domain that was cleared for it, if one was.
            holding: Whether room is being made for it: what others keep does not bind it.
            may_borrow: Whether it may use more than its queue's nominal quota.

        Returns:
            None for one that would have to borrow and may not.
        """
        queue = self._books.queues.get(kind.queue)
        if queue is None:
            names = self._books.tree.names()
            return Refusal(WaitReason.QUEUE_NOT_FOUND, lambda: messages.queue_not_found(kind.queue, names))
        if queue.namespaces and kind.namespace not in queue.namespaces:
            return Refusal(
                WaitReason.NAMESPACE_NOT_ALLOWED,
                lambda: messages.namespace_not_allowed(kind.queue, kind.namespace, queue.namespaces),
            )
        shape = kind.shape
        models = self._attainable.models(shape)
        if not models:
            return self.never_fits(shape)
        refusals: list[Refusal] = []
        best: tuple[tuple[int, int, int], Fit] | None = None
        borrows = False
        for model in models:
            workers = self.quota.workers(kind, model, holding=holding)
            if isinstance(workers, int) and not may_borrow and self.quota.borrows(kind, model, workers):
                borrows = True
                continue
            found = (
                self._by_room(kind, gang, model, workers, stay=stay, holding=holding)
                if isinstance(workers, int)
                else workers
            )
            if isinstance(found, Refusal):
                refusals.append(found)
                continue
            if shape.models or not shape.gpus:
                return found
            rank = self._leftover(found), len(found.placing.columns), self._added_watts(found)
            if best is None or rank < best[0]:
                best = rank, found
        if best is not None:
            return best[1]
        if borrows:
            return None
        first = min(
            refusals,
            key=lambda found: (
                found.reason is WaitReason.QUOTA_TOO_SMALL,
                not self._attainable.fits_lasting(shape, found.model, kind.queue),
                NEAREST.index(found.reason),
            ),
        )
        others = tuple(refusal for refusal in refusals if refusal is not first)
        return Refusal(
            first.reason, first.tell, first.starts_seconds, first.short_of, first.model, first.beside + others
        )

    def never_fits(self, shape: Shape) -> Refusal:
        """That not even the empty hall holds a shape."""
        return Refusal(WaitReason.NEVER_FITS, lambda: messages.never_in_hall(self._hall, shape))

    def keep(self, kind: KindKey, gang: GangRequest, refusal: Refusal, *, kinds: int = 1) -> None:
        """Keep quota from those behind a refused gang, if it can start once others end.

        Args:
            kind: Its kind.
            gang: The gang.
            refusal: Why it waits.
            kinds: For how many kinds that ask for as much.
        """
        if refusal.reason in HOPELESS:
            return
        if not self._attainable.fits_lasting(kind.shape, refusal.model, kind.queue):
            return
        if refusal.short_of is None or refusal.short_of.ever:
            self.quota.keep(kind, gang, refusal, kinds=kinds)

    def reserve(
        self, kind: KindKey, gang: GangRequest, model: str, *, previous: Reservation | None
    ) -> Kept | None:
        """Keep room in the hall for a gang that has quota and no room; None if it would not even fit in time."""
        shape = kind.shape
        if not self._attainable.fits_lasting(shape, model, kind.queue):
            return None
        need = Need(shape.demand(), shape.array, self.columns(shape, model, kind.queue))
        found = reserve(
            self._hall.topology,
            self.free,
            self._books.holdings.running(self._now),
            need,
            now_seconds=self._now,
            previous=previous,
        )
        if isinstance(found, NoPlace):
            return None
        nodes = tuple(self._hall.nodes.name(column) for column in found.columns.tolist())
        self.kept = Kept(gang, kind, model, found, nodes)
        return self.kept

    def admitted(self, kind: KindKey, gang: GangRequest, fit: Fit) -> None:
        """A gang starts: what is spare on reserved columns shrinks."""
        kept = self.kept
        if kept is None:
            return
        if kept.gang.key == gang.key:
            self.kept = None
            return
        end = self._end(kind)
        kept.reservation = kept.reservation.after(fit.placing, end, kind.shape.array)

    # ---- room

    def may_fit(self, kind: KindKey, hold: Hold) -> bool:
        """Whether a gang may find room with what is held for it: a short look, which says no only if it is sure."""
        shape, nodes = kind.shape, self._hall.nodes
        if shape.shares:
            return True
        asked = [(row, int(amount)) for row, amount in enumerate(shape.array.tolist()) if amount > 0]
        for model in self._attainable.models(shape):
            columns = self.columns(shape, model, kind.queue)
            key = shape, model, kind.queue
            known = self._slots.get(key)
            if known is None or known[0] is not self.free:
                fits = slots(self.free, shape, columns)
                known = self._slots[key] = self.free, fits, int(fits.sum())
            _, fits, room = known
            for name, taken in hold.places.items():
                column = nodes.column(name)
                if column is not None and columns[column]:
                    here = [self._then(row, column, taken[row]) // amount for row, amount in asked]
                    room += max(0, min([shape.workers, *here])) - int(fits[column])
            if room >= shape.least:
                return True
        return False

    def columns(self, shape: Shape, model: str, queue: str) -> BoolArray:
        """Columns where workers may go, [column]; where watts are limited, only nodes whose caps are known."""
        return self._attainable.columns(shape, model, queue)

    def stands(self, kind: KindKey, hold: Hold, refusal: Refusal) -> bool:
        """Whether what is held for a refused gang is there once those who are leaving have gone, and not before."""
        nodes, coming = self._hall.nodes, self._coming
        assert coming is not None, "only among those held for"
        columns = self.columns(kind.shape, hold.model, kind.queue)
        waits = refusal.short_of is not None
        for name, taken in hold.places.items():
            column = nodes.column(name)
            if column is None or not columns[column]:
                return False
            waits |= bool(coming[:, column].any())
            left = nodes.total[:, column] - nodes.pods[:, column] - nodes.gangs[:, column]
            if (left + coming[:, column] < self._held_back[:, column] + taken).any():
                return False
        return waits and isinstance(self.quota.workers_in_the_end(kind, hold.model), int)

    def _then(self, row: int, column: int, taken: int) -> int:
        """The most that may be free of a resource with so much less held back; `promises` may leave less."""
        nodes = self._hall.nodes
        held_back = int(self._held_back[row, column]) - taken
        if self._coming is not None:
            held_back = max(0, held_back - int(self._coming[row, column]))
        used = int(nodes.pods[row, column]) + int(nodes.gangs[row, column])
        return int(nodes.total[row, column]) - used - held_back

    def _by_room(
        self,
        kind: KindKey,
        gang: GangRequest,
        model: str,
        workers: int,
        *,
        stay: Domain | None,
        holding: bool,
    ) -> Fit | Refusal:
        shape, nodes = kind.shape, self._hall.nodes
        columns = self.columns(shape, model, kind.queue)
        kept = self.kept
        bound = kept is not None and kept.gang.key != gang.key and not holding
        end = self._end(kind)
        if bound and kept is not None and (kept.reservation.passes(end) or _goes_before(kind, kept)):
            bound = False
        if (shape, model, False) in self._failed:
            return self._no_room(kind, model, columns)
        if bound and (shape, model, True) in self._failed:
            return self._reserved(kind, model, end)
        free = self.free
        pieces: IntArray | None = self.pieces if shape.shares else None
        if bound and kept is not None:
            free = kept.reservation.usable(free, end)
            if pieces is not None:
                pieces = pieces.copy()
                pieces[:, kept.reservation.columns] = 0
        fits = slots(free, shape, columns, pieces=pieces)
        fits = self.within_power(shape, model, fits)
        if int(fits.sum()) >= shape.least:
            fits = self._spread(gang, fits)
            pod = pod_class(shape)
            self._books.cost.follow(nodes)
            found = place(
                self._hall.topology,
                fits,
                shape.demand(workers),
                cost=self._books.cost.of(nodes, pod),
                busy=self._busy,
                stay=stay,
            )
            if isinstance(found, Placing):
                return Fit(model if shape.gpus else "", found)
        self._failed.add((shape, model, bound))
        if bound and (shape, model, False) not in self._failed and self._fits_free(shape, model, columns):
            return self._reserved(kind, model, end)
        self._failed.add((shape, model, False))
        return self._no_room(kind, model, columns)

    def _spread(self, gang: GangRequest, fits: IntArray) -> IntArray:
        """Slots without the columns that hold enough of its like, as long as there are others, [column]."""
        if not gang.spread_with or gang.workers > 1:
            return fits
        crowded = self._books.holdings.crowded(gang.spread_with)
        if not crowded:
            return fits
        apart = fits.copy()
        apart[crowded] = 0
        return apart if apart.any() else fits

    def within_power(
        self, shape: Shape, model: str, fits: IntArray, *, released: IntArray | None = None
    ) -> IntArray:
        """Fewer slots, such that workers on all of them stay within every power budget, [column].

        As budgets are now, or once others have given back so many watts, [domain].
        """
        if self._hall.fed_by() is None:
            return fits
        group_of = None
        if shape.required and shape.level is not None and shape.level is not Level.HALL:
            group_of = self._hall.topology.numbers(shape.level, len(fits))
        watts = self.quota.worker_watts(shape, model)
        return limited_by_power(self._hall, shape, fits, watts, group_of=group_of, released=released)

    def _fits_free(self, shape: Shape, model: str, columns: BoolArray) -> bool:
        fits = slots(self.free, shape, columns, pieces=self.pieces)
        return holds(self._hall.topology, self.within_power(shape, model, fits), shape.demand())

    def _no_room(self, kind: KindKey, model: str, columns: BoolArray) -> Refusal:
        """Why the hall does not hold it now."""
        shape, topology = kind.shape, self._hall.topology
        fits = slots(self.free, shape, columns, pieces=self.pieces)
        here = int(fits.sum())
        if holds(topology, fits, shape.demand()):
            watts = self.quota.worker_watts(shape, model)
            return Refusal(
                WaitReason.POWER_BUDGET, lambda: no_watts(self._hall, shape, fits, watts), model=model
            )
        if here >= shape.least:
            no = place(topology, fits, shape.demand())
            assert isinstance(no, NoPlace), "it does not fit"
            return Refusal(
                WaitReason.NO_ONE_DOMAIN,
                lambda: placing_messages.no_place(no, messages.demand(shape)),
                model=model,
            )
        free = self.free
        attainable = self._attainable.fits_lasting(shape, model, kind.queue)
        by_gpus = slots(free, shape._replace(cpu_milli=0, memory_bytes=0), columns, pieces=self.pieces)
        gpus_missing = shape.gpus > 0 and int(by_gpus.sum()) < shape.least
        reason = WaitReason.INSUFFICIENT_GPUS if gpus_missing else WaitReason.INSUFFICIENT_RESOURCES
        return Refusal(
            reason,
            lambda: messages.insufficient(
                self._hall,
                free,
                shape,
                model,
                columns,
                fit=here,
                gpus_missing=gpus_missing,
                attainable=attainable,
            ),
            model=model,
        )

    def _reserved(self, kind: KindKey, model: str, end: float | None) -> Refusal:
        kept = self.kept
        assert kept is not None, "only what is kept binds"
        keeper, reservation, now = kept.gang, kept.reservation, self._now
        return Refusal(
            WaitReason.RESERVED,
            lambda: placing_messages.kept_for(
                reservation,
                messages.demand(kind.shape),
                f"{keeper.name} (needs {messages.demand(Shape.of(keeper))})",
                end_seconds=end,
                now_seconds=now,
            ),
            model=model,
        )

    def _end(self, kind: KindKey) -> float | None:
        return None if kind.run_seconds is None else self._now + kind.run_seconds

    def _leftover(self, fit: Fit) -> int:
        """GPUs left free on the nodes of a fit, without what it takes (the same for all models)."""
        return int(self.free[GPU, fit.placing.columns].sum())

    def _added_watts(self, fit: Fit) -> int:
        """Watts at the caps of as many GPUs as each worker takes; of GPUs whose caps nobody knows, the worst."""
        watts = self._hall.nodes.gpu_watts[fit.placing.columns]
        if not watts.all():
            return MOST_WATTS * fit.placing.total
        return int((watts * fit.placing.workers).sum())


def pod_class(shape: Shape) -> PodClass:
    """A worker for the packing rule."""
    return PodClass(
        shape.cpu_milli,
        shape.memory_bytes >> 20,
        shape.gpus,
        shape.gpu_milli,
        frozenset(shape.models),
    )


def _goes_before(kind: KindKey, kept: Kept) -> bool:
    """Whether a gang is ahead of the one for which room is kept: in the same queue, by priority."""
    return kind.queue == kept.kind.queue and kind.priority > kept.kind.priority
