"""A small convolutional classifier for pictures of any size."""

from __future__ import annotations

from typing import Literal

import msgspec
from torch import Tensor, nn


class CNNConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The shape of a `CNN`."""

    channels: Literal[1, 3]
    classes: int
    widths: tuple[int, ...] = (16, 32, 64)

    def __post_init__(self) -> None:
        """Refuses shapes that cannot be built."""
        if self.classes < 2:
            raise ValueError("classes must be at least 2")
        if not self.widths or any(width < 8 or width % 8 for width in self.widths):
            raise ValueError("widths must be multiples of 8 and at least one")


def _convolution(inputs: int, outputs: int, *, pool: bool) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        # Pooling right after the convolution: normalising a quarter of the values costs a quarter.
        *([nn.MaxPool2d(2, ceil_mode=True)] if pool else []),
        # GroupNorm, not BatchNorm: it keeps no running statistics, so a result depends neither on how the
        # batch is cut over ranks nor on anything that a checkpoint of the weights would miss.
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    ]


class CNN(nn.Module):
    """Stages of two 3x3 convolutions, the first with 2x2 pooling; global average; one linear layer.

    The global average makes the number of weights independent of the picture's size.
    """

    def __init__(self, config: CNNConfig) -> None:
        """Builds it with PyTorch's default initialisation, from the global random generator."""
        super().__init__()
        stages: list[nn.Module] = []
        inputs: int = config.channels
        for width in config.widths:
            stages.append(
                nn.Sequential(
                    *_convolution(inputs, width, pool=True), *_convolution(width, width, pool=False)
                )
            )
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float [N, channels, H, W] to logits [N, classes]."""
        features: Tensor = self.stages(images)
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits
