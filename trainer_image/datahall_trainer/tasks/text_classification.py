"""TextClassification: fine-tunes a BERT, whole or only the classifier on top of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from datahall_trainer import uris
from datahall_trainer.config import JobConfig
from datahall_trainer.data.sampler import Indices
from datahall_trainer.data.split import stratified
from datahall_trainer.data.texts import Texts, read_texts
from datahall_trainer.errors import BadInput
from datahall_trainer.models import bert
from datahall_trainer.preprocess import TOKENIZER_FILES, TextPreprocess, Tokenizer
from datahall_trainer.tasks.base import read_files


class TextClassification:
    """All texts are turned into token ids once; a batch is padded to its own longest."""

    def __init__(self, config: JobConfig) -> None:
        """Reads data and base model; the classifier comes from the global random generator.

        Raises:
            BadInput: the data, the base model or the configuration can never work.
        """
        data = config.data
        if data.augment is not None and (data.augment.rotate_degrees or data.augment.translate_pixels):
            raise BadInput("data.augment: rotateDegrees and translatePixels are for images, not for texts")
        self._base = _check_base(config.model.base)
        train = read_texts(data.train, field="data.train")
        self.classes = train.classes
        self.preprocess = TextPreprocess(max_sequence_length=config.training.max_sequence_length)
        try:
            self._tokenizer = Tokenizer(self._base, max_sequence_length=config.training.max_sequence_length)
            model_config = bert.BertConfig(classes=len(self.classes))
            self.model = bert.from_directory(self._base, model_config, pretrained=True)
        except BadInput as error:
            raise BadInput(f"model.base: {config.model.base}: {error}") from error
        positions = self.model.max_positions
        if config.training.max_sequence_length > positions:
            raise BadInput(
                f"training.maxSequenceLength: {config.training.max_sequence_length} is more than the "
                f"{positions} positions of {config.model.base}"
            )
        if config.model.freeze_base:
            self.model.encoder.requires_grad_(False)
        self.hyper_parameters: dict[str, Any] = msgspec.to_builtins(model_config)
        self._split(config, train)

    def _split(self, config: JobConfig, train: Texts) -> None:
        data = config.data
        ids = self._tokenizer.encode(train.texts)
        labels = torch.tensor(train.labels, dtype=torch.int64)
        hasher = hashlib.sha256()
        _update(hasher, train)
        if data.validation is not None:
            held_out = read_texts(data.validation, field="data.validation", classes=train.classes)
            _update(hasher, held_out)
            self._train_ids, self.train_labels = ids, labels
            self._validation_ids = self._tokenizer.encode(held_out.texts)
            self.validation_labels = torch.tensor(held_out.labels, dtype=torch.int64)
        else:
            assert data.validation_fraction is not None
            kept, held = stratified(
                train.labels, fraction=data.validation_fraction, seed=config.training.seed
            )
            self._train_ids, self.train_labels = [ids[i] for i in kept], labels[kept]
            self._validation_ids, self.validation_labels = [ids[i] for i in held], labels[held]
        self.train_lengths = [len(row) for row in self._train_ids]
        self.validation_lengths = [len(row) for row in self._validation_ids]
        self._fingerprint = hasher.hexdigest()

    def train_logits(self, indices: Indices, *, epoch: int, device: torch.device) -> Tensor:  # noqa: ARG002
        """Logits [len(indices), classes] of training samples; every epoch sees the same texts."""
        return self._logits(self._train_ids, indices, device)

    def validation_logits(self, indices: Indices, *, device: torch.device) -> Tensor:
        """Logits [len(indices), classes] of held-out samples."""
        return self._logits(self._validation_ids, indices, device)

    def _logits(self, ids: list[list[int]], indices: Indices, device: torch.device) -> Tensor:
        batch = self._tokenizer.pad([ids[index] for index in np.asarray(indices).tolist()])
        logits: Tensor = self.model(**{name: tensor.to(device) for name, tensor in batch.items()})
        return logits

    def extra_files(self) -> dict[str, bytes]:
        """The encoder's configuration and the tokenizer, byte for byte as they came with the base."""
        return read_files(self._base, ("config.json", *TOKENIZER_FILES))

    def fingerprint(self) -> str:
        """Hash of texts and labels."""
        return self._fingerprint


def _check_base(base: str | None) -> Path:
    if base is None:
        raise BadInput(
            "model.base: architecture bert starts from a model; give a directory in Hugging Face layout"
        )
    directory = uris.resolve(base)
    if not directory.is_dir():
        raise BadInput(f"model.base: {base}: no such directory")
    for alternatives in (("config.json",), ("model.safetensors",), ("tokenizer.json", "vocab.txt")):
        if not any((directory / name).is_file() for name in alternatives):
            raise BadInput(f"model.base: {base}: {' or '.join(alternatives)} is missing")
    return directory


def _update(hasher: Any, texts: Texts) -> None:
    for text, label in zip(texts.texts, texts.labels, strict=True):
        hasher.update(f"{text}\0{label}\n".encode())
