"""One reconcile per kind: look at everything, make a plan, carry it out. All decisions are in the rooms' `plan`."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from datahall.api.conditions import ConditionType, is_true, set_condition
from datahall.api.inferenceservice import InferenceService
from datahall.api.powerdomain import PowerDomain
from datahall.api.queue import Queue
from datahall.api.reasons import Reason
from datahall.api.trainingjob import TrainingJob
from datahall.control import labels, metrics, power_domains, queues, times
from datahall.control.actions import Action, Apply, Create, Patch, Plan
from datahall.control.claims import Claims, look_up
from datahall.control.dispatch import JOB, PLAN, POWER_DOMAIN, QUEUE, SERVICE, Dispatch
from datahall.control.executor import Executor, NameTakenError
from datahall.control.recorder import Recorder
from datahall.control.refusals import Refusals
from datahall.control.replicas import Replicas
from datahall.control.reports import Reports
from datahall.control.scheduling import Scheduling
from datahall.control.serving import plan as serving_plan
from datahall.control.settings import Settings
from datahall.control.tables import Tables, pods_of_job, pods_of_service
from datahall.control.training import plan as training_plan
from datahall.control.training.obstacles import obstacle
from datahall.control.training.pods import read_claims, written_claims
from datahall.control.training.seen import LeftBehind
from datahall.control.training.waiting import WAIT_MESSAGE_EVERY_SECONDS
from datahall.control.views import Ours, PodView
from datahall.control.workqueue import Key, Lane, WorkQueue
from datahall.kube import ForbiddenError, InvalidError, KubeError, Resource
from datahall.kube.resources import INFERENCE_SERVICES, PODS, POWER_DOMAINS, QUEUES, TRAINING_JOBS
from datahall.planning import QueueReport
from datahall.planning.planner import LOOK_AGAIN_SECONDS

NODE_LOST_AFTER_SECONDS = 40.0
QUEUE_REFRESH_SECONDS = 30.0
"""How often a Queue's figures are looked at without anything of its own having changed."""

PODS_AT_ONCE = 16
"""Writes of pods in flight, of all jobs together: more would only queue in the API server, before the statuses."""


