"""TrainingJob: what to train, on what data, with how many workers, under which queue."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from . import API_VERSION
from .common import (
    URI,
    Bool,
    Decimal,
    Float,
    Frozen,
    Int,
    Model,
    Name,
    ObjectMeta,
    PositiveDecimal,
    Resources,
    Rule,
    SpecModel,
    Unique,
    name_rules,
    neither_come_nor_go,
)
from .gang import Topology, TopologyLevel, TopologyMode, Workers
from .trainingjob_status import (
    Blocker,
    Failure,
    LastCheckpoint,
    Placement,
    PreemptedBy,
    Progress,
    Restarts,
    TrainedModel,
    TrainingJobStatus,
    Waiting,
)

__all__ = [
    "DEFAULT_ARCHITECTURES",
    "Augment",
    "Blocker",
    "Checkpoint",
    "Container",
    "Data",
    "EnvironmentVariable",
    "Failure",
    "FailurePolicy",
    "LastCheckpoint",
    "ModelSource",
    "Output",
    "Placement",
    "Precision",
    "PreemptedBy",
    "Progress",
    "Restarts",
    "Strategy",
    "Task",
    "Topology",
    "TopologyLevel",
    "TopologyMode",
    "TrainedModel",
    "Training",
    "TrainingJob",
    "TrainingJobSpec",
    "TrainingJobStatus",
    "Waiting",
    "Workers",
]


class Task(StrEnum):
    """What kind of training."""

    IMAGE_CLASSIFICATION = "ImageClassification"
    TEXT_CLASSIFICATION = "TextClassification"
    CUSTOM = "Custom"


class Precision(StrEnum):
    """The number format that the forward and backward pass compute in."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Strategy(StrEnum):
    """How the workers share the work."""

    ALL_REDUCE = "AllReduce"


DEFAULT_ARCHITECTURES = {Task.IMAGE_CLASSIFICATION: "cnn", Task.TEXT_CLASSIFICATION: "bert"}
"""The architecture of a packaged task where the spec names none."""


class ModelSource(SpecModel):
    """What is trained."""

    base: Annotated[URI | None, Field(examples=["pvc://models/minilm"])] = None
    """A directory in Hugging Face layout to start from. Absent: start from random weights."""
    architecture: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] | None,
        Field(
            examples=["cnn"],
            json_schema_extra={
                "x-datahall-default": "cnn for ImageClassification, bert for TextClassification"
            },
        ),
    ] = None
    """The network's family, by the trainer's name for it."""
    freeze_base: Annotated[Bool, Field(examples=[True])] = False
    """Whether to train only the new head and keep the base as it is."""

    rules = (
        Rule(
            "!has(self.freezeBase) || !self.freezeBase || has(self.base)",
            "freezeBase needs base: there is nothing to freeze",
            lambda self: not self.freeze_base or self.base is not None,
            field=".freezeBase",
        ),
    )


class Augment(SpecModel):
    """Random changes to each training image, anew in each epoch; validation images stay as they are."""

    rotate_degrees: Annotated[Float, Field(ge=0, le=180, examples=[10])] = 0.0
    """Largest rotation either way, in degrees."""
    translate_pixels: Annotated[Int, Field(ge=0, le=1024, examples=[2])] = 0
    """Largest shift along each axis, in pixels."""


class Data(SpecModel):
    """What the model learns from and is measured on."""

    train: Annotated[URI, Field(examples=["pvc://data/digits/train"])]
    """The training data, in the layout that the task reads."""
    validation: Annotated[URI | None, Field(examples=["pvc://data/digits/validation"])] = None
    """Held-out data, in the same layout. Absent: validationFraction says what to hold out."""
    validation_fraction: Annotated[Annotated[Float, Field(ge=0.01, le=0.9)] | None, Field(examples=[0.2])] = (
        None
    )
    """Share of the training data to hold out, by the seed; a fraction of 1. Absent: validation says where it is."""
    augment: Augment = Augment()
    """Random changes to the training images."""

    rules = (
        Rule(
            "has(self.validation) != has(self.validationFraction)",
            "exactly one of validation and validationFraction must be set",
            lambda self: (self.validation is None) != (self.validation_fraction is None),
        ),
    )


