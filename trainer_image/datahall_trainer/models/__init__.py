"""The architectures, by the names that specs and manifests use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from datahall_trainer.errors import BadInput
from datahall_trainer.models import bert, cnn

# Which architectures each task knows; the first is what an absent `model.architecture` means.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "ImageClassification": ("cnn",),
    "TextClassification": ("bert",),
}


def build(architecture: str, hyper_parameters: dict[str, Any], directory: Path) -> nn.Module:
    """The empty model that a manifest describes, for its weights to be loaded into.

    Args:
        architecture: a value of `ARCHITECTURES`.
        hyper_parameters: the manifest's `model`.
        directory: where the manifest lies; architectures with files of their own read them there.

    Raises:
        BadInput: the architecture is unknown or the hyper-parameters do not fit it.
    """
    try:
        if architecture == "cnn":
            return cnn.CNN(msgspec.convert(hyper_parameters, cnn.CNNConfig))
        if architecture == "bert":
            config = msgspec.convert(hyper_parameters, bert.BertConfig)
            return bert.from_directory(directory, config, pretrained=False)
    except msgspec.ValidationError as error:
        raise BadInput(f"model: {error}") from error
    known = ", ".join(name for names in ARCHITECTURES.values() for name in names)
    raise BadInput(f"architecture {architecture!r} is unknown; known are {known}")
