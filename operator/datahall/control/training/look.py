"""One look at one job: the draft of its status, and the writes, Events and further looks that it leads to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from datahall.api.conditions import ConditionType, training_job_state
from datahall.api.reasons import Reason
from datahall.api.trainingjob import Placement, TrainingJobStatus
from datahall.control import times
from datahall.control.actions import Action, Announce, Create, Delete, Plan
from datahall.control.settings import Settings
from datahall.control.statuses import StatusDraft
from datahall.control.training import pods as build
from datahall.control.training.seen import Seen
from datahall.control.views import PodView
from datahall.kube.resources import PODS, SERVICES

FORCE_AFTER_SECONDS = 30.0
"""Past its grace period on a node that is lost, a pod is removed by force: nobody is left to confirm its end."""

END_MARGIN_SECONDS = 1.0
"""Times are whole seconds: a look that is to find one passed comes this much later."""


@dataclass(slots=True)
class Look:
    """What one look has found to do so far."""

    seen: Seen
    settings: Settings
    draft: StatusDraft[TrainingJobStatus]
    actions: list[Action] = field(default_factory=list)
    announcements: list[Announce] = field(default_factory=list)
    again: float | None = None
    silent: bool = False

    @classmethod
    def at(cls, seen: Seen, settings: Settings) -> Look:
        """Begin a look: the draft is the status as it stands."""
        job = seen.job
        draft = StatusDraft(
            job.status, generation=job.metadata.generation, now=seen.now, state=training_job_state
        )
        return cls(seen, settings, draft)

    def done(self) -> Plan:
        """What the look has led to."""
        return Plan(
            status=None if self.silent else self.draft.finish(),
            actions=tuple(self.actions),
            announcements=tuple(self.announcements),
            look_again_seconds=self.again,
            pending=self.silent,
        )

    def gang(self) -> dict[int, PodView]:
        """The pods of the present generation, by rank; none that an earlier job of the name left."""
        job = self.seen.job
        return {
            pod.rank: pod
            for pod in self.seen.pods
            if pod.generation == job.status.generation and pod.owner_uid == job.metadata.uid
        }

    def announce(self, reason: Reason, message: str) -> None:
        """Tell of something in an Event."""
        self.announcements.append(Announce(reason, message))

    def look_again(self, seconds: float) -> None:
        """Look again after this time; of two, the shorter counts."""
        seconds = max(seconds, 0.1)
        self.again = seconds if self.again is None else min(self.again, seconds)

    def reconciling(self, message: str, reason: Reason = Reason.PROGRESSING) -> None:
        """Say what the job is on its way to."""
        self.draft.true(ConditionType.RECONCILING, reason, message)

    def give_back(self) -> None:
        """It holds no place any more, and is a gang of no size."""
        self.draft.set(placement=(), workers=None, spread=None)

    def release(self) -> None:
        """Give the place back, and say that nothing runs."""
        self.give_back()
        for type_ in (ConditionType.ADMITTED, ConditionType.RUNNING, ConditionType.RESTARTING):
            self.draft.false(type_)

    def end_back_off(self) -> None:
        """The next start that finds no node is the first in its row."""
        restarts = self.draft.value.restarts
        if restarts is not None and restarts.unschedulable is not None:
            self.draft.set(restarts=restarts.model_copy(update={"unschedulable": None}))

    def make(self, places: Iterable[Placement], generation: int) -> None:
        """Make the workers of these places, and what gives them their names."""
        job, workers = self.seen.job, len(self.draft.value.placement)
        if workers > 1:
            # Made with every generation, should somebody have deleted it: that it is there is no error.
            self.actions.append(Create(SERVICES, build.workers_service(job)))
        for place in places:
            pod = build.worker_pod(
                job, generation=generation, place=place, workers=workers, settings=self.settings
            )
            self.actions.append(Create(PODS, pod))

    def stop(self, pods: Iterable[PodView], *, all_of_them: bool = False) -> None:
        """Delete pods: each once, and by force where the node that should confirm it is lost.

        Args:
            pods: which.
            all_of_them: also those that have finished, to make room for the next generation.
        """
        for pod in pods:
            if not pod.uid or (pod.finished and not all_of_them):
                continue
            grace: int | None = None
            if pod.deleted_at is not None:
                overdue = times.since(pod.deleted_at, self.seen.now) > FORCE_AFTER_SECONDS
                if not (overdue and pod.node in self.seen.lost_nodes):
                    continue
                grace = 0
            self.actions.append(Delete(PODS, pod.namespace, pod.name, pod.uid, grace))
