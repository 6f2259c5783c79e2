"""KAI's sets: a hall that is filled with jobs that run for ever, and what is then asked of it.

There as here a job counts when the scheduler has bound its last pod, by the watch's word; there the clock starts when
the scheduler is let loose on pods that exist, here with the creation of the first job, except in kai-fill-backlog.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.admission_hall import Hall, in_parallel, say
from bench.admission_kubelet import Kubelet
from bench.admission_ledger import Key, Ledger, utilisation_percent
from bench.admission_objects import Json, condition, queue
from bench.admission_queues import Generator
from bench.admission_sets import GANG_PODS, Arrival, HallSet, JobClass
from datahall.kube import KubeClient
from datahall.kube.resources import PODS, TRAINING_JOBS

OWN_START = frozenset({"kai-fill-backlog"})
"""Sets that start the operator themselves."""

FILLER, ASKER = "filler", "asker"
SAMPLES = 10
"""How often the sets that take a mean ask."""
NOT_YET = ("MakingRoom", "WaitingInLine")
"""Reasons to wait that promise a start: they do not tell that nothing will come of it."""
RESETTLE_SECONDS = 120.0
"""How long jobs that had to move are waited for, after the clock has stopped."""


@dataclass(slots=True)
class Stage:
    """What every set of this family needs."""

    hall: Hall
    of: HallSet
    control: bool
    ledger: Ledger
    kubelet: Kubelet
    generator: Generator
    kubelets: asyncio.Task[None]
    until: float
    made: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    async def submit(self, shape: JobClass, queue_name: str, count: int) -> list[Key]:
        """Create equal jobs as fast as the API server takes them; their keys."""
        first = self.made
        self.made += count
        of = [Arrival(0.0, queue_name, f"{shape.name}-{first + n}", shape) for n in range(count)]
        await self.generator.run(of)
        return [(one.queue, one.name) for one in of]

    async def bound(self, keys: Sequence[Key]) -> bool:
        """Wait until all pods of these jobs are bound; whether they were in time."""
        loop = asyncio.get_running_loop()
        left, told = set(keys), loop.time()
        while left:
            left = {key for key in left if self.ledger.entries[key].bound is None}
            self.hall.check_operator()
            if self.kubelets.done():
                self.kubelets.result()  # raises what ended it
            if loop.time() > self.until:
                say(f"the time is over with {len(left)} of {len(keys)} jobs not bound")
                if not self.control:
                    await self.hall.tell_unfinished()
                return False
            if loop.time() - told > 10:
                told = loop.time()
                say(f"{len(keys) - len(left)} of {len(keys)} jobs bound")
            await asyncio.sleep(0.2)
        return True

    async def fill(self) -> list[Key]:
        """Fill the whole hall with one-GPU jobs that all run, before anything is measured."""
        keys = await self.submit(_job("one", 1, 1), FILLER, self.of.gpus)
        if not await self.bound(keys):
            raise TimeoutError("the hall could not be filled in the time allowed")
        say(f"{len(keys)} jobs fill the hall")
        return keys

    async def timed(self, shape: JobClass, queue_name: str, count: int) -> tuple[float, bool]:
        """Submit and wait until bound; seconds from the first creation to the last binding."""
        started = asyncio.get_running_loop().time()
        keys = await self.submit(shape, queue_name, count)
        complete = await self.bound(keys)
        ended = self.ledger.last("bound", keys) if complete else asyncio.get_running_loop().time()
        return ended - started, complete


def _job(
    name: str, workers: int, gpus: int, topology: dict[str, str] | None = None, *, priority: int = 0
) -> JobClass:
    return JobClass(
        name=name,
        count=1,
        every_seconds=0.0,
        runtime_seconds=0.0,
        priority=priority,
        workers=workers,
        gpus=gpus,
        topology=topology,
    )


async def play(hall: Hall, of: HallSet, *, control: bool, timeout_seconds: float) -> dict[str, Any]:
    """Play a set; the figures."""
    loop = asyncio.get_running_loop()
    ledger = Ledger()
    async with await KubeClient.connect(
        kubeconfig=str(hall.server.kubeconfig), connections=32, timeout_seconds=60.0
    ) as client:
        kubelet = Kubelet(client, ledger, runtimes={}, reports_running=True, operator=not control)
        kubelets = asyncio.create_task(kubelet.run())
        generator = Generator(client, ledger, control, topology=hall.topology)
        stage = Stage(hall, of, control, ledger, kubelet, generator, kubelets, loop.time() + timeout_seconds)
        try:
            await _queues(hall, of)
            await hall.start_meter()
            seconds, complete, jobs, pods = await _PLAYS[of.name](stage)
            costs = await hall.costs(max(1, jobs))
        finally:
            kubelets.cancel()
            await asyncio.wait([kubelets])  # before its connections close
    return {
        "workloads": jobs,
        "seconds": round(seconds, 3 if seconds < 10 else 1),
        "per_second": round(jobs / seconds, 1) if seconds else None,
        "utilisation_percent": utilisation_percent(_gpus_held(ledger), gpus=of.gpus, seconds=1),
        "complete": complete,
        "pods": pods,
        "evictions": ledger.evictions,
        **stage.extra,
        **costs,
    }


def _gpus_held(ledger: Ledger) -> float:
    """GPUs held at the end: these sets fill a hall, and how full it is then says more than a mean over time."""
    return sum(entry.gpus for entry in ledger.entries.values() if entry.held_since is not None)


async def _queues(hall: Hall, of: HallSet) -> None:
    """A filler that holds what it can, an asker that owns what it asks for.

    As there, what the filler holds is borrowed (its quota is 0) where something is to be taken back.
    """
    own = asked = of.gpus
    if _takes_back(of.name):
        own = 0
    elif of.name == "kai-unschedulable" and hall.borrowing:
        # Together they own the hall, and the filler borrows all that the asker leaves idle. The asker's own is one GPU
        # less than its gang needs, and there is nobody to borrow that one from.
        asked = GANG_PODS * of.nodes.gpus - 1
        own = of.gpus - asked
    if _takes_back(of.name) and not hall.borrowing:
        raise SystemExit(f"{of.name}: the installed Queue has no spec.parent: nothing can be borrowed")
    parent = "department" if hall.borrowing else None
    if parent is not None:
        await hall.open_queue(queue(parent, nominal=None))
    await hall.open_queue(queue(FILLER, nominal=own, parent=parent))
    await hall.open_queue(queue(ASKER, nominal=asked, parent=parent))


def _takes_back(name: str) -> bool:
    return name.startswith("kai-reclaim") or name == "kai-consolidation"


Outcome = tuple[float, bool, int, int]
"""Seconds, whether all of it came, jobs, pods."""


async def _fill(stage: Stage) -> Outcome:
    """4,000 one-GPU jobs, created while everything runs."""
    count = stage.of.gpus
    seconds, complete = await stage.timed(_job("one", 1, 1), FILLER, count)
    return seconds, complete, count, count


async def _fill_backlog(stage: Stage) -> Outcome:
    """The same jobs, all of them there when the operator starts: its start counts."""
    count = stage.of.gpus
    keys = await stage.submit(_job("one", 1, 1), FILLER, count)
    started = asyncio.get_running_loop().time()
    stage.hall.start_operator()
    complete = await stage.bound(keys)
    ended = stage.ledger.last("bound", keys) if complete else asyncio.get_running_loop().time()
    return ended - started, complete, count, count


async def _gang(stage: Stage) -> Outcome:
    """One gang with a worker of two GPUs for each node."""
    pods = stage.of.nodes.count
    shape = _job("gang", pods, 2, {"level": "rack", "mode": "Preferred"})
    seconds, complete = await stage.timed(shape, FILLER, 1)
    return seconds, complete, 1, pods


async def _reclaim(stage: Stage) -> Outcome:
    """As many one-GPU jobs as run, from the queue that owns the GPUs."""
    await stage.fill()
    count = stage.of.gpus
    seconds, complete = await stage.timed(_job("owned", 1, 1), ASKER, count)
    return seconds, complete, count, count


async def _reclaim_gangs(stage: Stage) -> Outcome:
    """A gang of ten five-GPU workers for each ten nodes."""
    await stage.fill()
    gangs = stage.of.nodes.count // GANG_PODS
    seconds, complete = await stage.timed(_job("gang", GANG_PODS, 5), ASKER, gangs)
    return seconds, complete, gangs, gangs * GANG_PODS


async def _reclaim_large(stage: Stage) -> Outcome:
    """One gang that takes whole nodes, half of them."""
    await stage.fill()
    pods = stage.of.nodes.count // 2
    seconds, complete = await stage.timed(_job("large", pods, stage.of.nodes.gpus), ASKER, 1)
    return seconds, complete, 1, pods


async def _reclaim_one(stage: Stage) -> Outcome:
    """One GPU at a time; the mean of ten."""
    await stage.fill()
    times = []
    for number in range(SAMPLES):
        seconds, complete = await stage.timed(_job(f"owned-{number}", 1, 1), ASKER, 1)
        if not complete:
            return seconds, False, number, number
        times.append(seconds)
    stage.extra["longest_seconds"] = round(max(times), 3)
    return sum(times) / len(times), True, SAMPLES, SAMPLES


async def _consolidation(stage: Stage) -> Outcome:
    """Five jobs of each node end; gangs of six-GPU workers then fit only if others move together."""
    filled = await stage.fill()
    by_node: dict[str, list[Key]] = defaultdict(list)
    for key in filled:
        for node in stage.kubelet.nodes_of.get(key, {}).values():
            by_node[node].append(key)
    leaving = [key for keys in by_node.values() for key in keys[:5]]
    pods = [
        (key[0], name) for key in leaving for name in stage.kubelet.nodes_of.get(key, {})
    ]  # no controller manager runs here to take them with their jobs
    await in_parallel([stage.hall.client.delete(TRAINING_JOBS, key[1], namespace=key[0]) for key in leaving])
    await in_parallel(
        [stage.hall.client.delete(PODS, name, namespace=of, grace_seconds=0) for of, name in pods]
    )
    staying = set(filled) - set(leaving)
    at = asyncio.get_running_loop().time()
    for key in leaving:
        stage.ledger.finish(key, at)
    free = 5 * stage.of.nodes.count
    gangs = free // (6 * GANG_PODS)
    await asyncio.sleep(2)  # the operator has seen them go
    seconds, complete = await stage.timed(_job("gang", GANG_PODS, 6), ASKER, gangs)
    stopped = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < stopped + RESETTLE_SECONDS:
        homeless = sum(not stage.kubelet.nodes_of.get(key) for key in staying)
        if not homeless:
            break
        await asyncio.sleep(0.5)
    stage.extra["jobs_that_stayed"] = len(staying)
    stage.extra["not_running_again"] = sum(not stage.kubelet.nodes_of.get(key) for key in staying)
    stage.extra["resettled_after_seconds"] = round(asyncio.get_running_loop().time() - stopped + seconds, 1)
    return seconds, complete, gangs, gangs * GANG_PODS


async def _unschedulable(stage: Stage) -> Outcome:
    """Ten gangs, one after the other, that need one GPU more than anybody would give back; until each is told why."""
    await stage.fill()
    loop = asyncio.get_running_loop()
    times: list[float] = []
    words: set[str] = set()
    for number in range(SAMPLES):
        told: asyncio.Future[str] = loop.create_future()
        wanted = (ASKER, f"gang-{stage.made}")

        def listen(key: Key, status: Json, wanted: Key = wanted, told: asyncio.Future[str] = told) -> None:
            waits = condition(status, "Queued")
            refused = waits is not None and waits["status"] == "True" and waits["reason"] not in NOT_YET
            if key == wanted and waits is not None and refused and not told.done():
                told.set_result(f"{waits['reason']}: {waits['message']}")

        stage.kubelet.on_job = listen
        started = loop.time()
        await stage.submit(_job("gang", GANG_PODS, stage.of.nodes.gpus), ASKER, 1)
        try:
            async with asyncio.timeout_at(stage.until):
                said = await told
        except TimeoutError:
            return sum(times) / max(1, len(times)), False, number, 0
        times.append(loop.time() - started)
        words.add(said.split(":")[0])
        say(f"told after {times[-1]:.3f} s: {said}")
        await stage.hall.client.delete(TRAINING_JOBS, wanted[1], namespace=ASKER)
    stage.extra |= {"longest_seconds": round(max(times), 3), "reasons": sorted(words)}
    return sum(times) / len(times), True, SAMPLES, SAMPLES * GANG_PODS


_PLAYS: dict[str, Callable[[Stage], Awaitable[Outcome]]] = {
    "kai-fill": _fill,
    "kai-fill-backlog": _fill_backlog,
    "kai-gang": _gang,
    "kai-reclaim": _reclaim,
    "kai-reclaim-gangs": _reclaim_gangs,
    "kai-reclaim-large": _reclaim_large,
    "kai-reclaim-one": _reclaim_one,
    "kai-consolidation": _consolidation,
    "kai-unschedulable": _unschedulable,
}
