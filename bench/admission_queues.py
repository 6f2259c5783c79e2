"""Kueue's sets: queues in cohorts, jobs that arrive by the clock, run for a moment and end.

The clock starts before the first queue is made, as it does there. A queue's jobs come by their own schedule from the
moment the queue exists; late writers do not shift what follows, so that a slow API server meets the full load.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.admission_hall import Hall, in_parallel, say
from bench.admission_kubelet import Kubelet, Witness
from bench.admission_ledger import Ledger, utilisation_percent
from bench.admission_objects import Json, job, loose_pods, queue
from bench.admission_runner import Runner
from bench.admission_sets import Arrival, QueueSet, arrivals
from datahall.kube import AlreadyExistsError, KubeClient, UnavailableError
from datahall.kube.resources import PODS, TRAINING_JOBS

WRITERS = 16
PROGRESS_SECONDS = 10.0


@dataclass(slots=True)
class Generator:
    """Creates jobs by their schedule, with several writers."""

    client: KubeClient
    ledger: Ledger
    control: bool
    topology: bool = True
    started: float = 0.0
    done_after: float = 0.0
    latest: float = 0.0
    """The longest delay of a creation behind its schedule, in seconds."""

    async def run(self, of: list[Arrival]) -> None:
        """Create everything."""
        clock = asyncio.get_running_loop().time
        self.started = clock()
        todo = iter(of)
        await asyncio.gather(*(self._writer(todo) for _ in range(WRITERS)))
        self.done_after = clock() - self.started

    async def _writer(self, todo: Iterator[Arrival]) -> None:
        clock = asyncio.get_running_loop().time
        for arrival in todo:
            due = self.started + arrival.due_seconds
            await asyncio.sleep(max(0.0, due - clock()))
            self.latest = max(self.latest, clock() - due)
            await self.create(arrival)

    async def create(self, arrival: Arrival) -> None:
        """Create one job: a TrainingJob, or its bare pods for the control."""
        one, key = arrival.job, (arrival.queue, arrival.name)
        at = asyncio.get_running_loop().time()
        self.ledger.create(key, kind=one.name, gpus=one.units, workers=one.workers, at=at)
        if self.control:
            for pod in loose_pods(arrival.name, queue=arrival.queue, of=one):
                await self._send(PODS, pod, arrival.queue)
            return
        body = job(arrival.name, queue=arrival.queue, of=one)
        if not self.topology:
            body["spec"].pop("topology", None)
        await self._send(TRAINING_JOBS, body, arrival.queue)

    async def _send(self, resource: Any, body: Json, namespace: str) -> None:
        while True:
            try:
                await self.client.create(resource, body, namespace=namespace)
                return
            except AlreadyExistsError:
                return  # the answer to the first attempt was lost
            except UnavailableError as error:
                say(f"creation of {namespace}/{body['metadata']['name']} is repeated: {error}")
                await asyncio.sleep(0.2)


class Ends(enum.StrEnum):
    """Who ends a job."""

    BY_RUNNER = "runner"
    """The bench, in the job's status, some time after its admission. There are no pods."""
    BY_KUBELETS = "kubelets"
    """Its pods, some time after the last of them was bound."""


async def play(
    hall: Hall, of: QueueSet, *, control: bool, ends: Ends, reports_running: bool, timeout_seconds: float
) -> dict[str, Any]:
    """Play a set to its end, or until the time is over; the figures."""
    loop = asyncio.get_running_loop()
    ledger = Ledger()
    runtimes = {one.name: one.runtime_seconds for one in of.classes}
    async with await KubeClient.connect(
        kubeconfig=str(hall.server.kubeconfig), connections=32, timeout_seconds=60.0
    ) as client:
        ender = (
            Runner(client, ledger, runtimes=runtimes)
            if ends is Ends.BY_RUNNER
            else Kubelet(
                client, ledger, runtimes=runtimes, reports_running=reports_running, operator=not control
            )
        )
        ending = asyncio.create_task(ender.run())
        todo = arrivals(of)
        await hall.start_meter()
        started = loop.time()
        await open_queues(hall, of)
        generator = Generator(client, ledger, control, topology=hall.topology)
        generating = asyncio.create_task(generator.run(todo))
        complete = await _until_done(
            hall, ender, generating, ending, total=len(todo), until=started + timeout_seconds
        )
        ended = ledger.last("finished") if complete else loop.time()
        costs = await hall.costs(max(1, ledger.finished))
        if not complete and not control:
            await hall.tell_unfinished()
        generating.cancel()
        ending.cancel()
        await asyncio.wait([generating, ending])  # before their connections close
    seconds = ended - started
    result: dict[str, Any] = {
        "workloads": len(todo),
        "seconds": round(seconds, 1),
        "per_second": round(ledger.finished / seconds, 1),
    }
    if not control:
        result["utilisation_percent"] = utilisation_percent(
            ledger.held_gpu_seconds(ended), gpus=of.nominal_gpus, seconds=seconds
        )
    result["running_percent"] = utilisation_percent(of.gpu_seconds, gpus=of.nominal_gpus, seconds=seconds)
    result |= {
        "complete": complete,
        "finished": ledger.finished,
        "ended_by": ends,
        "pods": 0 if ends is Ends.BY_RUNNER else of.pods,
        "evictions": ledger.evictions,
        "creation_seconds": round(generator.done_after, 1),
        "creation_late_seconds": round(generator.latest, 1),
        **({} if ends is Ends.BY_RUNNER else {"mean_bound_seconds": ledger.mean_seconds("bound")}),
        "mean_finish_seconds": ledger.mean_seconds("finished"),
        **costs,
    }
    if not control:
        result["mean_admission_seconds"] = ledger.mean_seconds("admitted")
        result["borrowing"] = hall.borrowing
    if ender.failed:
        key, why = next(iter(ender.failed.items()))
        result["failed"] = len(ender.failed)
        say(f"{len(ender.failed)} jobs failed; the first, {key[0]}/{key[1]}: {why}")
    return result


async def open_queues(hall: Hall, of: QueueSet) -> None:
    """Make cohorts and queues; without parents in the API, queues alone."""
    names = of.queue_names()
    if hall.borrowing:
        cohorts = sorted({cohort for _, cohort in names})
        await in_parallel([hall.open_queue(queue(name, nominal=None)) for name in cohorts])
    parent = hall.borrowing
    await in_parallel(
        [
            hall.open_queue(
                queue(
                    name,
                    nominal=of.nominal,
                    parent=cohort if parent else None,
                    borrowing=of.borrowing if parent else None,
                )
            )
            for name, cohort in names
        ]
    )


async def _until_done(
    hall: Hall,
    witness: Witness,
    generating: asyncio.Task[None],
    ending: asyncio.Task[None],
    *,
    total: int,
    until: float,
) -> bool:
    """Wait for the last job; whether it came in time. A failed job never comes."""
    loop = asyncio.get_running_loop()
    told = loop.time()
    ledger = witness.ledger
    while ledger.finished + len(witness.failed) < total:
        hall.check_operator()
        for task in (generating, ending):
            if task.done():
                task.result()  # raises what ended it; the generator's end is none
        if loop.time() > until:
            say(f"the time is over with {ledger.finished} of {total} jobs finished")
            return False
        if loop.time() - told >= PROGRESS_SECONDS:
            told = loop.time()
            say(f"{len(ledger.entries)} created, {ledger.admitted} admitted, {ledger.finished} finished")
        await asyncio.sleep(0.05)
    return not witness.failed
