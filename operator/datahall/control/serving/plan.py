"""What to do about an InferenceService: which model, how many replicas, and how truthfully Ready it is."""

from __future__ import annotations

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
from datahall.control.actions import Action, Announce, Apply, Delete, Plan
from datahall.control.serving import objects
from datahall.control.serving.gate import Standing, place, standing
from datahall.control.serving.seen import Answers, Seen
from datahall.control.settings import Settings
from datahall.control.statuses import StatusDraft
from datahall.control.training.causes import WorkerEnd, worker_end
from datahall.control.training.pods import claims
from datahall.control.views import PULL_PROBLEMS, PodView
from datahall.kube.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, SERVICES

__all__ = ["Answers", "Seen", "model_claims", "plan"]

_AT_REST = (Reason.REPLICAS_READY, Reason.SCALED_TO_ZERO)
"""All replicas are as the spec says. With any other reason something is still to come, even if enough answer."""


@dataclass(slots=True)
class _Verdict:
    """What one part of the service comes to."""

    ok: bool | None
    reason: Reason
    message: str = ""
    stalled: bool = False
    waits: bool = False


@dataclass(slots=True)
class _Look:
    seen: Seen
    settings: Settings
    draft: StatusDraft[InferenceServiceStatus]
    actions: list[Action] = field(default_factory=list)
    announcements: list[Announce] = field(default_factory=list)


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
    _place(look)
    model = _pin(look)
    queue, waiting = _queue(look), _waiting(look)
    if model.ok and draft.value.model is not None and queue is None and not seen.refusal:
        _apply(look, draft.value.model)
    room = queue or _gpus(look, waiting)
    replicas = _replicas(look, waiting)
    _conclude(look, model, room, replicas)
    look.announcements += _news(seen.service.status, draft.value)
    return Plan(
        status=draft.finish(),
        actions=tuple(look.actions),
        announcements=tuple(look.announcements),
        look_again_seconds=seen.answers.look_again_seconds,
    )


def _place(look: _Look) -> None:
    """Lift the gates of those that have a place, and have those made anew that their nodes do not take."""
    seen = look.seen
    for pod in seen.pods:
        node = seen.answers.places.get(pod.uid)
        if node is not None and standing(pod) is Standing.WAITS:
            look.actions.append(place(pod, node, seen.now))
        why = seen.answers.refused.get(pod.uid)
        if why is not None and pod.deleted_at is None:
            look.actions.append(Delete(PODS, pod.namespace, pod.name, pod.uid))
            look.announcements.append(Announce(Reason.PLACE_REFUSED, f"{pod.name}: {why}; another is made"))


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


def _queue(look: _Look) -> _Verdict | None:
    """Why its Queue cannot pay for anything; None if it can."""
    seen, spec = look.seen, look.seen.service.spec
    if not seen.queue_exists:
        return _Verdict(False, Reason.QUEUE_NOT_FOUND, f"Queue {spec.queue} does not exist")
    if not seen.queue_allows:
        text = f"Queue {spec.queue} does not serve namespace {seen.service.metadata.namespace}"
        return _Verdict(False, Reason.QUEUE_FORBIDDEN, text)
    return None


def _waiting(look: _Look) -> _Verdict | None:
    """Why replicas have no node: what the planner says, or else the scheduler; None if none is known to wait."""
    seen = look.seen
    pods = sorted(seen.pods, key=lambda pod: (pod.created_at, pod.name))
    told = [seen.answers.waits[pod.uid] for pod in pods if pod.uid in seen.answers.waits]
    if told:
        many = "replica waits" if len(told) == 1 else "replicas wait"
        return _Verdict(False, told[0].reason, f"{len(told)} {many}: {told[0].message}", waits=True)
    unplaced = next((pod for pod in pods if pod.unschedulable and not pod.bound and not pod.finished), None)
    if unplaced is None:
        return None
    return _Verdict(False, Reason.NO_ROOM, f"{unplaced.name}: {unplaced.unschedulable}", waits=True)


def _gpus(look: _Look, waiting: _Verdict | None) -> _Verdict:
    """Whether the replicas have their GPUs."""
    spec = look.seen.service.spec
    wanted, each = spec.replicas.min, spec.resources.gpus
    if each == 0:
        return _Verdict(True, Reason.NO_GPUS_REQUESTED, "the replicas compute on the CPU")
    if waiting is not None:
        return waiting
    held = len(_placed(look.seen))
    if held < wanted:
        text = f"{held} of {wanted} replicas have their GPUs; the others are being made"
        return _Verdict(None, Reason.REPLICAS_STARTING, text)
    return _Verdict(True, Reason.GPUS_RESERVED, f"{wanted * each} GPUs")


def _placed(seen: Seen) -> list[PodView]:
    """The replicas that have a place and are to stay."""
    return [pod for pod in seen.pods if standing(pod) is Standing.HOLDS and pod.deleted_at is None]


def _apply(look: _Look, model: PinnedModel) -> None:
    """Write what differs from what was applied last. The Service comes first, so that its name is there early."""
    seen = look.seen
    service_hash, budget_hash = seen.applied
    service = objects.service_object(seen.service)
    if objects.spec_hash(service) != service_hash:
        look.actions.append(Apply(SERVICES, service, first=not service_hash))
    deployment = objects.deployment(seen.service, model, missing=_missing(seen), settings=look.settings)
    current, wanted = seen.deployment, seen.service.spec.replicas.min
    if current is None or current.spec_hash != objects.spec_hash(deployment) or current.wanted != wanted:
        look.actions.append(Apply(DEPLOYMENTS, deployment, first=current is None))
    budget = objects.disruption_budget(seen.service)
    if objects.spec_hash(budget) != budget_hash:
        look.actions.append(Apply(POD_DISRUPTION_BUDGETS, budget, first=not budget_hash))


def _missing(seen: Seen) -> int:
    """Replicas that no roll-out can wait for, because they have no place themselves.

    One that leaves counts until it is gone: so long its successor has no place of its own, and nobody is missing.
    """
    current, answers = seen.deployment, seen.answers
    gated = any(standing(pod) is Standing.WAITS and pod.uid not in answers.places for pod in seen.pods)
    rolls_over = current is not None and current.replicas > current.updated
    if not (rolls_over and gated and (answers.waits or answers.one_too_many)):
        return 0
    lasting = [
        pod for pod in seen.pods if standing(pod) is Standing.HOLDS and pod.uid != answers.one_too_many
    ]
    return max(0, seen.service.spec.replicas.min - len(lasting))


def _replicas(look: _Look, waiting: _Verdict | None) -> _Verdict:
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
    applying = any(isinstance(action, Apply) for action in look.actions)
    if applying and before is not None and before.reason == Reason.REQUEST_REFUSED:
        # Tried again now; until it is known to go through, the old sentence is the true one.
        return _Verdict(enough, Reason.REQUEST_REFUSED, before.message)
    if current is None or (changing and not pods):
        return _Verdict(False, Reason.REPLICAS_STARTING, "no replica yet")
    if wanted == 0 and not changing:
        return _Verdict(not pods, Reason.SCALED_TO_ZERO, "spec.replicas.min is 0: nothing serves")
    text = f"{updated} of {wanted} replicas run the present version, {available} are available"
    if waiting is not None and seen.service.spec.resources.gpus == 0:
        message = f"{text}; {waiting.message}" if enough else waiting.message
        return _Verdict(enough, waiting.reason, message)
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
    spare = room.waits and replicas.ok
    bad = next((part for part in parts if part.ok is False and not (spare and part is room)), None)
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
    elif bad is None and replicas.reason in _AT_REST:
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
