"""ImageClassification: a CNN from random weights on labelled image files."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from datahall_trainer.config import AugmentConfig, JobConfig
from datahall_trainer.data.images import Images, Listing, cache_budget_bytes, list_images, probe_shape
from datahall_trainer.data.sampler import Indices, uniform
from datahall_trainer.data.split import stratified
from datahall_trainer.errors import BadInput
from datahall_trainer.models.cnn import CNN, CNNConfig
from datahall_trainer.preprocess import ImagePreprocess, normalise

# Images that the mean and the deviation of the pixels are taken from, spread evenly.
_STATISTICS_SAMPLES = 2000


class ImageClassification:
    """Data in memory as bytes; augmentation and normalisation on the device, a batch at a time."""

    train_lengths = None
    validation_lengths = None

    def __init__(self, config: JobConfig, *, local_world_size: int) -> None:
        """Reads the data and builds the model from the global random generator.

        Raises:
            BadInput: the data or the model configuration can never work.
        """
        if config.model.base is not None:
            raise BadInput("model.base: architecture cnn starts from random weights; leave base empty")
        if config.model.freeze_base:
            raise BadInput("model.freezeBase: architecture cnn has no base to freeze")
        budget = cache_budget_bytes(local_world_size)
        data = config.data
        train = list_images(data.train, field="data.train")
        shape = probe_shape(train, field="data.train")
        images = Images(train, shape, field="data.train", cache_bytes=budget)
        self._train_images = self._validation_images = images
        all_labels = torch.tensor(train.labels, dtype=torch.int64)
        hasher = hashlib.sha256()
        _update(hasher, train)
        if data.validation is not None:
            held_out = list_images(data.validation, field="data.validation", classes=train.classes)
            self._validation_images = Images(held_out, shape, field="data.validation", cache_bytes=budget)
            self._train_indices = np.arange(len(train.files))
            self._validation_indices = np.arange(len(held_out.files))
            self.validation_labels = torch.tensor(held_out.labels, dtype=torch.int64)
            _update(hasher, held_out)
        else:
            assert data.validation_fraction is not None
            self._train_indices, self._validation_indices = stratified(
                train.labels, fraction=data.validation_fraction, seed=config.training.seed
            )
            self.validation_labels = all_labels[self._validation_indices]
        self.train_labels = all_labels[self._train_indices]
        self._fingerprint = hasher.hexdigest()
        self.classes = train.classes
        self.preprocess = _statistics(images, self._train_indices)
        self._augment = data.augment or AugmentConfig()
        self._seed = config.training.seed
        model_config = CNNConfig(channels=self.preprocess.channels, classes=len(self.classes))
        self.hyper_parameters: dict[str, Any] = msgspec.to_builtins(model_config)
        self.model = CNN(model_config)

    def train_logits(self, indices: Indices, *, epoch: int, device: torch.device) -> Tensor:
        """Logits [len(indices), classes] of training samples."""
        pixels = self._train_images.pixels(self._train_indices[indices]).to(device)
        pixels = augment(pixels, indices, self._augment, seed=self._seed, epoch=epoch)
        logits: Tensor = self.model(normalise(pixels, self.preprocess))
        return logits

    def validation_logits(self, indices: Indices, *, device: torch.device) -> Tensor:
        """Logits [len(indices), classes] of held-out samples."""
        pixels = self._validation_images.pixels(self._validation_indices[indices]).to(device)
        logits: Tensor = self.model(normalise(pixels, self.preprocess))
        return logits

    def extra_files(self) -> dict[str, bytes]:
        """None: the weights are all."""
        return {}

    def fingerprint(self) -> str:
        """Hash of names and labels."""
        return self._fingerprint


def augment(pixels: Tensor, indices: Indices, config: AugmentConfig, *, seed: int, epoch: int) -> Tensor:
    """Rotates and shifts each image at random, within the configured bounds (bilinear, edges repeated).

    What happens to a sample depends on seed, epoch and its index alone, so neither on the other samples of the
    batch, nor on the rank, nor on whether the run was interrupted.

    Args:
        pixels: uint8 [N, C, H, W].
        indices: of the N samples.
        config: the bounds.
        seed: of the run.
        epoch: from 0.

    Returns:
        float32 [N, C, H, W], still 0 to 255; the input itself if there is nothing to do.
    """
    if config.rotate_degrees == 0 and config.translate_pixels == 0:
        return pixels
    draws = torch.from_numpy(uniform(indices, seed=seed, epoch=epoch, draws=3) * 2 - 1).to(torch.float32)
    height, width = pixels.shape[2:]
    angle = draws[:, 0] * math.radians(config.rotate_degrees)
    cos, sin = angle.cos(), angle.sin()
    # Coordinates run from -1 to 1 over the picture, so turning one that is not square needs its aspect.
    transform = torch.zeros(len(pixels), 2, 3)
    transform[:, 0, 0], transform[:, 0, 1] = cos, -sin * height / width
    transform[:, 1, 0], transform[:, 1, 1] = sin * width / height, cos
    transform[:, 0, 2] = draws[:, 1] * config.translate_pixels * 2 / width
    transform[:, 1, 2] = draws[:, 2] * config.translate_pixels * 2 / height
    grid = functional.affine_grid(transform.to(pixels.device), list(pixels.shape), align_corners=False)
    return functional.grid_sample(
        pixels.to(torch.float32), grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def _statistics(images: Images, indices: Indices) -> ImagePreprocess:
    stride = max(1, len(indices) // _STATISTICS_SAMPLES)
    pixels = images.pixels(indices[::stride])
    channels, height, width = pixels.shape[1:]
    # From whole-number histograms, so that no order of summation can change the result.
    values = np.arange(256)
    mean, std = [], []
    for channel in range(channels):
        counts = torch.bincount(pixels[:, channel].reshape(-1).to(torch.int64), minlength=256).numpy()
        total = int(counts.sum())
        average = int((counts * values).sum()) / total
        variance = int((counts * values**2).sum()) / total - average**2
        mean.append(round(average / 255, 6))
        std.append(max(round(math.sqrt(max(variance, 0.0)) / 255, 6), 1e-3))
    return ImagePreprocess(channels=3 if channels == 3 else 1, height=height, width=width, mean=mean, std=std)


def _update(hasher: Any, listing: Listing) -> None:
    for file, label in zip(listing.files, listing.labels, strict=True):
        hasher.update(f"{file}\0{label}\n".encode())
