"""What is held: gangs with their places, and everything that follows from it for nodes, quota and power.

A gang takes and gives back everything together. What it was charged is kept with it, so that exactly this is given
back, whatever has changed meanwhile: labels, caps, models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from datahall.planning.backfill import RunningGangs
from datahall.planning.candidates import Candidates
from datahall.planning.hall import Hall
from datahall.planning.held import GPU_FAMILY, Held, sum_watts
from datahall.planning.held_arrays import HeldArrays
from datahall.planning.packing.demand import Floats
from datahall.planning.promises import Entries, add_up
from datahall.planning.queues.spec import WATTS
from datahall.planning.queues.tree import QueueTree
from datahall.planning.state import BoolArray, Holder, IntArray
from datahall.planning.types import WHOLE_GPU_MILLI, GangProgress, GangRequest, Placement


def gpu_resource(model: str) -> str:
    """The quota resource of a GPU model."""
    return f"{GPU_FAMILY}:{model}"


@dataclass(slots=True)
class _Rate:
    """What the gangs of a queue hold together."""

    gpu_milli: int = 0
    watts: int = 0
    gangs: int = 0


class _Names(Sequence[str]):
    """Names of gangs, looked up when one is wanted."""

    def __init__(self, held: list[Held]) -> None:
        self._held = held

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, number: int) -> str:  # type: ignore[override]
        return self._held[number].gang.name


class Holdings:
    """All gangs that hold their place; the only one who lets gangs take from the hall and the quota tree."""

    def __init__(self, hall: Hall, tree: QueueTree) -> None:
        self._hall = hall
        self._tree = tree
        self._held: dict[str, Held] = {}
        self._rates: dict[str, _Rate] = {}
        self._spread: dict[str, set[str]] = {}
        self._leaving: dict[str, dict[str, int]] = {}
        self._arrays = HeldArrays(hall.nodes)
        self._departures = 0
        self.version = 0
        """Grows with every change of who holds what, and who leaves."""
        self.freed_version = 0
        """Grows with every change that may let somebody start who could not before."""

    # ---- changes

    def take(
        self,
        gang: GangRequest,
        placements: tuple[Placement, ...],
        now_seconds: float,
        *,
        leaving: bool = False,
    ) -> Held:
        """Hold a gang at its places, and no longer where it was held before. Nothing is checked: it is so."""
        before = self._held.get(gang.key)
        charges, node_watts = self._charges(gang, placements)
        gpus = sum(amount for r, amount in charges.items() if r.startswith(GPU_FAMILY)) / WHOLE_GPU_MILLI
        held = Held(gang, placements, charges, node_watts, now_seconds, gpus)
        if before is not None:
            held.since_seconds = before.since_seconds
            held.progress = before.progress
            held.departure = before.departure
        if leaving and not held.leaving:
            self._depart(held)
        # New before old: a node that is gone is remembered only while something is accounted on it.
        self._apply(held, 1)
        if before is not None:
            self._apply(before, -1)
            self._arrays.remove(before)
            self.freed_version += 1
        self._held[gang.key] = held
        if gang.spread_with:
            self._spread.setdefault(gang.spread_with, set()).add(gang.key)
        self._arrays.add(held)
        return held

    def let_go(self, key: str) -> Held | None:
        """Free what a gang holds; None if it held nothing."""
        held = self._held.pop(key, None)
        if held is not None:
            self._apply(held, -1)
            self._arrays.remove(held)
            self.freed_version += 1
            together = self._spread.get(held.gang.spread_with)
            if together is not None:
                together.discard(key)
                if not together:
                    del self._spread[held.gang.spread_with]
        return held

    def leave(self, held: Held) -> None:
        """A held gang is ending from now on: its room comes free without anyone asking."""
        if not held.leaving:
            self._depart(held)
            self._note_leaving(held, 1)
        self._arrays.told(held)
        self.version += 1

    def date(self, now_seconds: float) -> None:
        """Take gangs that were told before anyone told the time for started now: nobody ends them too early."""
        for held in self._held.values():
            held.since_seconds = now_seconds
            self._arrays.told(held)

    def progress(self, key: str, progress: GangProgress) -> None:
        """Take in how a held gang does; unknown gangs are ignored."""
        held = self._held.get(key)
        if held is not None:
            held.progress = progress
            self._arrays.told(held)

    def next_departures(self, gangs: int) -> range:
        """The numbers that the next so many gangs get when they begin to leave."""
        return range(self._departures, self._departures + gangs)

    def coming(self, columns: int) -> IntArray:
        """What those who are leaving hold, [resource, column]; of a GPU that several share nothing."""
        leaving = self.leaving_on_nodes()
        found = np.zeros((3, columns), dtype=np.int64)
        add_up(found, leaving.slots, leaving.amounts)
        return found

    def leaving_on_nodes(self) -> Entries:
        """The same by departure and column."""
        arrays = self._as_arrays()
        entries = np.flatnonzero(arrays.flags("leaving")[arrays.gang])
        departures = [arrays.held[gang].departure for gang in arrays.gang[entries].tolist()]
        numbers = np.array(departures, dtype=np.int64)
        return Entries(arrays.column[entries], arrays.alone[:, entries], numbers)

    def leaving_below_domains(self) -> Entries:
        """Watts that those who are leaving have reserved, by departure and power domain."""
        gangs = (self._held[key] for key in self.leaving())
        return self._hall.power.entries((held.departure, held.node_watts) for held in gangs)

    def leaving_watts(self) -> dict[str, int]:
        """Watts that those who are leaving have reserved, by node."""
        return sum_watts(self._held[key] for key in self.leaving())

    def uncharge_leaving(self, sign: int = -1) -> None:
        """Take all that are leaving off the quota tree alone, to see what that would allow; put them back with 1."""
        for queue, charges in self._leaving.items():
            self._tree.charge(queue, charges, sign)

    def leaving_of(self, queue: str, entry: str) -> int:
        """What gangs of a queue that are leaving give back of one entry of its quota."""
        charges = self._leaving.get(queue, {})
        return sum(amount for r, amount in charges.items() if self._tree.entry(queue, r) == entry)

    def uncharge(self, keys: Iterable[str]) -> list[Held]:
        """Take gangs off the quota tree alone, to see what that would allow; `recharge` puts them back."""
        taken = [self._held[key] for key in keys if key in self._held]
        for held in taken:
            self._tree.charge(held.gang.queue, held.charges, -1)
        return taken

    def recharge(self, taken: Iterable[Held]) -> None:
        """Put gangs back that `uncharge` took off."""
        for held in taken:
            self._tree.charge(held.gang.queue, held.charges, 1)

    # ---- views

    def get(self, key: str) -> Held | None:
        """A held gang by key."""
        return self._held.get(key)

    def __iter__(self) -> Iterator[Held]:
        """All held gangs."""
        return iter(self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def crowded(self, spread_with: str) -> list[int]:
        """Columns that would hold more than half of the gangs that are spread together, with one more there."""
        held = [self._held[key] for key in self._spread.get(spread_with, ()) if not self._held[key].leaving]
        on: dict[int, int] = {}
        for gang in held:
            for column in gang.columns.tolist():
                on[column] = on.get(column, 0) + 1
        most = -(-(len(held) + 1) // 2)
        return sorted(column for column, number in on.items() if number + 1 > most)

    def count(self, queue: str) -> int:
        """How many gangs of a queue hold their place."""
        rate = self._rates.get(queue)
        return 0 if rate is None else rate.gangs

    def rates(self) -> dict[str, tuple[float, int]]:
        """GPUs and watts held by each queue's gangs."""
        return {queue: (r.gpu_milli / WHOLE_GPU_MILLI, r.watts) for queue, r in self._rates.items()}

    def usage(self, queue: str) -> dict[str, int]:
        """GPU thousandths that a queue's gangs hold, by model."""
        used: dict[str, int] = {}
        for held in self._held.values():
            if held.gang.queue == queue:
                for resource, amount in held.charges.items():
                    if resource.startswith(GPU_FAMILY):
                        model = resource.partition(":")[2]
                        used[model] = used.get(model, 0) + amount
        return {model: amount for model, amount in sorted(used.items()) if amount}

    def running(self, now_seconds: float) -> RunningGangs:
        """All held gangs with their expected ends, for `backfill.reserve`.

        A GPU that several gangs share is freed by the last of them to end.

        Args:
            now_seconds: The time, in seconds since the epoch.
        """
        arrays = self._as_arrays()
        # A gang that is leaving is about to end, whatever its step rate says.
        ends: Floats = np.where(arrays.flags("leaving"), now_seconds, arrays.times("ends"))
        return RunningGangs(
            names=_Names(arrays.held),
            end_seconds=ends,
            gang=arrays.gang,
            columns=arrays.column,
            amounts=arrays.amounts,
        )

    def candidates(self, now_seconds: float, minimum_run_seconds: dict[str, float]) -> Candidates:
        """All held gangs as candidates for preemption.

        A GPU that several gangs share is freed by none of them: ending one would not make it whole.

        Args:
            now_seconds: The time, in seconds since the epoch.
            minimum_run_seconds: How long gangs of a queue may run undisturbed, by queue.
        """
        arrays = self._as_arrays()
        started, evictions = arrays.times("started").copy(), arrays.whole_numbers("evictions")
        seconds = np.maximum(now_seconds - arrays.times("saved"), 0.0) + arrays.times("restart")
        cost = np.rint(seconds * arrays.times("gpus") * (1 + evictions)).astype(np.int64)
        rank = np.empty(len(cost), dtype=np.int64)
        order = np.lexsort((arrays.whole_numbers("key_rank"), -started, evictions, cost))
        rank[order] = np.arange(len(cost))
        return Candidates(
            keys=arrays.keys,
            cost_gpu_seconds=cost,
            priority=arrays.whole_numbers("priority"),
            evictions=evictions,
            started_seconds=started,
            minimum_run_seconds=arrays.by_queue(minimum_run_seconds),
            leaving=arrays.flags("leaving").copy(),
            rank=rank,
            order=order,
            gang=arrays.gang,
            column=arrays.column,
            amounts=arrays.alone,
        )

    def preemptible(self) -> BoolArray:
        """Whether each held gang may be ended for others, in the order of `candidates`, [gang]."""
        return self._as_arrays().flags("preemptible")

    def of_queue(self, queue: str) -> BoolArray:
        """Whether each held gang is of a queue, in the order of `candidates`, [gang]."""
        return self._as_arrays().of_queue(queue)

    def in_order(self) -> list[Held]:
        """Held gangs in the order of `running` and `candidates`."""
        return self._as_arrays().held

    def leaving(self) -> list[str]:
        """Keys of held gangs that are ending."""
        arrays = self._as_arrays()
        return [arrays.held[i].gang.key for i in np.flatnonzero(arrays.flags("leaving")).tolist()]

    def first_to_give_back(self) -> IntArray:
        """All held gangs, lowest priority first, then the latest started, by their place in `candidates`."""
        arrays = self._as_arrays()
        found: IntArray = np.lexsort(
            (arrays.whole_numbers("key_rank"), -arrays.times("started"), arrays.whole_numbers("priority"))
        )
        return found

    def charged(self, resource: str) -> IntArray:
        """What each held gang is charged of a resource, GPUs of all models together, as `in_order`, [gang]."""
        return self._as_arrays().whole_numbers("watts" if resource == WATTS else "gpu_milli")

    def charges_of(self, rows: IntArray) -> dict[str, IntArray]:
        """What some held gangs are charged, by resource, by their place in `candidates`, [row]."""
        return self._as_arrays().charged(rows)

    # ---- inside

    def _depart(self, held: Held) -> None:
        held.departure = self._departures
        self._departures += 1

    def _note_leaving(self, held: Held, sign: int) -> None:
        """Keep together what all that are leaving are charged, by queue."""
        charges = self._leaving.setdefault(held.gang.queue, {})
        for resource, amount in held.charges.items():
            charges[resource] = charges.get(resource, 0) + sign * amount
            if not charges[resource]:
                del charges[resource]
        if not charges:
            del self._leaving[held.gang.queue]

    def _charges(
        self, gang: GangRequest, placements: tuple[Placement, ...]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """What a gang's queue is charged, and watts by node."""
        charges: dict[str, int] = {}
        node_watts: dict[str, int] = {}
        if gang.gpus == 0:
            return charges, node_watts
        milli = gang.gpus * gang.gpu_milli
        nodes = self._hall.nodes
        for placement in placements:
            resource = gpu_resource(placement.gpu_model)
            charges[resource] = charges.get(resource, 0) + milli
            column = nodes.column(placement.node)
            watts = 0 if column is None else -(-int(nodes.gpu_watts[column]) * milli // 1000)
            if watts:
                node_watts[placement.node] = node_watts.get(placement.node, 0) + watts
        if node_watts:
            charges[WATTS] = sum(node_watts.values())
        return charges, node_watts

    def _apply(self, held: Held, sign: int) -> None:
        gang, nodes = held.gang, self._hall.nodes
        shares = held.shares
        amounts = (0 if shares else sign * gang.gpus, sign * gang.cpu_milli, sign * gang.memory_bytes)
        for placement in held.placements:
            if shares and sign < 0:
                nodes.use_card(placement.node, placement.card or 0, -gang.gpu_milli)
            nodes.use(placement.node, Holder.GANGS, amounts, sign)
            if shares and sign > 0:
                nodes.use_card(placement.node, placement.card or 0, gang.gpu_milli)
        if sign > 0:
            self._note_columns(held)
        self._tree.charge(gang.queue, held.charges, sign)
        if held.leaving:
            self._note_leaving(held, sign)
        for node, watts in held.node_watts.items():
            if sign > 0:
                self._hall.power.reserve(node, watts)
            else:
                self._hall.power.release(node, watts)
        rate = self._rates.setdefault(gang.queue, _Rate())
        # Whole numbers, which add up to nothing again once everyone has left.
        rate.gpu_milli += sign * round(held.gpus * WHOLE_GPU_MILLI)
        rate.watts += sign * held.watts
        rate.gangs += sign
        if rate.gangs == 0:
            del self._rates[gang.queue]
        self.version += 1

    def _note_columns(self, held: Held) -> None:
        """Columns and amounts as arrays; a column stays a node's as long as something is accounted on it."""
        workers: dict[int, int] = {}
        for placement in held.placements:
            at = self._hall.nodes.column(placement.node)
            assert at is not None, "a node that something is accounted on has a column"
            workers[at] = workers.get(at, 0) + 1
        gang = held.gang
        columns = sorted(workers)
        each = np.array([0 if held.shares else gang.gpus, gang.cpu_milli, gang.memory_bytes], dtype=np.int64)
        held.columns = np.array(columns, dtype=np.int64)
        held.workers = np.array([workers[at] for at in columns], dtype=np.int64)
        held.amounts = each[:, None] * held.workers[None, :]

    def _as_arrays(self) -> HeldArrays:
        self._arrays.bring_up()
        return self._arrays


__all__ = ["GPU_FAMILY", "Held", "Holdings", "gpu_resource"]
