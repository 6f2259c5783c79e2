"""InferenceService: which model to serve, how many replicas, how requests are batched."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from . import API_VERSION
from .common import (
    URI,
    Condition,
    Digest,
    Float,
    Int,
    Model,
    Name,
    ObjectMeta,
    Resources,
    Rule,
    SpecModel,
    StatusModel,
    Unique,
    name_rules,
)


class Runtime(StrEnum):
    """The program that serves."""

    NATIVE = "Native"


class TrainingJobReference(SpecModel):
    """A TrainingJob of the same namespace."""

    name: Annotated[Name, Field(examples=["digits"])]
    """Its name."""


class ServedModel(SpecModel):
    """Which model to serve: the output of a TrainingJob, or a directory."""

    from_training_job: TrainingJobReference | None = None
    """Serve what this TrainingJob made: waits for its success, and follows when it is trained anew."""
    uri: Annotated[URI | None, Field(examples=["pvc://models/digits/versions/0123456789abcdef"])] = None
    """Serve the model in this directory. Absent: fromTrainingJob says which model."""
    digest: Annotated[Digest | None, Field(examples=["sha256:" + "0123456789abcdef" * 4])] = None
    """What the model at uri must be; another one is not served. Absent: whatever is there."""

    rules = (
        Rule(
            "has(self.fromTrainingJob) != has(self.uri)",
            "exactly one of fromTrainingJob and uri must be set",
            lambda self: (self.from_training_job is None) != (self.uri is None),
        ),
        Rule(
            "!has(self.digest) || has(self.uri)",
            "digest goes with uri; fromTrainingJob pins the digest by itself",
            lambda self: self.digest is None or self.uri is not None,
            field=".digest",
        ),
    )


class Replicas(SpecModel):
    """How many pods serve."""

    # The one default that the API server stores: the scale subresource answers with an error without it,
    # and no autoscaler works. A GitOps tool leaves it alone, as it leaves every field that the manifest does not name.
    min: Annotated[
        Int, Field(ge=0, le=1000, examples=[2], json_schema_extra={"x-datahall-stored-default": 1})
    ] = 1
    """Pods that serve; `kubectl scale` sets it. 0 stops serving."""


class Batching(SpecModel):
    """How requests are put together, for throughput, before the model runs."""

    max_batch_size: Annotated[Int, Field(ge=1, le=4096, examples=[32])] = 32
    """Most inputs in one run of the model."""
    max_delay_milliseconds: Annotated[Int, Field(ge=0, le=10_000, examples=[5])] = 5
    """Longest wait for a batch to fill, in milliseconds. 0: never wait."""
    max_queue: Annotated[Int, Field(ge=1, le=1_000_000, examples=[1024])] = 1024
    """Inputs that may wait; further requests are answered 503 with Retry-After."""


class Postprocess(SpecModel):
    """What becomes of the model's scores."""

    top_k: Annotated[Int, Field(ge=1, le=1000, examples=[3])] = 3
    """Classes in an answer, best first."""
    threshold: Annotated[Float, Field(ge=0, le=1, examples=[0.5])] = 0.0
    """Lowest score that an answer names; a fraction of 1."""


class InferenceServiceSpec(SpecModel):
    """What the user wants."""

    queue: Annotated[Name, Field(examples=["team-a"])]
    """The Queue whose quota pays for the replicas."""
    priority: Annotated[Int, Field(ge=-1_000_000, le=1_000_000, examples=[100])] = 0
    """Decides among what waits in the queue: higher starts first; among equals, the older. A replica that serves is
    never ended for another."""
    model: ServedModel
    """Which model to serve."""
    runtime: Annotated[Runtime, Field(examples=["Native"])] = Runtime.NATIVE
    """The program that serves: Native is the packaged PyTorch server."""
    resources: Resources = Resources()
    """What each replica asks for."""
    replicas: Replicas = Field(default=Replicas(), json_schema_extra={"x-datahall-stored-default": {}})
    """How many pods serve."""
    batching: Batching = Batching()
    """How requests are put together."""
    timeout_seconds: Annotated[Int, Field(ge=1, le=3600, examples=[10])] = 10
    """Seconds after which a request is answered 504."""
    postprocess: Postprocess = Postprocess()
    """What becomes of the model's scores."""

    def effective(self) -> dict[str, Any]:
        """The spec as JSON with every default filled in, and null where nothing is set."""
        return self.model_dump(mode="json", by_alias=True)


