"""How many workers of a gang its queue's quota allows, and what a waiting gang keeps of it from those behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

from datahall.planning import messages
from datahall.planning.books import Books
from datahall.planning.fitting import has_model
from datahall.planning.holdings import gpu_resource
from datahall.planning.holds import Holds
from datahall.planning.queues import messages as queue_messages
from datahall.planning.queues.reclaim import reclaimable
from datahall.planning.queues.spec import JOULES_PER_DAY, WATTS
from datahall.planning.queues.verdicts import Fits, RefusalReason, Refused
from datahall.planning.shape import Shape
from datahall.planning.types import GangRequest, WaitReason
from datahall.planning.verdicts import Refusal, Tell
from datahall.planning.waiting import KindKey

_HOUR_SECONDS = 3600
"""A gang is started only if its queue's budget of joules lasts it for an hour."""


_FOR_NOW = frozenset({WaitReason.QUOTA_EXCEEDED, WaitReason.BORROWED_AWAY})


_Entries = list[tuple[str, tuple[str, str], int]]


@dataclass(slots=True)
class Units:
    """What one worker takes of a quota; true as long as neither nodes nor the specifications of queues change.

    Attributes:
        version: Of nodes and queues.
        caps: The highest power cap of a GPU, by model.
        of: By queue, model and GPU thousandths: units by resource.
        entries: By the same: each resource, the queue and its entry for it, and the unit.
    """

    version: tuple[int, int] = (-1, -1)
    caps: dict[str, int] = field(default_factory=dict)
    of: dict[tuple[str, str, int], dict[str, int]] = field(default_factory=dict)
    entries: dict[tuple[str, str, int], _Entries] = field(default_factory=dict)


