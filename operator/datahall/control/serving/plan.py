"""What to do about an InferenceService: which model, how many replicas, and how truthfully Ready it is."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from datahall.api.conditions import (
    ConditionType,
    find_condition,
    inference_service_state,
    is_true,
)
from datahall.api.inferenceservice import (
    InferenceService,
    InferenceServiceStatus,
    PinnedModel,
    ReplicaFailure,
)
from datahall.api.reasons import Reason
from datahall.api.trainingjob import TrainingJob
from datahall.control import labels
from datahall.control.actions import Action, Announce, Apply, Plan
from datahall.control.child_views import DeploymentView
from datahall.control.serving import objects
from datahall.control.settings import Settings
from datahall.control.statuses import StatusDraft
from datahall.control.training.causes import WorkerEnd, worker_end
from datahall.control.training.pods import claims
from datahall.control.views import PULL_PROBLEMS, PodView
from datahall.kube.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, SERVICES

_ON_THE_WAY = (Reason.ROLLING_OUT, Reason.REQUEST_REFUSED)
"""Enough replicas answer, and yet they are not all as the spec says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that is known when an InferenceService is looked at.

    Attributes:
        service: the object, its present status included.
        deleting: whether its deletion has begun.
        job: the TrainingJob that the model comes from, if it is there.
        deployment: its Deployment.
        applied: hash of what was applied last, of the Service and of the PodDisruptionBudget ("" where missing).
        pods: its pods.
        queue_exists: whether its Queue exists.
        queue_allows: whether the Queue lets this namespace in.
        gpu_room: GPUs of quota that are left for it, beside what its pods hold.
        missing_claims: claims that the model's URI names and that do not exist.
        refusal: what the API server said to a child of it a moment ago, "" for nothing.
        now: the present time.
    """

    service: InferenceService
    now: datetime.datetime
    deleting: bool = False
    job: TrainingJob | None = None
    deployment: DeploymentView | None = None
    applied: tuple[str, str] = ("", "")
    pods: tuple[PodView, ...] = ()
    queue_exists: bool = True
    queue_allows: bool = True
    gpu_room: int = 0
    missing_claims: tuple[str, ...] = ()
    refusal: str = ""


@dataclass(slots=True)
class _Verdict:
    """What one part of the service comes to."""

    ok: bool | None
    reason: Reason
    message: str = ""
    stalled: bool = False


@dataclass(slots=True)
class _Look:
    seen: Seen
    settings: Settings
    draft: StatusDraft[InferenceServiceStatus]
    actions: list[Action] = field(default_factory=list)


def plan(seen: Seen, settings: Settings) -> Plan:
    """Decide what is to be done about a service now."""
    if seen.deleting:
        return Plan()
    meta = seen.service.metadata
    draft = StatusDraft(
        seen.service.status, generation=meta.generation, now=seen.now, state=inference_service_state
    )
    look = _Look(seen, settings, draft)
    draft.set(
        selector=f"{labels.INFERENCE_SERVICE}={meta.name}",
        url=f"http://{meta.name}.{meta.namespace}.svc",
    )
    model = _pin(look)
    room, granted = _gpus(look)
    if model.ok and draft.value.model is not None and granted is not None and not seen.refusal:
        _apply(look, draft.value.model, granted)
    replicas = _replicas(look)
    _conclude(look, model, room, replicas)
    announcements = _news(seen.service.status, draft.value)
    return Plan(status=draft.finish(), actions=tuple(look.actions), announcements=announcements)


def _pin(look: _Look) -> _Verdict:
    """Find the model to serve. A pinned one stays until a newer one is known: trouble upstream stops no service."""
    seen, draft = look.seen, look.draft
    source, pinned = seen.service.spec.model, seen.service.status.model
    if source.from_training_job is None:
        draft.set(model=PinnedModel(uri=source.uri, digest=source.digest))
        return _claims(look) or _Verdict(
            True, Reason.MODEL_PINNED, f"{source.uri} {source.digest or ''}".strip()
        )
    name, job = source.from_training_job.name, seen.job
    if pinned is not None and pinned.from_training_job != name:
        pinned = None
    if job is not None and is_true(job.status.conditions, ConditionType.SUCCEEDED) and job.status.output:
        output = job.status.output
        pinned = PinnedModel(
            uri=output.uri, digest=output.digest, from_training_job=name, job_uid=job.metadata.uid
        )
    draft.set(model=pinned)
    if pinned is not None:
        return _claims(look) or _Verdict(True, Reason.MODEL_PINNED, f"{pinned.uri} {pinned.digest}")
    if job is None:
        return _Verdict(
            False, Reason.TRAINING_JOB_NOT_FOUND, f"TrainingJob {name} does not exist in this namespace"
        )
    if is_true(job.status.conditions, ConditionType.FAILED):
        failed = find_condition(job.status.conditions, ConditionType.FAILED)
        text = f"TrainingJob {name} failed: {failed.message if failed else ''}"
        return _Verdict(False, Reason.TRAINING_JOB_FAILED, text, stalled=True)
    if is_true(job.status.conditions, ConditionType.SUCCEEDED):
        return _Verdict(False, Reason.NO_TRAINED_MODEL, f"TrainingJob {name} left no output", stalled=True)
    return _Verdict(
        False, Reason.WAITING_FOR_TRAINING_JOB, f"TrainingJob {name} is {job.status.state or 'Pending'}"
    )


def _claims(look: _Look) -> _Verdict | None:
    if not look.seen.missing_claims:
        return None
    names = ", ".join(f'"{name}"' for name in look.seen.missing_claims)
    namespace = look.seen.service.metadata.namespace
    text = f"PersistentVolumeClaim {names} does not exist in namespace {namespace}"
    return _Verdict(False, Reason.CLAIM_NOT_FOUND, text)


def model_claims(service: InferenceService, job: TrainingJob | None) -> tuple[str, ...]:
    """The claims that the model to be served lies on."""
    source = service.spec.model
    if source.from_training_job is None:
        return claims((source.uri,))
    if job is not None and job.status.output is not None:
        return claims((job.status.output.uri,))
    return claims((service.status.model.uri,)) if service.status.model else ()


def _gpus(look: _Look) -> tuple[_Verdict, int | None]:
    """How many replicas the quota allows: the verdict, and the number (None: change nothing)."""
    seen, spec = look.seen, look.seen.service.spec
    wanted, each = spec.replicas.min, spec.resources.gpus
    if not seen.queue_exists:
        return _Verdict(False, Reason.QUEUE_NOT_FOUND, f"Queue {spec.queue} does not exist"), None
    if not seen.queue_allows:
        text = f"Queue {spec.queue} does not serve namespace {seen.service.metadata.namespace}"
        return _Verdict(False, Reason.QUEUE_FORBIDDEN, text), None
    if each == 0:
        return _Verdict(True, Reason.NO_GPUS_REQUESTED, "the replicas compute on the CPU"), wanted
    held = sum(pod.gpus for pod in seen.pods if not pod.finished)
    # A quota that was lowered below what is held takes nothing away; nothing new starts until use falls.
    room = max(seen.gpu_room, 0)
    granted = min(wanted, (held + room) // each)
    if granted < wanted:
        text = (
            f"{wanted} replicas need {wanted * each} GPUs; queue {spec.queue} has {held + room} for them"
            f" ({held} held): {granted} replicas run"
        )
        return _Verdict(False, Reason.QUOTA_EXCEEDED, text), granted
    unplaced = [pod for pod in seen.pods if pod.unschedulable and not pod.bound]
    if unplaced:
        return _Verdict(False, Reason.NO_ROOM, f"{unplaced[0].name}: {unplaced[0].unschedulable}"), granted
    return _Verdict(True, Reason.GPUS_RESERVED, f"{granted * each} GPUs"), granted


def _apply(look: _Look, model: PinnedModel, replicas: int) -> None:
    """Write what differs from what was applied last. The Service comes first, so that its name is there early."""
    seen = look.seen
    service_hash, budget_hash = seen.applied
    service = objects.service_object(seen.service)
    if objects.spec_hash(service) != service_hash:
        look.actions.append(Apply(SERVICES, service, first=not service_hash))
    deployment = objects.deployment(seen.service, model, replicas=replicas, settings=look.settings)
    current = seen.deployment
    if current is None or current.spec_hash != objects.spec_hash(deployment) or current.wanted != replicas:
        look.actions.append(Apply(DEPLOYMENTS, deployment, first=current is None))
    budget = objects.disruption_budget(seen.service)
    if objects.spec_hash(budget) != budget_hash:
        look.actions.append(Apply(POD_DISRUPTION_BUDGETS, budget, first=not budget_hash))


def _replicas(look: _Look) -> _Verdict:
    """How the replicas do: whether enough of them answer, of whichever version, and what is still to come."""
    seen, draft, wanted = look.seen, look.draft, look.seen.service.spec.replicas.min
    pods = [pod for pod in seen.pods if not pod.finished and pod.deleted_at is None]
    ready, current = sum(pod.ready for pod in pods), seen.deployment
    changing = any(action.resource == DEPLOYMENTS for action in look.actions)
    known = current is not None and not changing and current.observed_generation >= current.generation
    updated = current.updated if current is not None and known else 0
    draft.set(replicas=len(pods), ready_replicas=ready, updated_replicas=updated)
    failing = _failing(seen.pods)
    draft.set(failure=failing)
    if failing is not None:
        return _Verdict(False, Reason.REPLICA_FAILING, f"{failing.pod}: {failing.cause}: {failing.message}")
    # The Deployment knows how long a replica has been ready; the pods know first when one is not any more.
    available = min(ready, current.available) if current is not None else 0
    enough = 0 < wanted <= available
    if seen.refusal:
        return _Verdict(enough, Reason.REQUEST_REFUSED, seen.refusal)
    before = find_condition(seen.service.status.conditions, ConditionType.REPLICAS_READY)
    if look.actions and before is not None and before.reason == Reason.REQUEST_REFUSED:
        # Tried again now; until it is known to go through, the old sentence is the true one.
        return _Verdict(enough, Reason.REQUEST_REFUSED, before.message)
    if current is None or (changing and not pods):
        return _Verdict(False, Reason.REPLICAS_STARTING, "no replica yet")
    if wanted == 0 and not changing:
        return _Verdict(not pods, Reason.SCALED_TO_ZERO, "spec.replicas.min is 0: nothing serves")
    text = f"{updated} of {wanted} replicas run the present version, {available} are available"
    if not known or current.replicas > updated:
        return _Verdict(enough, Reason.ROLLING_OUT if pods else Reason.REPLICAS_STARTING, text)
    if updated < wanted or not enough:
        return _Verdict(False, Reason.REPLICAS_STARTING, f"{available} of {wanted} replicas are ready")
    return _Verdict(True, Reason.REPLICAS_READY, f"{available} of {wanted} replicas are ready")


def _failing(pods: tuple[PodView, ...]) -> ReplicaFailure | None:
    """The replica that most needs telling of: one that ends again and again, or whose image cannot be had."""
    for pod in pods:
        # A finished one was evicted, or its node shut down: it was replaced, and its object may stay for ever.
        if pod.deleted_at is not None or pod.ready or pod.finished:
            continue
        if pod.waiting_reason in PULL_PROBLEMS or pod.waiting_reason.endswith("ConfigError"):
            message = f"{pod.waiting_reason}: {pod.waiting_message}"
            return ReplicaFailure(pod=pod.name, cause="ImagePull", message=message[:4096])
        if pod.ended is not None and pod.ended.exit_code != 0 and pod.restarts > 0:
            end: WorkerEnd = worker_end(pod)
            return ReplicaFailure(
                pod=pod.name,
                cause=str(end.cause),
                message=end.message[:4096],
                last_log_lines=end.log_lines,
                exit_code=pod.ended.exit_code,
            )
    return None


def _conclude(look: _Look, model: _Verdict, room: _Verdict, replicas: _Verdict) -> None:
    draft, parts = look.draft, (model, room, replicas)
    draft.condition(ConditionType.MODEL_READY, model.ok, model.reason, model.message)
    draft.condition(ConditionType.GPU_AVAILABLE, room.ok, room.reason, room.message)
    draft.condition(ConditionType.REPLICAS_READY, replicas.ok, replicas.reason, replicas.message)
    # A roll-out needs room for one replica more. Until there is some, the old ones answer.
    spare = room.reason is Reason.NO_ROOM and replicas.ok
    bad = next((part for part in parts if not part.ok and not (spare and part is room)), None)
    if bad is not None:
        draft.condition(ConditionType.READY, False, bad.reason, bad.message)
    elif replicas.reason is Reason.SCALED_TO_ZERO:
        draft.condition(ConditionType.READY, True, Reason.SCALED_TO_ZERO, replicas.message)
    else:
        draft.condition(ConditionType.READY, True, Reason.SERVING, replicas.message)
    stalled = next((part for part in parts if part.stalled), None)
    if stalled is not None:
        # kstatus looks at Reconciling first: were it True, tools would wait for what only a person can bring about.
        draft.condition(ConditionType.RECONCILING, False, stalled.reason, stalled.message)
    elif bad is None and spare:
        message = f"{replicas.message}; the next has no room: {room.message}"
        draft.condition(ConditionType.RECONCILING, True, room.reason, message)
    elif bad is None and replicas.reason not in _ON_THE_WAY:
        draft.condition(ConditionType.RECONCILING, False, Reason.UP_TO_DATE)
    else:
        moving = replicas if bad is None else bad
        draft.condition(ConditionType.RECONCILING, True, moving.reason, moving.message)
    if stalled is not None:
        draft.true(ConditionType.STALLED, stalled.reason, stalled.message)
    else:
        draft.false(ConditionType.STALLED)


def _news(before: InferenceServiceStatus, after: InferenceServiceStatus) -> tuple[Announce, ...]:
    """Tell when Ready turns, or is False for another reason; numbers alone are no news."""
    old = find_condition(before.conditions, ConditionType.READY)
    new = find_condition(after.conditions, ConditionType.READY)
    if new is None or (old is not None and (old.status, old.reason) == (new.status, new.reason)):
        return ()
    reason = next(reason for reason in Reason if reason == new.reason)
    return (Announce(reason, new.message),)
