"""From what people have (image files, texts) to what a model takes: one path for training and for serving."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from datahall_trainer.errors import BadInput

if TYPE_CHECKING:
    from datahall_trainer.artifact import Manifest

# A file of a few kilobytes can claim billions of pixels; no classifier here wants more than this.
MAX_PIXELS = 50_000_000
# Files that a tokenizer in Hugging Face layout may consist of; the first found of the last two is enough.
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "tokenizer.json", "vocab.txt")


class ImagePreprocess(msgspec.Struct, frozen=True, kw_only=True, tag="image", rename="camel"):
    """Pixels to a normalised tensor: convert, resize (bilinear), scale to 0..1, subtract mean, divide by std."""

    channels: Literal[1, 3]
    height: int
    width: int
    mean: list[float]
    std: list[float]

    def __post_init__(self) -> None:
        """Refuses sizes that no image has."""
        if not (1 <= self.height <= 4096 and 1 <= self.width <= 4096):
            raise ValueError("preprocess: height and width must be 1 to 4096 pixels")
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError("preprocess: mean and std must have one value per channel, std above 0")


class TextPreprocess(msgspec.Struct, frozen=True, kw_only=True, tag="text", rename="camel"):
    """Text to token ids by the tokenizer whose files lie beside the weights; longer texts are cut."""

    max_sequence_length: int

    def __post_init__(self) -> None:
        """Refuses lengths that leave no room for a token between the special ones."""
        if not 3 <= self.max_sequence_length <= 8192:
            raise ValueError("preprocess: maxSequenceLength must be 3 to 8192 tokens")


def open_image(data: bytes | Path) -> Image.Image:
    """Opens and decodes an image.

    Raises:
        BadInput: it is no image, is damaged or cut short, or has more than `MAX_PIXELS` pixels.
    """
    try:
        image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)
        if image.width * image.height > MAX_PIXELS:
            raise BadInput(f"image of {image.width}x{image.height} pixels is over {MAX_PIXELS} pixels")
        image.load()
    except UnidentifiedImageError:
        raise BadInput("cannot identify image file") from None
    except Image.DecompressionBombError as error:
        raise BadInput(str(error)) from None
    # Pillow's decoders raise several types on damaged data; all mean the same here.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadInput(f"damaged image: {error}") from error
    return image


def to_pixels(image: Image.Image, *, channels: int, height: int, width: int) -> Tensor:
    """The image as uint8 of shape [channels, height, width], resized (bilinear) where its size differs."""
    if image.mode in {"I;16", "I;16B", "I;16L", "I"}:
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        wide = np.asarray(image).astype(np.float64)
        image = Image.fromarray((wide / 257.0).clip(0, 255).astype(np.uint8))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(image, dtype=np.uint8)
    array = array[None] if channels == 1 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.array(array, order="C"))  # a copy: Pillow's memory is read-only


def normalise(pixels: Tensor, spec: ImagePreprocess) -> Tensor:
    """uint8 or float 0..255 of shape [..., C, H, W] to float32, zero mean and unit variance per channel."""
    shape = (spec.channels, 1, 1)
    mean = torch.tensor(spec.mean, device=pixels.device).view(shape)
    std = torch.tensor(spec.std, device=pixels.device).view(shape)
    return (pixels.to(torch.float32) / 255.0 - mean) / std


class Tokenizer:
    """A Hugging Face tokenizer read from a directory, never from the network."""

    def __init__(self, directory: Path, *, max_sequence_length: int) -> None:
        """Loads it.

        Raises:
            BadInput: the directory holds no tokenizer that transformers can read.
        """
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise BadInput(f"no readable tokenizer: {error}") from error
        self._max_sequence_length = max_sequence_length

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with the special tokens, each list cut at the greatest sequence length."""
        if not texts:
            return []
        encoded = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=self._max_sequence_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def pad(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 [len(ids), longest], padded on the right."""
        longest = max((len(row) for row in ids), default=0)
        pad_id = self._tokenizer.pad_token_id or 0
        input_ids = torch.full((len(ids), longest), pad_id, dtype=torch.int64)
        mask = torch.zeros((len(ids), longest), dtype=torch.int64)
        for index, row in enumerate(ids):
            input_ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[index, : len(row)] = 1
        return {"input_ids": input_ids, "attention_mask": mask}


class Preprocessor:
    """The input side of a finished model, as its manifest describes it."""

    def __init__(self, spec: ImagePreprocess | TextPreprocess, directory: Path) -> None:
        """Builds it from the spec; a text spec reads the tokenizer in `directory`."""
        self._spec = spec
        self._tokenizer = (
            Tokenizer(directory, max_sequence_length=spec.max_sequence_length)
            if isinstance(spec, TextPreprocess)
            else None
        )

    @classmethod
    def from_manifest(cls, manifest: Manifest, directory: Path) -> Preprocessor:
        """The preprocessor of the model in `directory`."""
        return cls(manifest.preprocess, directory)

    def image(self, data: bytes | Image.Image) -> Tensor:
        """One image as float32 [channels, height, width], ready to be stacked into a batch.

        Raises:
            BadInput: the bytes are no readable image, or this model takes texts.
        """
        if not isinstance(self._spec, ImagePreprocess):
            raise BadInput("this model takes texts, not images")
        picture = open_image(data) if isinstance(data, bytes) else data
        spec = self._spec
        pixels = to_pixels(picture, channels=spec.channels, height=spec.height, width=spec.width)
        return normalise(pixels, spec)

    def texts(self, texts: list[str]) -> dict[str, Tensor]:
        """A padded batch: `input_ids` and `attention_mask`, int64 [len(texts), longest].

        Raises:
            BadInput: this model takes images.
        """
        if self._tokenizer is None:
            raise BadInput("this model takes images, not texts")
        return self._tokenizer.pad(self._tokenizer.encode(texts))