class WithinQuota:
    """What one pass knows of quota: what is kept for whom."""

    def __init__(self, books: Books, holds: Holds, units: Units) -> None:
        """Begin a pass.

        Args:
            books: The planner's memory.
            holds: What is held for gangs for which others are ending.
            units: What the last passes found out.
        """
        self._books = books
        self._holds = holds
        version = books.hall.nodes.version, books.tree.version
        if units.version != version:
            units.version = version
            units.caps, units.of, units.entries = {}, {}, {}
        self._caps, self._units, self._entries_of = units.caps, units.of, units.entries
        self._behind: dict[str, tuple[int, dict[tuple[object, ...], Refusal]]] = {}
        self._kept: dict[tuple[str, str], int] = {}
        self._first_keeper: dict[tuple[str, str], GangRequest] = {}
        self._closed: dict[tuple[str, str], GangRequest] = {}

    def units(self, kind: KindKey, model: str) -> dict[str, int]:
        """What one worker takes of the queue's quota on a GPU model, by resource."""
        shape = kind.shape
        if shape.gpus == 0:
            return {}
        key = kind.queue, model, shape.worker_gpu_milli
        units = self._units.get(key)
        if units is None:
            units = self._units[key] = {gpu_resource(model): shape.worker_gpu_milli}
            watts = self.worker_watts(shape, model)
            if watts:
                units[WATTS] = watts
                if self._books.tree.room(kind.queue, JOULES_PER_DAY) is not None:
                    units[JOULES_PER_DAY] = watts * _HOUR_SECONDS
        return units

    def _entries(self, kind: KindKey, model: str) -> _Entries:
        """`units`, each with the queue and its entry for the resource."""
        key = kind.queue, model, kind.shape.worker_gpu_milli
        found = self._entries_of.get(key)
        if found is None:
            entry = self._books.tree.entry
            found = self._entries_of[key] = [
                (resource, (kind.queue, entry(kind.queue, resource)), unit)
                for resource, unit in self.units(kind, model).items()
            ]
        return found

    def worker_watts(self, shape: Shape, model: str) -> int:
        """What one worker reserves at most on a GPU model, in watts; 0 where caps are not known."""
        if shape.gpus == 0:
            return 0
        cap = self._caps.get(model)
        if cap is None:
            nodes = self._books.hall.nodes
            cap = int(nodes.gpu_watts[has_model(nodes, shape, model)].max(initial=0))
            self._caps[model] = cap
        return -(-cap * shape.worker_gpu_milli // 1000)

    def workers(self, kind: KindKey, model: str, *, holding: bool) -> int | Refusal:
        """How many workers quota allows on a model, at least `least`; or why not that many.

        A gang that room is held for is asked two things, with its own hold given up. Whether all that is held and
        runs fits once those have gone who are leaving: else others would be ended in vain. And whether what it takes
        is there now: what is held for others is nobody's yet, as long as those who end for them are still here, and
        must not keep it from what was freed for it.
        """
        if holding:
            then = self.workers_in_the_end(kind, model)
            if isinstance(then, Refusal):
                return then
            self._holds.uncharge(self._books)
            now = self._workers(kind, model, holding=True)
            self._holds.uncharge(self._books, 1)
            return now if isinstance(now, Refusal) else min(now, then)
        version = self._books.tree.answers_version(kind.queue)
        known_version, known = self._behind.get(kind.queue, (-1, {}))
        if known_version != version:
            known = {}
            self._behind[kind.queue] = version, known
        # Who stands behind another stays there: more is kept, never less. And so do all that ask for as many GPUs.
        shape = kind.shape
        key = shape.least, shape.workers, shape.gpus, shape.gpu_milli, shape.models, model
        behind = known.get(key)
        if behind is not None:
            return behind
        found = self._workers(kind, model, holding=False)
        if isinstance(found, Refusal) and found.reason is WaitReason.BEHIND_OTHERS:
            known[key] = found
        return found

    def workers_in_the_end(self, kind: KindKey, model: str) -> int | Refusal:
        """How many workers quota will allow a gang that room is held for, once those have gone who are leaving."""
        holdings = self._books.holdings
        holdings.uncharge_leaving()
        found = self._workers(kind, model, holding=True)
        holdings.uncharge_leaving(1)
        return found

    def _workers(self, kind: KindKey, model: str, *, holding: bool) -> int | Refusal:
        shape, tree = kind.shape, self._books.tree
        workers = shape.workers
        for resource, entry, unit in self._entries(kind, model):
            room = tree.room(kind.queue, resource)
            if room is not None:
                kept = 0 if holding else self._kept.get(entry, 0)
                workers = min(workers, (room - kept) // unit)
        units = self.units(kind, model)
        if workers >= shape.least:
            keeper = None if holding or not self._closed else self._closed_to(kind, units, workers)
            if keeper is None:
                return workers
            return self._behind_pool(kind, model, keeper)
        verdict = tree.verdict(kind.queue, {r: unit * shape.least for r, unit in units.items()})
        if isinstance(verdict, Fits):
            return self._behind_quota(kind, model, self._keeper(kind, model))
        refusal = self._quota_refusal(kind, model, verdict)
        if holding or refusal.reason not in _FOR_NOW:
            return refusal
        # Who is first is told the numbers. For those behind they change with every gang that comes and goes, and say
        # nothing of when it is their turn.
        first = self._first_keeper.get((kind.queue, verdict.entry))
        if first is not None:
            return self._behind_quota(kind, model, first, refusal)
        first = self._closed.get((verdict.where, verdict.resource))
        if first is None or first.queue == kind.queue:
            return refusal
        return self._behind_pool(kind, model, first, refusal)

    def borrows(self, kind: KindKey, model: str, workers: int) -> bool:
        """Whether so many workers are more than what the queue has of its own."""
        tree = self._books.tree
        if tree.parent(kind.queue) is None:
            return False
        verdict = tree.verdict(kind.queue, {r: n * workers for r, n in self.units(kind, model).items()})
        return not isinstance(verdict, Fits) or bool(verdict.borrowed)

    def _quota_refusal(self, kind: KindKey, model: str, refused: Refused) -> Refusal:
        shape, tree = kind.shape, self._books.tree
        if refused.resource == WATTS:
            reason = WaitReason.POWER_BUDGET
        elif refused.resource == JOULES_PER_DAY:
            reason = WaitReason.ENERGY_BUDGET
        elif refused.reason is RefusalReason.LENT_AWAY:
            reason = WaitReason.BORROWED_AWAY
        else:
            reason = WaitReason.QUOTA_EXCEEDED
        if not refused.ever or refused.reason is RefusalReason.NOT_GRANTED:
            reason = WaitReason.QUOTA_TOO_SMALL
        amounts = {refused.resource: refused.asked}

        def tell() -> str:
            gives_back = reclaimable(tree, kind.queue, amounts)
            return queue_messages.refused(
                refused, spec=tree.spec(kind.queue), gives_back=gives_back, need=messages.demand(shape)
            )

        return Refusal(reason, tell, short_of=refused, model=model)

    def _keeper(self, kind: KindKey, model: str) -> GangRequest:
        """The first gang for which quota is kept that a kind would use."""
        keepers = [self._first_keeper.get(entry) for _, entry, _ in self._entries(kind, model)]
        return next(gang for gang in keepers if gang is not None)

    def _behind_quota(
        self, kind: KindKey, model: str, keeper: GangRequest, beside: Refusal | None = None
    ) -> Refusal:
        return _behind(lambda: messages.quota_kept(kind.shape, kind.queue, keeper), model, beside)

    def _behind_pool(
        self, kind: KindKey, model: str, keeper: GangRequest, beside: Refusal | None = None
    ) -> Refusal:
        return _behind(lambda: messages.pool_kept(kind.shape, kind.queue, keeper), model, beside)

    def _closed_to(self, kind: KindKey, units: dict[str, int], workers: int) -> GangRequest | None:
        """The gang of another queue for which a pool is kept that this one would borrow from."""
        tree = self._books.tree
        verdict = tree.verdict(kind.queue, {r: unit * workers for r, unit in units.items()})
        if not isinstance(verdict, Fits) or not verdict.borrowed:
            return None
        here: str | None = kind.queue
        while here is not None:
            for resource in verdict.borrowed:
                keeper = self._closed.get((here, resource))
                if keeper is not None and keeper.queue != kind.queue:
                    return keeper
            here = tree.parent(here)
        return None

    def keep(self, kind: KindKey, gang: GangRequest, refusal: Refusal, *, kinds: int = 1) -> None:
        """Keep from those behind it what a refused gang will need; it must be able to start once others end."""
        least = kind.shape.least * kinds
        for resource, entry, unit in self._entries(kind, refusal.model):
            if resource != JOULES_PER_DAY:
                self._kept[entry] = self._kept.get(entry, 0) + unit * least
                self._first_keeper.setdefault(entry, gang)
        short = refusal.short_of
        if short is not None and short.where != kind.queue and short.resource != JOULES_PER_DAY:
            self._closed.setdefault((short.where, short.resource), gang)


def _behind(tell: Tell, model: str, beside: Refusal | None) -> Refusal:
    """Quota is kept for another; beside it is told what quota lacks, if it does."""
    if beside is None:
        return Refusal(WaitReason.BEHIND_OTHERS, tell, model=model)
    return Refusal(WaitReason.BEHIND_OTHERS, tell, short_of=beside.short_of, model=model, beside=(beside,))