class Training(SpecModel):
    """How the model learns."""

    epochs: Annotated[Int, Field(ge=1, le=100_000, examples=[5])] = 1
    """Passes over the training data."""
    max_steps: Annotated[Annotated[Int, Field(ge=1, le=1_000_000_000)] | None, Field(examples=[1000])] = None
    """Optimizer steps after which training ends, if the epochs have not ended before. Absent: no such end."""
    batch_size: Annotated[Int, Field(ge=1, le=1_048_576, examples=[64])] = 32
    """Samples per optimizer step, over all workers together."""
    learning_rate: Annotated[PositiveDecimal, Field(examples=["1e-3"])] = "1e-3"
    """Peak learning rate, a decimal above 0 as a string."""
    weight_decay: Annotated[Decimal, Field(examples=["0.01"])] = "0.01"
    """Decoupled weight decay (AdamW), a decimal as a string."""
    warmup_fraction: Annotated[Float, Field(ge=0, le=0.9, examples=[0.1])] = 0.1
    """Share of the steps over which the learning rate rises to its peak; a fraction of 1."""
    max_sequence_length: Annotated[Int, Field(ge=3, le=8192, examples=[256])] = 128
    """Longest input of a text task, in tokens; longer texts are cut."""
    precision: Annotated[Precision, Field(examples=["bf16"])] = Precision.FP32
    """Number format of the forward and backward pass; weights and optimizer stay in fp32."""
    seed: Annotated[Int, Field(ge=0, le=4_294_967_295, examples=[7])] = 0
    """Seed of weights, shuffling, augmentation and the held-out split."""


class Checkpoint(SpecModel):
    """When the trainer saves what it needs to go on after an interruption."""

    every_steps: Annotated[Int, Field(ge=1, le=1_000_000_000, examples=[100])] = 100
    """Optimizer steps between two checkpoints."""
    keep: Annotated[Int, Field(ge=1, le=100, examples=[3])] = 3
    """Newest checkpoints to keep."""


class Output(SpecModel):
    """Where the trained model goes."""

    uri: Annotated[URI, Field(examples=["pvc://models/digits"])]
    """A directory to write to: finished models under versions/, checkpoints under .checkpoints/."""
    formats: Annotated[
        tuple[Literal["safetensors"], ...],
        Field(min_length=1, max_length=1, examples=[["safetensors"]]),
        Unique(),
    ] = ("safetensors",)
    """File formats of the weights."""


class EnvironmentVariable(SpecModel):
    """One environment variable of the container."""

    name: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128),
        Field(examples=["LOG_LEVEL"]),
    ]
    """Its name. DATAHALL_ and PET_ names are the operator's."""
    value: Annotated[str, Field(max_length=4096, examples=["debug"])] = ""
    """Its value, as it stands. Not for secrets: whoever reads the TrainingJob reads it."""

    rules = (
        Rule(
            "!self.name.startsWith('DATAHALL_') && !self.name.startsWith('PET_')",
            "names that start with DATAHALL_ or PET_ are set by the operator",
            lambda self: not self.name.startswith(("DATAHALL_", "PET_")),
            field=".name",
        ),
    )


class Container(SpecModel):
    """The program of a Custom task, run once in each worker."""

    image: Annotated[str, Field(min_length=1, max_length=512, examples=["team-a/trainer:1.4"])]
    """The container image."""
    command: Annotated[
        tuple[Annotated[str, Field(max_length=4096)], ...],
        Field(max_length=64, examples=[["torchrun", "train.py"]]),
    ] = ()
    """The program and its first arguments. Empty: what the image says."""
    args: Annotated[
        tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=64, examples=[["--epochs", "5"]])
    ] = ()
    """Further arguments. Empty: what the image says."""
    env: Annotated[
        tuple[EnvironmentVariable, ...],
        Field(max_length=64, examples=[[{"name": "LOG_LEVEL", "value": "debug"}]]),
        Unique("name"),
    ] = ()
    """Environment variables, next to those that the operator sets (docs/contracts.md)."""


class FailurePolicy(SpecModel):
    """What to do when a worker fails."""

    max_restarts: Annotated[Int, Field(ge=0, le=100, examples=[3])] = 3
    """Restarts of the gang for failures of its own. Evictions, preemptions and lost nodes do not count."""


_FROZEN = Frozen("TrainingJob")