class PinnedModel(Model):
    """The model that the replicas serve, or roll over to."""

    uri: Annotated[
        str | None, Field(max_length=2048, examples=["pvc://models/digits/versions/0123456789abcdef"])
    ] = None
    """Where it lies."""
    digest: Annotated[Digest | None, Field(examples=["sha256:" + "0123456789abcdef" * 4])] = None
    """Digest of its manifest. Absent: a bare uri, served as it is."""
    from_training_job: Annotated[str | None, Field(max_length=253, examples=["digits"])] = None
    """The TrainingJob that made it, by name."""
    job_uid: Annotated[
        str | None, Field(max_length=64, examples=["6f0c1a1e-8f0e-4a53-9d4e-3b1f6a1c2d3e"])
    ] = None
    """The TrainingJob that made it, by uid: a job of the same name made later is another one."""


class ReplicaFailure(Model):
    """The newest failure of a replica."""

    pod: Annotated[str | None, Field(max_length=253, examples=["digits-7d9c5b6f4-x2x7k"])] = None
    """The pod that failed."""
    cause: Annotated[str | None, Field(max_length=63, examples=["BadInput"])] = None
    """Cause, in one word of the cause catalogue (docs/reference)."""
    message: Annotated[
        str | None, Field(max_length=4096, examples=["model.uri: pvc://models/digits: no manifest.json"])
    ] = None
    """Cause, in a sentence."""
    last_log_lines: Annotated[
        tuple[Annotated[str, Field(max_length=4096)], ...],
        Field(max_length=50, examples=[["no manifest.json"]]),
    ] = ()
    """The last lines that the server wrote."""
    exit_code: Annotated[int | None, Field(ge=-1, le=65535, examples=[65])] = None
    """Exit code of the server (docs/contracts.md)."""


class InferenceServiceStatus(StatusModel):
    """What the operator sees. Conditions are the truth; state sums them up for a table."""

    observed_generation: Annotated[int, Field(ge=0, examples=[1])] = 0
    """The metadata.generation that this status speaks of."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32), Unique("type")] = ()
    """Ready, ModelReady, ReplicasReady, GPUAvailable, and for tools Reconciling and Stalled. While replicas wait for
    their place, the reasons are those of a waiting job."""
    state: Annotated[str | None, Field(max_length=63, examples=["Ready"])] = None
    """One word derived from the conditions, for tables; programs read the conditions."""
    replicas: Annotated[int, Field(ge=0, examples=[2])] = 0
    """Pods that exist."""
    ready_replicas: Annotated[int, Field(ge=0, examples=[2])] = 0
    """Pods that answer requests."""
    updated_replicas: Annotated[int, Field(ge=0, examples=[2])] = 0
    """Pods that serve the pinned model with the present spec."""
    selector: Annotated[
        str | None, Field(max_length=1024, examples=["datahall.dev/inference-service=digits"])
    ] = None
    """Label selector of the pods, for autoscalers."""
    url: Annotated[str | None, Field(max_length=2048, examples=["http://digits.team-a.svc"])] = None
    """Where requests go, inside the cluster."""
    model: PinnedModel | None = None
    """The model that the replicas serve."""
    failure: ReplicaFailure | None = None
    """The newest failure of a replica."""


class InferenceService(Model):
    """A model that answers requests: which model, how many replicas, how requests are batched."""

    api_version: Literal["datahall.dev/v1alpha1"] = API_VERSION
    kind: Literal["InferenceService"] = "InferenceService"
    metadata: ObjectMeta
    spec: InferenceServiceSpec
    """What the user wants."""
    status: InferenceServiceStatus = InferenceServiceStatus()
    """What the operator sees; only the operator writes it."""

    rules = name_rules("InferenceService")

    @classmethod
    def from_json(cls, body: object) -> Self:
        """The object as the API server sends it.

        Raises:
            pydantic.ValidationError: it is not a valid InferenceService.
        """
        return cls.model_validate(body)
