"""All that is known when an InferenceService is looked at."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from datahall.api.inferenceservice import InferenceService
from datahall.api.trainingjob import TrainingJob
from datahall.control.child_views import DeploymentView
from datahall.control.training.seen import Waiting
from datahall.control.views import PodView


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the planner says to a service's replicas, each by its pod's uid.

    Attributes:
        places: nodes that were found for gated pods; their gates are to be lifted.
        waits: why gated pods wait.
        one_too_many: the replica that no queue pays for until the one that it replaces is gone, "" for none.
        refused: why the nodes of pods whose gate was lifted do not take them; others are to be made.
        look_again_seconds: when to look again even if nothing changes; None waits for a change.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    waits: Mapping[str, Waiting] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    one_too_many: str = ""
    look_again_seconds: float | None = None


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
        answers: what the planner says to its replicas.
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
    answers: Answers = field(default_factory=Answers)
    missing_claims: tuple[str, ...] = ()
    refusal: str = ""
