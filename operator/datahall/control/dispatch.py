"""From "this object changed" to "that key must be looked at": who depends on whom."""

from __future__ import annotations

import time

from datahall.control import labels
from datahall.control.child_views import ChildView, DeploymentView
from datahall.control.replicas import Replicas, is_replica
from datahall.control.reports import Reports
from datahall.control.scheduling import Scheduling
from datahall.control.storage_views import ClaimView, StorageClassView
from datahall.control.store import Change
from datahall.control.tables import Tables, pods_of_job
from datahall.control.views import JobView, NodeView, PodView, PowerDomainView, QueueView, ServiceView
from datahall.control.workqueue import Key, WorkQueue

JOB, SERVICE, QUEUE, PLANNER = "TrainingJob", "InferenceService", "Queue", "Planner"
POWER_DOMAIN = "PowerDomain"
PLAN = Key(PLANNER, "", "")
ALL_POWER_DOMAINS = Key(POWER_DOMAIN, "", "")
"""Which of the PowerDomains have a new status to be written: one look for all."""

QUEUE_STATUS_AFTER_SECONDS = 1.0
"""How soon a Queue's status follows a change of its numbers."""

QUEUE_STATUS_EVERY_SECONDS = 2.0
"""A Queue's numbers change with every job: where they never rest, one status is written this often, of all Queues'."""

QUEUE_STATUS_LONGEST_SECONDS = 10.0
"""However many Queues there are, the status of each follows this often."""

POWER_STATUS_AFTER_SECONDS = 1.0
"""How soon the statuses of PowerDomains follow a change of their numbers."""

POWER_STATUS_EVERY_SECONDS = 1.0
"""Watts change with every job, on every level of the tree: where they never rest, one is written this often, of all."""

POWER_STATUS_LONGEST_SECONDS = 30.0
"""However many PowerDomains there are, their statuses follow this often."""


