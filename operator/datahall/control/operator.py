"""One operator process from start to end: connect, watch, stand by, lead, leave.

A standby watches like a leader, so that it takes over with a full store; it starts no worker and writes nothing. Losing
the lease ends the process at once, because everything in its memory was a leader's.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import structlog

from datahall.control import metrics
from datahall.control.dispatch import JOB, PLAN, Dispatch
from datahall.control.executor import Executor, NotLeadingError
from datahall.control.feed import Feed
from datahall.control.lease import Lease, LeaseLostError
from datahall.control.reconcilers import Reconcilers
from datahall.control.recorder import Recorder
from datahall.control.replicas import Replicas
from datahall.control.reports import Reports
from datahall.control.scheduling import Scheduling
from datahall.control.settings import Settings
from datahall.control.tables import Tables, pods_of_service
from datahall.control.web import Health, serve
from datahall.control.workqueue import Key, Lane, WorkQueue
from datahall.kube import ConflictError, KubeClient, KubeError, NotFoundError, TooManyRequestsError
from datahall.kube.client import CallRecord
from datahall.kube.resources import INFERENCE_SERVICES, POWER_DOMAINS, QUEUES, TRAINING_JOBS

log = structlog.get_logger(__name__)

PLAN_DELAY_SECONDS = 0.02
"""Changes come in bursts; the planner waits this long to decide on all of a burst at once."""

MAKERS = 16
"""Objects whose children are made at the same time."""

TELLERS = 8
"""Objects that are told at the same time why they wait."""

STUCK_SECONDS = 300.0
LEAVE_SECONDS = 10.0
RETRY_START_SECONDS = 3.0


class Operator:
    """Wires the rooms together and keeps them running."""

    def __init__(self, client: KubeClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._queue = WorkQueue()
        self._tables = Tables()
        self._lease = Lease(
            client,
            namespace=settings.namespace,
            identity=settings.identity,
            duration_seconds=settings.lease_seconds,
        )
        self._scheduling = Scheduling(wake=self._wake_planner, gpu_model_of=self._gpu_model_of)
        self._reports = Reports(
            client,
            jobs=self._tables.jobs,
            pods=self._tables.pods,
            news=lambda namespace, name: self._queue.add(Key(JOB, namespace, name)),
        )
        self._replicas = Replicas(
            self._scheduling.planner,
            wake=self._wake_planner,
            gpu_model_of=self._gpu_model_of,
            service_of=self._tables.services.get,
            pods_of=lambda namespace, name: self._tables.pods.group(pods_of_service(namespace, name)),
        )
        self._scheduling.others = self._replicas.take
        self._scheduling.gang_of_other = self._replicas.gang_of
        self._dispatch = Dispatch(
            self._tables,
            self._queue,
            scheduling=self._scheduling,
            replicas=self._replicas,
            reports=self._reports,
        )
        self._recorder = Recorder(client, instance=settings.pod_name)
        executor = Executor(
            client,
            leading=self._lease.held,
            writes_per_second=settings.writes_per_second,
            saw=self._tables.saw,
            gone=self._tables.gone,
        )
        self._reconcilers = Reconcilers(
            tables=self._tables,
            queue=self._queue,
            scheduling=self._scheduling,
            replicas=self._replicas,
            reports=self._reports,
            executor=executor,
            recorder=self._recorder,
            dispatch=self._dispatch,
            settings=settings,
        )
        self._feed = Feed(
            client,
            by_kopf=self._tables.by_kopf(),
            by_reflector=self._tables.by_reflector(),
            on_event=self._saw_event,
        )
        self._filled = asyncio.Event()
        self._leads = False
        self._stopping = asyncio.Event()
        self._in_work: dict[Key, float] = {}
        self._event_at = 0.0

    async def run(self) -> None:
        """Run until SIGTERM.

        Raises:
            LeaseLostError: this process led and may not any more.
        """
        self._take_signals()
        background = [
            asyncio.create_task(coroutine, name=name)
            for name, coroutine in (
                ("web", self._serve()),
                ("feed", self._watch()),
                ("lead", self._lead()),
            )
        ]
        stop = asyncio.create_task(self._stopping.wait(), name="stop")
        done, _ = await asyncio.wait([stop, *background], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stop}:
            task.result()  # none of them ever returns: this raises what ended it
        log.info("leaving")
        self._leads = False
        async with asyncio.timeout(LEAVE_SECONDS):
            while self._in_work:  # noqa: ASYNC110 - at most once, at the end of a process
                await asyncio.sleep(0.05)
            await self._recorder.drain()
            await self._lease.release()

    async def _serve(self) -> None:
        health = Health(
            alive=self._complaint,
            ready=lambda: None if self._filled.is_set() else "the store is not filled yet",
            leading=lambda: self._leads,
            leader_address=self._leader_address,
            measure=self._measure,
        )
        await serve(
            reports=self._reports,
            health=health,
            report_port=self._settings.report_port,
            probe_port=self._settings.probe_port,
        )

    async def _watch(self) -> None:
        """Fill the store, then keep it filled."""
        while not self._filled.is_set():
            try:
                await self._feed.fill()
                self._filled.set()
            except NotFoundError as error:
                log.warning(
                    "waiting for the custom resource definitions; install the chart or crds/",
                    error=str(error),
                )
                await asyncio.sleep(RETRY_START_SECONDS)
            except KubeError as error:
                log.warning("waiting for the API server", error=str(error))
                await asyncio.sleep(RETRY_START_SECONDS)
        await self._feed.run(started=self._take_signals)

    async def _lead(self) -> None:
        await self._filled.wait()
        await self._lease.acquire()
        keep = asyncio.create_task(self._lease.keep(), name="keep")
        lead = asyncio.create_task(self._work(), name="work")
        done, _ = await asyncio.wait([keep, lead], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _work(self) -> None:
        # What the watch has not brought yet, a fresh list does: the last leader wrote up to a moment ago.
        await self._feed.fill()
        self._reconcilers.settle_all()
        self._dispatch.everything()
        self._leads = True
        metrics.LEADER.set(1)
        await _all(
            *(self._worker(Lane.LOOK) for _ in range(self._settings.workers)),
            *(self._worker(Lane.MAKE) for _ in range(MAKERS)),
            *(self._worker(Lane.TELL) for _ in range(TELLERS)),
        )

    async def _worker(self, lane: Lane) -> None:
        loop = asyncio.get_running_loop()
        while True:
            key, since = await self._queue.get(lane)
            if not self._leads:
                self._queue.done(key)
                return
            started = self._in_work[key] = loop.time()
            try:
                outcome = await self._reconcile(key, lane, since)
            finally:
                del self._in_work[key]
                self._queue.done(key)
            metrics.RECONCILES.labels(key.kind, outcome).inc()
            metrics.RECONCILE_SECONDS.labels(key.kind).observe(loop.time() - started)

    async def _reconcile(self, key: Key, lane: Lane, since: float) -> str:
        """Look at one key; every outcome has a name, and none of them is silence."""
        reconcile_id = os.urandom(4).hex()
        logger = log.bind(kind=key.kind, namespace=key.namespace, name=key.name, reconcile_id=reconcile_id)
        try:
            wrote = await self._reconcilers.reconcile(key, lane)
        except NotLeadingError:
            raise LeaseLostError(self._lease.loss()) from None
        except ConflictError as error:
            # The store is behind: take the newest state in, then look again.
            logger.debug("conflict", error=str(error))
            await self._refresh(key)
            self._queue.retry(key, lane)
            return "conflict"
        except KubeError as error:
            asked = error.retry_after_seconds if isinstance(error, TooManyRequestsError) else 0.0
            delay = self._queue.retry(key, lane, at_least=asked)
            logger.warning("reconcile failed", error=str(error), retry_seconds=delay)
            return "api_error"
        except Exception:
            # A bug with one object must not stop the work on all others; it is counted, logged and tried again.
            delay = self._queue.retry(key, lane)
            logger.exception("reconcile crashed", retry_seconds=delay)
            return "crash"
        self._queue.forget(key, lane)
        if wrote:
            metrics.EVENT_TO_STATUS.labels(key.kind).observe(asyncio.get_running_loop().time() - since)
            logger.debug("status written")
        return "written" if wrote else "unchanged"

    async def _refresh(self, key: Key) -> None:
        ours = (TRAINING_JOBS, INFERENCE_SERVICES, QUEUES, POWER_DOMAINS)
        resource = {r.kind: r for r in ours}.get(key.kind)
        if resource is None:
            return
        try:
            raw = await self._client.get(resource, key.name, namespace=key.namespace or None)
        except NotFoundError:
            return  # the watch will tell
        except KubeError as error:
            log.warning("refresh failed", kind=key.kind, name=key.name, error=str(error))
            return
        self._tables.saw(resource, raw)

    # ---- small parts

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)

    def _wake_planner(self) -> None:
        self._queue.add_after(PLAN, PLAN_DELAY_SECONDS)

    def _gpu_model_of(self, name: str) -> str:
        node = self._tables.nodes.get("", name)
        return node.gpu_model if node is not None else ""

    def _saw_event(self) -> None:
        self._event_at = asyncio.get_running_loop().time()

    def _complaint(self) -> str | None:
        now = asyncio.get_running_loop().time()
        stuck = [key for key, since in self._in_work.items() if now - since > STUCK_SECONDS]
        return f"no end of the work on {stuck[0]} for {STUCK_SECONDS:.0f} s" if stuck else None

    def _leader_address(self) -> str:
        """Where the leader takes reports; "" as well while this process has the lease and is not set up yet."""
        holder = self._lease.holder
        return "" if holder == self._settings.identity else holder.partition("/")[2]

    def _measure(self) -> None:
        for lane in Lane:
            metrics.QUEUE_DEPTH.labels(lane).set(self._queue.depth(lane))
            metrics.QUEUE_OLDEST.labels(lane).set(self._queue.oldest_seconds(lane))
        states = Counter(view.job.status.state or "Pending" for view in self._tables.jobs if view.job)
        for state in (
            "Pending",
            "Queued",
            "Starting",
            "Running",
            "Restarting",
            "Suspended",
            "Succeeded",
            "Failed",
        ):
            metrics.JOBS.labels(state).set(states[state])
        waiting = Counter(
            v.job.status.waiting.reason for v in self._tables.jobs if v.job and v.job.status.waiting
        )
        metrics.JOBS_WAITING.clear()
        for reason, count in waiting.items():
            metrics.JOBS_WAITING.labels(reason).set(count)
        for plural, count in self._tables.sizes().items():
            metrics.OBJECTS.labels(plural).set(count)


def observe_call(call: CallRecord) -> None:
    """Count one request to the API server."""
    metrics.API_REQUESTS.labels(call.verb, call.resource, str(call.status)).inc()
    metrics.API_SECONDS.labels(call.verb).observe(call.seconds)


async def _all(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run side by side; the first that ends, ends all, with its error."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