class Reconcilers:
    """Looks at keys. Holds no state that matters: what is kept between looks only spares or delays writes."""

    def __init__(
        self,
        *,
        tables: Tables,
        queue: WorkQueue,
        scheduling: Scheduling,
        replicas: Replicas,
        reports: Reports,
        executor: Executor,
        recorder: Recorder,
        dispatch: Dispatch,
        settings: Settings,
    ) -> None:
        self._tables = tables
        self._queue = queue
        self._scheduling = scheduling
        self._replicas = replicas
        self._reports = reports
        self._executor = executor
        self._recorder = recorder
        self._dispatch = dispatch
        self._settings = settings
        self._refusals = Refusals()
        self._told_invalid: dict[Key, tuple[str, int]] = {}
        self._pod_slots = asyncio.Semaphore(PODS_AT_ONCE)
        self._by_kind: dict[str, Callable[[Key, Lane], Awaitable[bool]]] = {
            JOB: self._job,
            SERVICE: self._service,
            QUEUE: self._quota,
            POWER_DOMAIN: self._power_domain,
            PLAN.kind: self._plan,
        }

    async def reconcile(self, key: Key, lane: Lane = Lane.LOOK) -> bool:
        """Look at one key. Returns whether a status was written.

        In the lanes LOOK and TELL everything is done but children made: for those the key goes on to the lane MAKE.

        Raises:
            KubeError: a write failed; look again later.
            NotLeadingError: this process may not write.
        """
        return await self._by_kind[key.kind](key, lane)

    def settle_all(self) -> None:
        """Tell the planner of every job, before it may decide anything: what is held must be known first.

        And of what queues have used: whose turn it is goes on where the last leader left it.
        """
        for quota in self._tables.queues:
            if quota.queue is not None:
                self._scheduling.resume(quota.queue)
        for view in self._tables.jobs:
            if view.job is not None:
                self._settle(view.job, self._pods(view.namespace, view.name), blocked=True)
        for view in self._tables.jobs:
            if view.job is not None:
                in_the_way = obstacle(
                    view.job,
                    claims=self._claims(view.job),
                    left_behind=self._left_behind(view.job),
                    now=_now(),
                )
                blocked = view.deleting or in_the_way is not None
                pods = self._pods(view.namespace, view.name)
                self._settle(view.job, pods, blocked=blocked, deleting=view.deleting)

    # ---- TrainingJob

    async def _job(self, key: Key, lane: Lane) -> bool:
        view = self._tables.jobs.get(key.namespace, key.name)
        if view is None:
            return self._forget(key)
        if view.job is None:
            return await self._invalid(key, TRAINING_JOBS, view)
        job, pods, now = view.job, self._pods(key.namespace, key.name), _now()
        uid = job.metadata.uid
        claims, left_behind = self._claims(job), self._left_behind(job)
        in_the_way = obstacle(job, claims=claims, left_behind=left_behind, now=now)
        refusal = self._refusal(key, view)
        blocked = view.deleting or in_the_way is not None or refusal is not None
        self._settle(job, pods, blocked=blocked, deleting=view.deleting)
        admitted, spread = self._scheduling.admitted(uid) or (None, "")
        lost, unfit = self._nodes(key, job, pods, now)
        plan = training_plan.plan(
            training_plan.Seen(
                job=job,
                deleting=view.deleting,
                pods=pods,
                admitted=admitted,
                spread=spread,
                waiting=self._scheduling.waiting(uid),
                eviction=self._scheduling.eviction(uid),
                claims=claims,
                left_behind=left_behind,
                report=self._reports.of(uid),
                refusal=refusal,
                lost_nodes=lost,
                unfit_nodes=unfit,
                now=now,
            ),
            self._settings,
        )
        try:
            return await (
                self._make(key, plan)
                if lane is Lane.MAKE
                else self._carry_out(key, TRAINING_JOBS, view, job, plan)
            )
        except (InvalidError, ForbiddenError, NameTakenError) as error:
            return self._refuse(key, view, error)

    def _refuse(self, key: Key, view: Ours, error: KubeError) -> bool:
        """Keep a refusal of a child for the next looks: the status tells it, and a while later it is tried again."""
        if error.reason == "NamespaceTerminating" or "being terminated" in str(error):
            return True
        # Whether the object is at fault (422) or its surroundings (403, a name taken) decides what follows.
        refusal = training_plan.Refusal(str(error), final=isinstance(error, InvalidError))
        self._refusals.keep(key, uid=view.uid, generation=view.generation, refusal=refusal, now=_loop_time())
        self._queue.add(key)
        return True

    def _settle(
        self, job: TrainingJob, pods: tuple[PodView, ...], *, blocked: bool, deleting: bool = False
    ) -> None:
        self._scheduling.settle(job, pods, blocked=blocked, deleting=deleting)
        if training_plan.terminal(job):
            self._reports.forget(job.metadata.uid)
            self._refusals.forget(Key(JOB, job.metadata.namespace, job.metadata.name))

    def _pods(self, namespace: str, name: str) -> tuple[PodView, ...]:
        return tuple(self._tables.pods.group(pods_of_job(namespace, name)))

    def _claims(self, job: TrainingJob) -> Claims:
        """What is wrong with a job's claims; not asked while it runs or after, because a claim in use cannot vanish."""
        if is_true(job.status.conditions, ConditionType.RUNNING) or training_plan.terminal(job):
            return Claims()
        return self._looked_up((*read_claims(job), *written_claims(job)), job.metadata.namespace)

    def _looked_up(self, names: tuple[str, ...], namespace: str) -> Claims:
        tables = self._tables
        return look_up(
            names,
            claim=lambda name: tables.claims.get(namespace, name),
            storage_class=lambda name: tables.storage_classes.get("", name),
        )

    def _left_behind(self, job: TrainingJob) -> LeftBehind | None:
        """The Service of a gang of an earlier job of the name, until the garbage collector has taken it."""
        meta = job.metadata
        if job.spec.workers.count == 1:
            return None
        found = self._tables.endpoints.get(meta.namespace, labels.workers_service(meta.name))
        if found is None or found.owner_uid in ("", meta.uid):
            return None  # or a stranger's: that is no matter of time, and told when it is in the way
        if found.labels.get(labels.TRAINING_JOB) != meta.name:
            return None
        return LeftBehind("Service", found.name, found.owner_uid)

    def _refusal(self, key: Key, view: Ours) -> training_plan.Refusal | None:
        """What stands between the object and its children; looked at again when it may be tried again."""
        standing = self._refusals.standing(key, uid=view.uid, generation=view.generation, now=_loop_time())
        if standing is None:
            return None
        refusal, left = standing
        self._queue.add_after(key, left + 0.1)
        return refusal

    def _nodes(
        self, key: Key, job: TrainingJob, pods: tuple[PodView, ...], now: datetime.datetime
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Of the nodes that matter to a job: those lost, and those on which nothing new may start."""
        lost, unfit = set(), set()
        for name in {pod.node for pod in pods if pod.node} | {place.node for place in job.status.placement}:
            node = self._tables.nodes.get("", name)
            if node is None:
                lost.add(name)
                continue
            if not node.schedulable:
                unfit.add(name)
            if not node.ready:
                left = NODE_LOST_AFTER_SECONDS - times.since(node.ready_changed_at, now)
                if left <= 0:
                    lost.add(name)
                else:
                    self._queue.add_after(key, left + 0.1)
        return frozenset(lost), frozenset(unfit)

    # ---- InferenceService

    async def _service(self, key: Key, _: Lane) -> bool:
        view = self._tables.services.get(key.namespace, key.name)
        if view is None:
            return self._forget(key)
        if view.service is None:
            return await self._invalid(key, INFERENCE_SERVICES, view)
        service, tables = view.service, self._tables
        source = service.spec.model.from_training_job
        job = tables.jobs.get(key.namespace, source.name) if source else None
        queue = tables.queues.get("", service.spec.queue)
        endpoint = tables.endpoints.get(key.namespace, key.name)
        budget = tables.budgets.get(key.namespace, key.name)
        claims = serving_plan.model_claims(service, job.job if job else None)
        refusal = self._refusal(key, view)
        pods, now = tuple(tables.pods.group(pods_of_service(key.namespace, key.name))), _now()
        plan = serving_plan.plan(
            serving_plan.Seen(
                service=service,
                deleting=view.deleting,
                job=job.job if job else None,
                deployment=tables.deployments.get(key.namespace, key.name),
                applied=(endpoint.spec_hash if endpoint else "", budget.spec_hash if budget else ""),
                pods=pods,
                queue_exists=queue is not None,
                queue_allows=queue is None or queue.queue is None or queue.queue.spec.allows(key.namespace),
                answers=self._replicas.review(key.namespace, key.name, pods, now),
                missing_claims=self._looked_up(claims, key.namespace).missing,
                refusal=refusal.message if refusal else "",
                now=now,
            ),
            self._settings,
        )
        try:
            return await self._carry_out(key, INFERENCE_SERVICES, view, service, plan)
        except (InvalidError, ForbiddenError, NameTakenError) as error:
            return self._refuse(key, view, error)

    # ---- Queue and planner

    async def _quota(self, key: Key, _: Lane) -> bool:
        view = self._tables.queues.get("", key.name)
        if view is None:
            return self._forget(key)
        if view.deleting:
            return False
        if view.queue is None:
            return await self._invalid(key, QUEUES, view)
        # What it may borrow depends on others, and what it has used decays: both without an event of its own.
        self._queue.add_after(key, QUEUE_REFRESH_SECONDS)
        report = self._scheduling.report(key.name)
        if report is None:
            return False  # the watch tells of it in a moment
        counts, parent = self._scheduling.counts(key.name), view.queue.spec.parent
        _measure_queue(view.queue, report)
        status = queues.status(
            view.queue,
            report=report,
            use=self._scheduling.use(key.name),
            parent_exists=parent is None or self._scheduling.report(parent) is not None,
            held=counts.held,
            waiting=counts.waiting,
            now=_now(),
        )
        if status is None:
            return False
        before = view.queue.status.to_json()
        await self._executor.write_status(
            QUEUES, before=before, after=status, at_version=view.version, meta={"name": view.name}
        )
        self._dispatch.queue_told(view.name)
        return True

    async def _power_domain(self, key: Key, _: Lane) -> bool:
        if not key.name:
            return self._all_power_domains()
        view = self._tables.power_domains.get("", key.name)
        if view is None:
            return self._forget(key)
        if view.deleting:
            return False
        if view.domain is None:
            return await self._invalid(key, POWER_DOMAINS, view)
        status = self._power_status(view.domain)
        if status is None:
            return False
        before = view.domain.status.to_json()
        await self._executor.write_status(
            POWER_DOMAINS, before=before, after=status, at_version=view.version, meta={"name": view.name}
        )
        return True

    def _all_power_domains(self) -> bool:
        """Look which PowerDomains have a new status; it is written by a look of its own."""
        for view in self._tables.power_domains:
            if view.domain is not None and self._power_status(view.domain) is not None:
                self._queue.add(Key(POWER_DOMAIN, "", view.name))
                self._dispatch.power_told()
        return False

    def _power_status(self, domain: PowerDomain) -> dict[str, Any] | None:
        report = self._scheduling.power_report(domain.metadata.name)
        return None if report is None else power_domains.status(domain, report=report, now=_now())

    async def _plan(self, _: Key, __: Lane) -> bool:
        for news in self._scheduling.cycle():
            # Numbers of ten thousand waiting jobs move at every start and end; each is told of them now and then.
            delay = 0.0 if news.urgent else WAIT_MESSAGE_EVERY_SECONDS
            lane = Lane.TELL if news.waits else Lane.LOOK
            self._queue.add_after(Key(news.kind, news.namespace, news.name), delay, lane)
        # Time alone lets gangs start, too: a promise comes due, a minimum run time ends, what was spent comes back.
        self._queue.add_after(PLAN, 0.0 if self._scheduling.more else LOOK_AGAIN_SECONDS)
        return False

    # ---- shared

    async def _carry_out(
        self, key: Key, resource: Resource, view: Ours, body: TrainingJob | InferenceService, plan: Plan
    ) -> bool:
        if plan.status is not None:
            await self._executor.write_status(
                resource,
                before=body.status.to_json(),
                after=plan.status,
                at_version=view.version,
                meta={"name": view.name, "namespace": view.namespace},
            )
        await self._run([action for action in plan.actions if not isinstance(action, Create)])
        if any(isinstance(action, Apply) for action in plan.actions):
            self._refusals.forget(key)  # what was refused has been made
        if any(isinstance(action, Create) for action in plan.actions):
            self._queue.add(key, Lane.MAKE)
        for news in plan.announcements:
            self._recorder.tell(resource.kind, view.namespace, view.name, view.uid, news)
        if plan.look_again_seconds is not None:
            self._queue.add_after(key, plan.look_again_seconds)
        if plan.pending:
            self._queue.unanswered(key)
        return plan.status is not None

    async def _make(self, key: Key, plan: Plan) -> bool:
        """Make the children that a look found missing, if a fresh look says the same."""
        if plan.status is not None:
            self._queue.add(key)  # something has happened meanwhile: that is told first, here as everywhere
            return False
        await self._run(plan.actions)
        if any(isinstance(action, Create) for action in plan.actions):
            self._refusals.forget(key)
        return False

    async def _run(self, actions: Sequence[Action]) -> None:
        """Everything in order, but pods side by side: a gang of a thousand must not take a thousand round trips."""
        for action in actions:
            if action.resource != PODS:
                await self._executor.run(action)
        pods = [action for action in actions if action.resource == PODS]
        for start in range(0, len(pods), PODS_AT_ONCE):
            results = await asyncio.gather(
                *(self._run_pod(action) for action in pods[start : start + PODS_AT_ONCE]),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _run_pod(self, action: Action) -> None:
        async with self._pod_slots:
            try:
                await self._executor.run(action)
            except (InvalidError, ForbiddenError) as error:
                if not isinstance(action, Patch):
                    raise
                if owner := self._replicas.refused_by_api(action.uid, str(error)):
                    self._queue.add(Key(SERVICE, *owner))

    def _forget(self, key: Key) -> bool:
        """The object is gone, and all that was kept of it."""
        self._refusals.forget(key)
        self._told_invalid.pop(key, None)
        if key.kind == QUEUE:
            metrics.forget_queue(key.name)
        return False

    async def _invalid(self, key: Key, resource: Resource, view: Ours) -> bool:
        """Say that a stored object cannot be understood; touch nothing else of it."""
        message = f"the stored object breaks a rule of this version: {view.error}"
        conditions = set_condition(
            (),
            type_=ConditionType.STALLED,
            status=True,
            reason=Reason.INVALID_SPEC,
            message=message,
            generation=view.generation,
            now=times.to_text(_now()),
        )
        told = (view.uid, view.generation)
        if self._told_invalid.get(key) == told:
            return False
        await self._executor.write_status(
            resource,
            before={},
            after={"conditions": [condition.to_json() for condition in conditions]},
            at_version=view.version,
            meta={"name": view.name, "namespace": view.namespace},
        )
        self._told_invalid[key] = told
        return True


def _measure_queue(queue: Queue, report: QueueReport) -> None:
    name = queue.metadata.name
    for model, entry in queues.entries(queue, report).items():
        metrics.QUOTA_NOMINAL.labels(name, model).set(entry.nominal)
        metrics.QUOTA_USED.labels(name, model).set(entry.used)
        metrics.QUOTA_BORROWED.labels(name, model).set(entry.borrowed)
    metrics.QUEUE_WATTS.labels(name).set(report.watts.used)
    metrics.QUEUE_SHARE.labels(name).set(report.share)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