class Dispatch:
    """Listens to the tables; adds keys to the work queue and deltas to the planner."""

    def __init__(
        self,
        tables: Tables,
        queue: WorkQueue,
        *,
        scheduling: Scheduling,
        replicas: Replicas,
        reports: Reports,
    ) -> None:
        self._tables = tables
        self._queue = queue
        self._scheduling = scheduling
        self._replicas = replicas
        self._reports = reports
        self._queue_told: dict[str, float] = {}
        self._power_told = -POWER_STATUS_LONGEST_SECONDS
        self._followers: dict[tuple[str, str], set[str]] = {}
        tables.nodes.listen(self._node)
        tables.queues.listen(self._quota)
        tables.power_domains.listen(self._power_domain)
        tables.claims.listen(self._claim)
        tables.storage_classes.listen(self._storage_class)
        tables.pods.listen(self._pod)
        tables.jobs.listen(self._job)
        tables.services.listen(self._service)
        tables.deployments.listen(self._child)
        tables.endpoints.listen(self._child)
        tables.budgets.listen(self._child)

    def everything(self) -> None:
        """Look at every object of ours: after taking the lead, nothing is known to be settled."""
        for job in self._tables.jobs:
            self._queue.add(Key(JOB, job.namespace, job.name))
        for service in self._tables.services:
            self._queue.add(Key(SERVICE, service.namespace, service.name))
        for queue in self._tables.queues:
            self._queue.add(Key(QUEUE, "", queue.name))
        for domain in self._tables.power_domains:
            self._queue.add(Key(POWER_DOMAIN, "", domain.name))
        self._queue.add(PLAN)

    def queue_changed(self, name: str) -> None:
        """What a Queue's status counts may have changed."""
        rest = min(QUEUE_STATUS_EVERY_SECONDS * len(self._tables.queues), QUEUE_STATUS_LONGEST_SECONDS)
        rested = time.monotonic() - self._queue_told.get(name, -QUEUE_STATUS_LONGEST_SECONDS)
        self._queue.add_after(Key(QUEUE, "", name), max(QUEUE_STATUS_AFTER_SECONDS, rest - rested))
        self.power_changed()

    def power_changed(self) -> None:
        """What is reserved below PowerDomains, or which nodes they feed, may have changed."""
        if domains := len(self._tables.power_domains):
            rest = min(POWER_STATUS_EVERY_SECONDS * domains, POWER_STATUS_LONGEST_SECONDS)
            rested = time.monotonic() - self._power_told
            self._queue.add_after(ALL_POWER_DOMAINS, max(POWER_STATUS_AFTER_SECONDS, rest - rested))

    def power_told(self) -> None:
        """Statuses of PowerDomains are being written."""
        self._power_told = time.monotonic()

    def queue_told(self, name: str) -> None:
        """A Queue's status has just been written."""
        self._queue_told[name] = time.monotonic()

    def _job(self, change: Change[JobView]) -> None:
        view = change.new or change.old
        assert view is not None
        pods = self._tables.pods.group(pods_of_job(view.namespace, view.name))
        before, after = (state.job if state is not None else None for state in change)
        if before is None and after is not None and pods:
            # From here on the job accounts for them. They may be an earlier job's of this name that are still leaving.
            self._scheduling.settle(after, tuple(pods), blocked=True)
            for pod in pods:
                self._scheduling.pod(pod, None)
        if before is not None and after is None:
            self._scheduling.forget(view.uid)
            for pod in pods:
                self._scheduling.pod(None, pod)  # its workers take their grace period to leave
        if change.new is None:
            self._reports.forget(view.uid)
        if view.job is not None:
            self.queue_changed(view.job.spec.queue)
        self._queue.add(Key(JOB, view.namespace, view.name))
        for follower in self._followers.get((view.namespace, view.name), ()):
            self._queue.add(Key(SERVICE, view.namespace, follower))

    def _service(self, change: Change[ServiceView]) -> None:
        for view, follows in ((change.old, False), (change.new, True)):
            if view is None or view.service is None or view.service.spec.model.from_training_job is None:
                continue
            followers = self._followers.setdefault(
                (view.namespace, view.service.spec.model.from_training_job.name), set()
            )
            (followers.add if follows else followers.discard)(view.name)
        self._replicas.service(change.old, change.new)
        view = change.new or change.old
        assert view is not None
        self._queue.add(Key(SERVICE, view.namespace, view.name))

    def _pod(self, change: Change[PodView]) -> None:
        view = change.new or change.old
        assert view is not None
        if job := view.labels.get(labels.TRAINING_JOB):
            self._queue.add(Key(JOB, view.namespace, job))
            owner = self._tables.jobs.get(view.namespace, job)
            if owner is not None and owner.job is not None:
                return
            if queue := view.labels.get(labels.QUEUE):
                self.queue_changed(queue)
        old, new = change
        self._replicas.pod(old if is_replica(old) else None, new if is_replica(new) else None)
        self._scheduling.pod(None if is_replica(old) else old, None if is_replica(new) else new)
        if service := view.labels.get(labels.INFERENCE_SERVICE):
            self._queue.add(Key(SERVICE, view.namespace, service))
            if queue := view.labels.get(labels.QUEUE):
                self.queue_changed(queue)

    def _node(self, change: Change[NodeView]) -> None:
        self._scheduling.node(change.old, change.new)
        old, new = change.old, change.new
        if old is None or new is None or old.labels != new.labels:
            self.power_changed()
        if old is not None and (new is None or (old.ready, old.schedulable) != (new.ready, new.schedulable)):
            for pod in self._tables.pods:
                if pod.node == old.name and (job := pod.labels.get(labels.TRAINING_JOB)):
                    self._queue.add(Key(JOB, pod.namespace, job))

    def _quota(self, change: Change[QueueView]) -> None:
        self._scheduling.queue(change.old, change.new)
        view = change.new or change.old
        assert view is not None
        if change.old is None or change.new is None or change.old.generation != change.new.generation:
            self._queue.add(Key(QUEUE, "", view.name))
            for other in self._tables.queues:
                self.queue_changed(other.name)  # a parent, a child or a lender may have come, changed or gone
            for service in self._tables.services:
                if service.service is not None and service.service.spec.queue == view.name:
                    self._queue.add(Key(SERVICE, service.namespace, service.name))

    def _power_domain(self, change: Change[PowerDomainView]) -> None:
        self._scheduling.power_domain(change.old, change.new, self._tables.nodes)
        view = change.new or change.old
        assert view is not None
        if change.old is None or change.new is None or change.old.generation != change.new.generation:
            self._queue.add(Key(POWER_DOMAIN, "", view.name))
            # Others may have lost or found their parent, or share nodes with it no longer.
            self._queue.add_after(ALL_POWER_DOMAINS, POWER_STATUS_AFTER_SECONDS)

    def _claim(self, change: Change[ClaimView]) -> None:
        old, new = change
        if old is not None and new is not None and _binding(old) == _binding(new):
            return
        view = new or old
        assert view is not None
        self._claim_changed(view)

    def _storage_class(self, change: Change[StorageClassView]) -> None:
        if change.old is not None and change.new is not None:
            return  # what matters of it cannot change
        view = change.new or change.old
        assert view is not None
        for claim in self._tables.claims:
            if claim.storage_class == view.name and claim.phase != "Bound":
                self._claim_changed(claim)

    def _claim_changed(self, view: ClaimView) -> None:
        for job in self._tables.jobs:
            if job.namespace == view.namespace and job.job is not None and not job.job.status.placement:
                self._queue.add(Key(JOB, job.namespace, job.name))
        for service in self._tables.services:
            if service.namespace == view.namespace:
                self._queue.add(Key(SERVICE, service.namespace, service.name))

    def _child(self, change: Change[DeploymentView] | Change[ChildView]) -> None:
        view = change.new or change.old
        assert view is not None
        job = view.labels.get(labels.TRAINING_JOB)
        if job and change.new is None:
            self._queue.add(Key(JOB, view.namespace, job))  # the next job of the name may wait for it to go
        if service := view.labels.get(labels.INFERENCE_SERVICE):
            self._queue.add(Key(SERVICE, view.namespace, service))


def _binding(claim: ClaimView) -> tuple[str, str, str]:
    """What decides whether a claim can be used."""
    return claim.phase, claim.storage_class, claim.volume
