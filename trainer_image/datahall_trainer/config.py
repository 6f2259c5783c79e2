"""The run as one typed value, read from `DATAHALL_JOB_CONFIG`; a bad value is refused with the rule it breaks."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from datahall_trainer.errors import BadInput
from datahall_trainer.models import ARCHITECTURES


class _Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Keyword-only, immutable, camelCase in JSON; a misspelt field is an error and not a silent default."""


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise ValueError(rule)


def _decimal(text: str, rule: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(rule) from None
    _require(math.isfinite(value), rule)
    return value


class JobIdentity(_Config, frozen=True, kw_only=True):
    """Whose run this is."""

    name: str
    namespace: str
    uid: str

    def __post_init__(self) -> None:
        """The uid names a directory."""
        _require(bool(self.uid) and "/" not in self.uid and self.uid not in {".", ".."}, "uid must be a name")


class ModelConfig(_Config, frozen=True, kw_only=True):
    """What to train."""

    # URI of a directory in Hugging Face layout to start from, or None to start from random weights.
    base: str | None = None
    # A value of `models.ARCHITECTURES`; None is the task's own.
    architecture: str | None = None
    # Train only the classifier on top of the base.
    freeze_base: bool = False


class AugmentConfig(_Config, frozen=True, kw_only=True):
    """Random changes of training images, drawn anew for each sample in each epoch."""

    rotate_degrees: float = 0.0
    translate_pixels: int = 0

    def __post_init__(self) -> None:
        """Bounds."""
        _require(0 <= self.rotate_degrees <= 180, "rotateDegrees must be 0 to 180")
        _require(0 <= self.translate_pixels <= 1024, "translatePixels must be 0 to 1024")


class DataConfig(_Config, frozen=True, kw_only=True):
    """What to train on, and what to hold out."""

    train: str
    validation: str | None = None
    validation_fraction: float | None = None
    augment: AugmentConfig | None = None

    def __post_init__(self) -> None:
        """One source of held-out data."""
        _require(
            (self.validation is None) != (self.validation_fraction is None),
            "exactly one of validation and validationFraction must be set",
        )
        if self.validation_fraction is not None:
            _require(0 < self.validation_fraction < 1, "validationFraction must lie between 0 and 1")


class TrainingConfig(_Config, frozen=True, kw_only=True):
    """How to train."""

    epochs: int
    max_steps: int | None = None
    # Samples per optimizer step over all ranks together.
    batch_size: int
    learning_rate: str
    weight_decay: str = "0.01"
    # Part of all steps over which the learning rate climbs from 0; afterwards it falls to 0 as a cosine.
    warmup_fraction: float = 0.1
    # Tokens, special ones included; longer texts are cut.
    max_sequence_length: int = 128
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Bounds."""
        _require(self.epochs >= 1, "epochs must be at least 1")
        _require(self.max_steps is None or self.max_steps >= 1, "maxSteps must be at least 1")
        _require(self.batch_size >= 1, "batchSize must be at least 1")
        _require(self.learning_rate_value > 0, "learningRate must be above 0")
        _require(self.weight_decay_value >= 0, "weightDecay must not be negative")
        _require(0 <= self.warmup_fraction <= 1, "warmupFraction must be 0 to 1")
        _require(3 <= self.max_sequence_length <= 8192, "maxSequenceLength must be 3 to 8192 tokens")
        _require(0 <= self.seed < 2**63, "seed must be 0 to 2^63 - 1")

    @property
    def learning_rate_value(self) -> float:
        """The greatest learning rate, reached at the end of the warm-up."""
        return _decimal(self.learning_rate, "learningRate must be a decimal number such as '1e-3'")

    @property
    def weight_decay_value(self) -> float:
        """AdamW's decoupled weight decay, on matrices and kernels only."""
        return _decimal(self.weight_decay, "weightDecay must be a decimal number such as '0.01'")


class CheckpointConfig(_Config, frozen=True, kw_only=True):
    """When to save, and how many to keep."""

    every_steps: int
    keep: int = 3

    def __post_init__(self) -> None:
        """Bounds."""
        _require(self.every_steps >= 1, "everySteps must be at least 1")
        _require(self.keep >= 1, "keep must be at least 1")


class OutputConfig(_Config, frozen=True, kw_only=True):
    """Where checkpoints and the finished model go."""

    uri: str
    formats: list[Literal["safetensors"]]


class JobConfig(_Config, frozen=True, kw_only=True):
    """A whole run."""

    job: JobIdentity
    task: Literal["ImageClassification", "TextClassification"]
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig
    strategy: Literal["AllReduce"] = "AllReduce"
    checkpoint: CheckpointConfig
    output: OutputConfig

    @property
    def architecture(self) -> str:
        """The architecture's name, the task's own where none is given."""
        return self.model.architecture or ARCHITECTURES[self.task][0]


def parse(text: str | None) -> JobConfig:
    """Reads a run from JSON.

    Raises:
        BadInput: it is absent, no JSON, or breaks a rule; the sentence has the field's path and the rule.
    """
    if not text:
        raise BadInput("DATAHALL_JOB_CONFIG is not set")
    try:
        config = msgspec.json.decode(text, type=JobConfig)
    except msgspec.ValidationError as error:
        rule, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`")
        raise BadInput(f"configuration: {field}: {rule}" if field else f"configuration: {rule}") from error
    except msgspec.DecodeError as error:
        raise BadInput(f"configuration: DATAHALL_JOB_CONFIG is not valid JSON: {error}") from error
    known = ARCHITECTURES[config.task]
    if config.architecture not in known:
        raise BadInput(
            f"model.architecture: {config.architecture!r} is unknown for {config.task}; known: {', '.join(known)}"
        )
    return config
