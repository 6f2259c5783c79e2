"""Replicas of InferenceServices before the planner: each pod is a gang of one, from its creation to its end.

As with jobs, where a replica stands is read off its pod: gated, it waits; bound or pinned, it holds. What is in memory
only (a place that was found and not written yet, nodes that refused, quota that is being handed over) is found anew
by a new leader, or is no loss. The planner decides; the service's next look lifts the gate.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from datahall.api.reasons import Reason
from datahall.control import labels, metrics
from datahall.control.scheduling import REASONS, News
from datahall.control.serving import exchange, gate, patience
from datahall.control.serving.gate import Standing, standing
from datahall.control.serving.patience import Trouble
from datahall.control.serving.seen import Answers
from datahall.control.training.seen import Waiting
from datahall.control.views import PodView, ServiceView
from datahall.kube.resources import INFERENCE_SERVICES
from datahall.planning import Admit, Decision, GangRequest, Placement, Planner, Wait, WaitReason

log = structlog.get_logger(__name__)

Owner = tuple[str, str]
"""Namespace and name of a service."""

WAITS_TOLD_ANEW_SECONDS = 9.0
"""How often a service with replicas that wait is looked at, so that it tells why they wait now."""

_WANTS_QUOTA = frozenset(
    {
        WaitReason.QUOTA_EXCEEDED,
        WaitReason.QUOTA_TOO_SMALL,
        WaitReason.BORROWED_AWAY,
        WaitReason.BEHIND_OTHERS,
        WaitReason.POWER_BUDGET,
        WaitReason.ENERGY_BUDGET,
    }
)
"""Reasons that say nothing against the room of a replica that replaces another."""


def is_replica(pod: PodView | None) -> bool:
    """Whether a pod is a replica that a queue pays for."""
    if pod is None or labels.TRAINING_JOB in pod.labels:
        return False
    return bool(pod.labels.get(labels.INFERENCE_SERVICE) and pod.labels.get(labels.QUEUE))


class Replicas:
    """Keeps the planner told of replicas, and has its answers for the services."""

    def __init__(
        self,
        planner: Planner,
        *,
        wake: Callable[[], None],
        gpu_model_of: Callable[[str], str],
        service_of: Callable[[str, str], ServiceView | None],
        pods_of: Callable[[str, str], Iterable[PodView]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Start without replicas.

        Args:
            planner: the one planner.
            wake: asks for a cycle soon.
            gpu_model_of: the GPU model of a node by name, "" where it is not known.
            service_of: a service by namespace and name.
            pods_of: the pods of a service by namespace and name.
            now: the time, seconds since the epoch.
        """
        self._planner = planner
        self._wake = wake
        self._gpu_model_of = gpu_model_of
        self._service_of = service_of
        self._pods_of = pods_of
        self._now = now
        self._gangs: dict[str, GangRequest] = {}
        self._owners: dict[str, Owner] = {}
        self._admitted: dict[str, str] = {}
        self._waiting: dict[str, Waiting] = {}
        self._trouble: dict[Owner, Trouble] = {}
        self._counted: set[str] = set()
        self._exchanged: dict[Owner, str] = {}
        self._wants_quota: set[str] = set()
        self._versions: defaultdict[Owner, Counter[str]] = defaultdict(Counter)

    # ---- deltas

    def pod(self, old: PodView | None, new: PodView | None) -> None:
        """A replica's pod came, changed or went; None for one that is no replica."""
        view = new or old
        if view is None:
            return
        owner = _owner(view)
        if (old is None) != (new is None):
            self._count_version(owner, view, 1 if old is None else -1)
        if new is None:
            self._counted.discard(view.uid)
            self._forget(view.uid)
        else:
            if old is not None and not old.bound and new.bound and owner in self._trouble:
                self._trouble[owner] = self._trouble[owner].bound()
            self._settle(new)
        if self._rolls_over(owner):
            self._settle_exchange(owner)

    def service(self, old: ServiceView | None, new: ServiceView | None) -> None:
        """A service came, changed or went."""
        if old is not None and new is not None and _asks(old) == _asks(new):
            return
        view = new or old
        assert view is not None
        if new is None:
            self._trouble.pop((view.namespace, view.name), None)
        for pod in list(self._pods_of(view.namespace, view.name)):
            if is_replica(pod):
                self._settle(pod)

    def take(self, decision: Decision) -> list[News]:
        """Take a decision on a replica; the service that has to be looked at, if that is news."""
        key = decision.key
        gang, owner = self._gangs.get(key), self._owners.get(key)
        if gang is None or owner is None:
            return []
        if isinstance(decision, Admit):
            self._admitted[key] = decision.placements[0].node
            self._waiting.pop(key, None)
            self._wants_quota.discard(key)
            return [News(*owner, urgent=True, kind=INFERENCE_SERVICES.kind)]
        if not isinstance(decision, Wait):
            log.error("a replica is not to be ended for another", replica=gang.name)
            return []
        if self._wants_now(key, decision.reason):
            if self._rolls_over(owner):
                self._settle_exchange(owner)
            if self._gangs.get(key) != gang:
                return []  # it asks elsewhere now, and is answered soon
        return self._tell(key, owner, Waiting(REASONS[decision.reason], decision.message))

    def gang_of(self, key: str) -> GangRequest | None:
        """The gang of a replica by its key, for those who have to make room for it."""
        return self._gangs.get(key)

    # ---- looks

    def review(self, namespace: str, name: str, pods: Iterable[PodView], now: datetime.datetime) -> Answers:
        """What a look at a service has to know of the planner.

        Args:
            namespace: the service's namespace.
            name: its name.
            pods: its pods.
            now: the present time.
        """
        owner, seconds = (namespace, name), now.timestamp()
        replicas = [pod for pod in pods if is_replica(pod)]
        refused: dict[str, str] = {}
        for pod in replicas:
            why = patience.refusal(pod, now)
            if why is None:
                continue
            if pod.uid not in self._counted:
                self._counted.add(pod.uid)
                self._count_refusal(owner, pod.node, why, seconds)
            if not pod.finished:
                refused[pod.uid] = why
        for pod in replicas:
            self._settle(pod)
            self._hear_anew(pod.uid)
        if self._rolls_over(owner):
            self._settle_exchange(owner)
        uids = {pod.uid for pod in replicas}
        again = [
            max(patience.patience_left(pod, now), 0.0)
            for pod in replicas
            if pod.unschedulable and not pod.bound and pod.placed_at is not None and pod.uid not in refused
        ]
        waits = {uid: waiting for uid in uids if (waiting := self._waiting.get(uid)) is not None}
        trouble = self._trouble.get(owner)
        if waits and trouble is not None and (change := trouble.next_change(seconds)) is not None:
            again.append(change)
        if any(uid in self._gangs for uid in waits):
            again.append(WAITS_TOLD_ANEW_SECONDS)
        return Answers(
            places={uid: node for uid in uids if (node := self._admitted.get(uid)) is not None},
            waits=waits,
            refused=refused,
            one_too_many=self._exchanged.get(owner, ""),
            look_again_seconds=min(again) + 1.0 if again else None,
        )

    def refused_by_api(self, uid: str, message: str) -> Owner | None:
        """The API server did not let a gate be lifted: the place is given back, and a later look tries again.

        Returns:
            The service that is to be looked at; None if nothing is known of the replica any more.
        """
        owner = self._owners.get(uid)
        if owner is not None:
            self._count_refusal(owner, "", message, self._now())
            self._forget(uid)
        return owner

    # ---- standings

    def _settle(self, pod: PodView) -> None:
        """Bring the planner's memory of a replica in line with its pod."""
        where = standing(pod)
        if where is Standing.WAITS:
            self._wait(pod)
        elif where is Standing.HOLDS:
            self._hold(pod)
        else:
            self._forget(pod.uid)

    def _wait(self, pod: PodView) -> None:
        owner, uid, now = _owner(pod), pod.uid, self._now()
        if uid in self._admitted:
            return
        view = self._service_of(*owner)
        if view is None or view.service is None or view.deleting:
            self._forget(uid)  # nobody wants it: it is about to be collected
            return
        trouble = self._trouble.get(owner, Trouble())
        if trouble.until_seconds > now:
            self._forget(uid)
            self._owners[uid] = owner
            self._waiting[uid] = Waiting(Reason.PLACE_REFUSED, trouble.sentence())
            return
        queue = self._queue_for(pod)
        if queue is None:
            self._forget(uid)
            return
        gang = gate.gang(
            pod, queue=queue, priority=view.service.spec.priority, avoid_nodes=trouble.avoided(now)
        )
        if self._gangs.get(uid) == gang:
            return
        if uid not in self._gangs:
            self._waiting.pop(uid, None)  # what was told of a back-off is over
        self._gangs[uid], self._owners[uid] = gang, owner
        self._planner.submit(gang)
        self._wake()

    def _hold(self, pod: PodView) -> None:
        uid, owner = pod.uid, _owner(pod)
        place = Placement(0, pod.node, self._model(pod))
        gang = self._gangs.get(uid) or gate.gang(pod, queue=pod.labels[labels.QUEUE])
        if gang.queue != pod.labels[labels.QUEUE] and self._exchanged.get(owner) != uid:
            gang = replace(gang, queue=pod.labels[labels.QUEUE])
        self._gangs[uid], self._owners[uid] = gang, owner
        self._admitted.pop(uid, None)
        self._waiting.pop(uid, None)
        self._wants_quota.discard(uid)
        self._planner.hold(gang, (place,), leaving=pod.deleted_at is not None)

    def _forget(self, uid: str) -> None:
        known = self._gangs.pop(uid, None)
        owner = self._owners.pop(uid, None)
        charged = known is not None and bool(known.gpus) and self._planner.held(uid) is not None
        self._planner.withdraw(uid)
        self._admitted.pop(uid, None)
        self._waiting.pop(uid, None)
        self._wants_quota.discard(uid)
        if owner is not None and known is not None:
            exchanged = self._exchanged.get(owner)
            # What this one held is free now: the one that is too many is paid for by it, before anyone else may ask.
            if exchanged is not None and (exchanged == uid or charged):
                self._end_exchange(owner)
        if known is not None:
            self._wake()

    def _model(self, pod: PodView) -> str:
        """The GPU model that its queue is charged for: what it was given, whatever becomes of the node."""
        if not pod.gpus:
            return ""
        for place in self._planner.held(pod.uid) or ():
            if place.node == pod.node and place.gpu_model:
                return place.gpu_model
        return self._gpu_model_of(pod.node)

    def _count_refusal(self, owner: Owner, node: str, why: str, now_seconds: float) -> None:
        trouble = self._trouble.get(owner, Trouble()).refused(node, why, now_seconds)
        self._trouble[owner] = trouble
        metrics.REPLICAS_REFUSED.inc()
        log.warning("a replica was refused", namespace=owner[0], name=owner[1], message=why)

    def _hear_anew(self, uid: str) -> None:
        """Take why a replica waits from the planner as it is now, which tells news of those in line now and then."""
        if uid in self._waiting and uid in self._gangs and (wait := self._planner.waiting(uid)) is not None:
            self._wants_now(uid, wait.reason)
            self._waiting[uid] = Waiting(REASONS[wait.reason], wait.message)

    def _wants_now(self, key: str, reason: WaitReason) -> bool:
        """Keep that a replica waits for quota alone; whether that is new."""
        if reason not in _WANTS_QUOTA or key in self._wants_quota:
            return False
        self._wants_quota.add(key)
        return True

    def _tell(self, key: str, owner: Owner, waiting: Waiting) -> list[News]:
        if key not in self._gangs:
            return []
        before = self._waiting.get(key)
        self._waiting[key] = waiting
        if before == waiting:
            return []
        urgent = before is None or before.reason is not waiting.reason
        return [News(*owner, urgent=urgent, kind=INFERENCE_SERVICES.kind)]

    # ---- quota that is handed over

    def _rolls_over(self, owner: Owner) -> bool:
        """Whether there are replicas of more than one version, or an exchange of an earlier roll-out has to end."""
        return len(self._versions.get(owner, ())) > 1 or owner in self._exchanged

    def _count_version(self, owner: Owner, pod: PodView, change: int) -> None:
        versions, version = self._versions[owner], pod.labels.get(exchange.TEMPLATE_HASH, "")
        versions[version] += change
        if versions[version] <= 0:
            del versions[version]
        if not versions:
            del self._versions[owner]

    def _queue_for(self, pod: PodView) -> str | None:
        """The queue that a gated replica asks: its own, or that of one too many; None if it has to wait its turn."""
        queue, owner = pod.labels[labels.QUEUE], _owner(pod)
        if self._exchanged.get(owner) == pod.uid:
            return self._gangs[pod.uid].queue
        if not self._rolls_over(owner):
            return queue  # as a rule: a thousand replicas that wait do not look at each other
        for old in exchange.predecessors(pod, self._pods_of(*owner)):
            model = self._model(old)
            enough = self._planner.quota_room(queue, model) >= pod.gpus
            wants = not enough or pod.uid in self._wants_quota
            if old.deleted_at is not None or not wants or not exchange.may_have(pod, model):
                continue
            if owner in self._exchanged:
                return None
            if self._planner.queue_report(queue, self._now()) is None:
                break  # the answer is that there is no such queue
            states = exchange.queues(*owner, model=model, gpus=pod.gpus)
            for state in states:
                self._planner.upsert_queue(state)
            self._exchanged[owner] = pod.uid
            return states[-1].name
        return queue

    def _settle_exchange(self, owner: Owner) -> None:
        """A replica that waits for quota may be next to take over some, or may have nobody left to take it from."""
        pods = {pod.uid: pod for pod in self._pods_of(*owner) if is_replica(pod)}
        exchanged = self._exchanged.get(owner)
        if exchanged is not None:
            pod = pods.get(exchanged)
            old = exchange.predecessors(pod, pods.values()) if pod is not None else []
            # One that leaves still holds what it had: a new one that has its place goes on being one too many.
            if not (old if self._planner.held(exchanged) else [o for o in old if o.deleted_at is None]):
                self._end_exchange(owner)
        if owner not in self._exchanged:
            for pod in sorted(pods.values(), key=lambda pod: (pod.created_at, pod.name)):
                if standing(pod) is Standing.WAITS:
                    self._wait(pod)

    def _end_exchange(self, owner: Owner) -> None:
        """The one replica too many is one like all others from here on."""
        uid = self._exchanged.pop(owner)
        self._wants_quota.discard(uid)
        gang = self._gangs.get(uid)
        pod = next((pod for pod in self._pods_of(*owner) if pod.uid == uid), None)
        if gang is not None and pod is not None:
            own = replace(gang, queue=pod.labels[labels.QUEUE])
            self._gangs[uid] = own
            places = self._planner.held(uid)
            if places is None:
                self._planner.submit(own)
            else:
                self._planner.hold(own, places)
        for state in exchange.queues(*owner, model="", gpus=0):
            self._planner.remove_queue(state.name)
        self._wake()


def _owner(pod: PodView) -> Owner:
    return pod.namespace, pod.labels[labels.INFERENCE_SERVICE]


def _asks(view: ServiceView) -> tuple[str, bool, int | None]:
    """What of a service its replicas ask the planner with."""
    return view.uid, view.deleting, view.service.spec.priority if view.service else None
