"""What a task is to the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from datahall_trainer.data.sampler import Indices
from datahall_trainer.preprocess import ImagePreprocess, TextPreprocess


class Task(Protocol):
    """A model with its data. Everything here is the same on every rank."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    @property
    def classes(self) -> list[str]:
        """Names by class index."""

    @property
    def preprocess(self) -> ImagePreprocess | TextPreprocess:
        """How inputs become tensors."""

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """What `models.build` needs to make the model again."""

    @property
    def train_labels(self) -> Tensor:
        """Class index of each sample to train on, int64 [N]."""

    @property
    def validation_labels(self) -> Tensor:
        """Class index of each held-out sample, int64 [N]."""

    @property
    def train_lengths(self) -> Sequence[int] | None:
        """Tokens of each sample, or None where all are of one size."""

    @property
    def validation_lengths(self) -> Sequence[int] | None:
        """As `train_lengths`, of the held-out samples."""

    def train_logits(self, indices: Indices, *, epoch: int, device: torch.device) -> Tensor:
        """Logits [len(indices), classes] of training samples, augmented as the epoch wants it."""

    def validation_logits(self, indices: Indices, *, device: torch.device) -> Tensor:
        """Logits [len(indices), classes] of held-out samples."""

    def extra_files(self) -> dict[str, bytes]:
        """Files that the finished model needs besides its weights."""

    def fingerprint(self) -> str:
        """Hash of the data's names and labels: ranks that differ in it do not see the same data."""


def read_files(directory: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The content of those of the named files that exist."""
    return {name: (directory / name).read_bytes() for name in names if (directory / name).exists()}