class TrainingJobSpec(SpecModel):
    """What the user wants. Only suspend, priority, failurePolicy and the two time limits can change later."""

    queue: Annotated[Name, Field(examples=["team-a"]), _FROZEN]
    """The Queue whose quota pays for this job."""
    priority: Annotated[Int, Field(ge=-1_000_000, le=1_000_000, examples=[100])] = 0
    """Higher starts first within the queue; among equals, the older. Running jobs of lower priority may be ended to
    make room: they save first, and wait again."""
    workers: Annotated[Workers, _FROZEN] = Workers()
    """The gang of worker pods."""
    resources: Annotated[Resources, _FROZEN] = Resources()
    """What each worker asks for."""
    topology: Annotated[Topology | None, _FROZEN] = None
    """How near each other the workers run, by the nodes' labels datahall.dev/rack and datahall.dev/block. Absent:
    anywhere."""
    task: Annotated[Task, Field(examples=["ImageClassification"]), _FROZEN]
    """What kind of training: a packaged task, or Custom for an image of your own."""
    model: Annotated[ModelSource | None, _FROZEN] = None
    """What is trained. Required unless the task is Custom."""
    data: Annotated[Data | None, _FROZEN] = None
    """What the model learns from. Required unless the task is Custom."""
    training: Annotated[Training | None, _FROZEN] = None
    """How the model learns. Required unless the task is Custom."""
    strategy: Annotated[Strategy, Field(examples=["AllReduce"]), _FROZEN] = Strategy.ALL_REDUCE
    """How the workers share the work: AllReduce averages gradients after each step."""
    checkpoint: Annotated[Checkpoint, _FROZEN] = Checkpoint()
    """When the trainer saves its state."""
    output: Annotated[Output | None, _FROZEN] = None
    """Where the trained model goes. Required unless the task is Custom."""
    container: Annotated[Container | None, _FROZEN] = None
    """The program of a Custom task; no other task has one."""
    failure_policy: FailurePolicy = FailurePolicy()
    """What to do when a worker fails."""
    active_deadline_seconds: Annotated[
        Annotated[Int, Field(ge=1, le=31_536_000)] | None, Field(examples=[3600])
    ] = None
    """Seconds from the first start after which the job fails, restarts included. Absent: no limit."""
    ttl_seconds_after_finished: Annotated[
        Annotated[Int, Field(ge=0, le=31_536_000)] | None, Field(examples=[86400])
    ] = None
    """Seconds after the end at which the TrainingJob is deleted; its output stays. Absent: never."""
    suspend: Annotated[Bool, Field(examples=[True])] = False
    """True stops the workers (they save first) and frees their GPUs; false goes on from the last checkpoint."""

    rules = (
        *(
            Rule(
                f"self.task == 'Custom' || has(self.{field})",
                f"{field} is required unless task is Custom",
                lambda self, field=field: self.task is Task.CUSTOM or getattr(self, field) is not None,  # type: ignore[misc]
            )
            for field in ("model", "data", "training", "output")
        ),
        Rule(
            "(self.task == 'Custom') == has(self.container)",
            "container is required for task Custom and must be absent for every other task",
            lambda self: (self.task is Task.CUSTOM) == (self.container is not None),
        ),
        Rule(
            "self.task != 'TextClassification' || !has(self.model) || has(self.model.base)",
            "TextClassification needs model.base: it fine-tunes a pre-trained model",
            lambda self: (
                self.task is not Task.TEXT_CLASSIFICATION or self.model is None or self.model.base is not None
            ),
        ),
        Rule(
            "self.task != 'TextClassification' || !has(self.data) || !has(self.data.augment) || ("
            "(!has(self.data.augment.rotateDegrees) || self.data.augment.rotateDegrees == 0.0) && "
            "(!has(self.data.augment.translatePixels) || self.data.augment.translatePixels == 0))",
            "data.augment changes images: TextClassification has none",
            lambda self: (
                self.task is not Task.TEXT_CLASSIFICATION
                or self.data is None
                or self.data.augment == Augment()
            ),
        ),
        Rule(
            "!has(self.training) || (has(self.training.batchSize) ? self.training.batchSize : 32)"
            " >= (has(self.workers) && has(self.workers.count) ? self.workers.count : 1)"
            " * (has(self.resources) && has(self.resources.gpus) && self.resources.gpus > 1 ? self.resources.gpus : 1)",
            "training.batchSize must be at least workers.count x max(1, resources.gpus): each process needs a sample",
            lambda self: self.training is None or self.training.batch_size >= self.world_size,
        ),
        neither_come_nor_go(
            "TrainingJob",
            "workers",
            "resources",
            "topology",
            "model",
            "data",
            "training",
            "strategy",
            "checkpoint",
            "output",
            "container",
        ),
    )

    @property
    def world_size(self) -> int:
        """Processes of the whole gang at full size: one per GPU, one per worker without GPUs."""
        return self.workers.count * max(1, self.resources.gpus)

    def effective(self) -> dict[str, Any]:
        """The spec as JSON with every default filled in, and null where nothing is set.

        `status.effective` is this without the nulls, which the API server would drop.
        """
        filled = self.model_dump(mode="json", by_alias=True)
        filled["workers"]["min"] = self.workers.fewest
        if self.model is not None and self.model.architecture is None:
            filled["model"]["architecture"] = DEFAULT_ARCHITECTURES.get(self.task)
        return filled


class TrainingJob(Model):
    """A training run: what to train, on what data, with how many workers, under which queue."""

    api_version: Literal["datahall.dev/v1alpha1"] = API_VERSION
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: ObjectMeta
    spec: TrainingJobSpec
    """What the user wants."""
    status: TrainingJobStatus = TrainingJobStatus()
    """What the operator sees; only the operator writes it."""

    rules = name_rules("TrainingJob")

    @classmethod
    def from_json(cls, body: object) -> Self:
        """The object as the API server sends it.

        Raises:
            pydantic.ValidationError: it is not a valid TrainingJob.
        """
        return cls.model_validate(body)
