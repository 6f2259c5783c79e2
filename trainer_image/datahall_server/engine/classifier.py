"""The model in memory: instances in, scores out. One bad instance never spoils its neighbours in the batch."""

import hashlib
import io
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datahall_trainer import artifact, preprocess, uris
from datahall_trainer.errors import BadInput

from .. import logs
from ..config import Limits, ServerConfig
from ..errors import StartError
from ..tasks.classification import Floats, softmax
from .protocol import Instance, ModelInfo, Problem

_log = logging.getLogger(__name__)

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow reads dozens more, some by starting other programs (EPS) and most never fuzzed: not from a stranger."""


class LostDeviceError(Exception):
    """The accelerator is in a state that only a new process leaves."""


class Classifier:
    """A loaded model with its input side.

    Attributes:
        info: What the HTTP process is told.
    """

    def __init__(
        self,
        *,
        manifest: artifact.Manifest,
        module: torch.nn.Module,
        preprocessor: artifact.Preprocessor,
        device: torch.device,
        limits: Limits,
        info: ModelInfo,
    ) -> None:
        self.info = info
        self._spec = manifest.preprocess
        self._module = module
        self._preprocessor = preprocessor
        self._device = device
        self._limits = limits

    @classmethod
    def load(cls, config: ServerConfig, limits: Limits) -> "Classifier":
        """Load the configured model, verified against its digest.

        Raises:
            StartError: It can never be served; the message names the URI, not the mount path.
        """
        started = time.monotonic()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        uri = config.model.uri
        directory = Path()
        try:
            directory = uris.resolve(uri)
            digest = config.model.digest or _digest(directory)
            manifest, module = artifact.load_model(directory, digest, device)
            preprocessor = artifact.Preprocessor.from_manifest(manifest, directory)
        except (BadInput, OSError) as error:
            text = str(error).replace(str(directory), uri.rstrip("/")) if directory.parts else str(error)
            raise StartError(f"model.uri: {text}") from error
        spec = manifest.preprocess
        is_image = isinstance(spec, preprocess.ImagePreprocess)
        if is_image != (manifest.task == "ImageClassification"):
            raise StartError(f"model.uri: {uri}: the manifest's preprocess is not that of {manifest.task}")
        info = ModelInfo(
            task=manifest.task,
            digest=digest,
            labels=manifest.classes,
            input_shape=(spec.channels, spec.height, spec.width)
            if isinstance(spec, preprocess.ImagePreprocess)
            else None,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            load_seconds=time.monotonic() - started,
        )
        return cls(
            manifest=manifest,
            module=module,
            preprocessor=preprocessor,
            device=device,
            limits=limits,
            info=info,
        )

    def warm_up(self, batch_size: int) -> None:
        """Compute a batch of one and a full one, so that no client pays for first-time work.

        Raises:
            StartError: The model cannot compute even these, or does not give one score per class.
        """
        if self.info.input_shape is None:
            instance = Instance("text", b"warm up")
        else:
            size = int(np.prod(self.info.input_shape))
            instance = Instance("tensor", bytes(size), "UINT8", self.info.input_shape)
        for size in sorted({1, batch_size}):
            scores, problems = self.compute([instance] * size)
            if problems[0] is not None:
                raise StartError(f"the model cannot compute a batch of {size}: {problems[0].message}")
            if scores.shape != (size, len(self.info.labels)):
                raise StartError(
                    f"the model gave scores {list(scores.shape)} for {len(self.info.labels)} classes"
                )

    def compute(self, instances: Sequence[Instance]) -> tuple[Floats, list[Problem | None]]:
        """Scores [instances, classes], and per instance None or why its row means nothing.

        Raises:
            LostDeviceError: The accelerator failed for good.
        """
        prepared: list[torch.Tensor | str | Problem] = [self._prepare(instance) for instance in instances]
        sound = [i for i, item in enumerate(prepared) if not isinstance(item, Problem)]
        problems: list[Problem | None] = [item if isinstance(item, Problem) else None for item in prepared]
        scores = np.zeros((len(instances), len(self.info.labels)), dtype=np.float32)
        if sound:
            rows, faults = self._forward([prepared[i] for i in sound])
            for index, fault in zip(sound, faults, strict=True):
                problems[index] = fault
            scores = np.zeros((len(instances), rows.shape[1]), dtype=np.float32)
            scores[sound] = rows
        return scores, problems

    def _forward(self, items: Sequence[object]) -> tuple[Floats, list[Problem | None]]:
        try:
            logits = self._logits(items)
        except Exception as error:
            if self._device.type == "cuda" and not isinstance(error, torch.cuda.OutOfMemoryError):
                raise LostDeviceError(str(error)) from error
            if len(items) == 1:
                logging.getLogger(__name__).exception("the model raised")
                return np.zeros((1, len(self.info.labels)), np.float32), [
                    Problem("model_failed", f"the model failed: {type(error).__name__}")
                ]
            # One input may be to blame, or the batch is too big for the memory: alone, each gets its own verdict.
            logs.event(
                _log, "a batch failed, computing its instances one by one", size=len(items), error=repr(error)
            )
            parts = [self._forward([item]) for item in items]
            return np.concatenate([rows for rows, _ in parts]), [faults[0] for _, faults in parts]
        scores = softmax(logits)
        finite = [bool(np.isfinite(row).all()) for row in scores]
        fault = Problem("model_failed", "the model gave scores that are not finite numbers")
        return scores, [None if sound else fault for sound in finite]

    @torch.inference_mode()
    def _logits(self, items: Sequence[object]) -> Floats:
        if self.info.input_shape is None:
            batch = self._preprocessor.texts([str(item) for item in items])
            output = self._module(**{name: tensor.to(self._device) for name, tensor in batch.items()})
        else:
            stacked = torch.stack([item for item in items if isinstance(item, torch.Tensor)])
            output = self._module(stacked.to(self._device))
        logits: Floats = output.float().cpu().numpy()
        return logits

    def _prepare(self, instance: Instance) -> torch.Tensor | str | Problem:
        """Decode one instance. Tokenizing is left to the batch, which is padded as one."""
        try:
            if instance.kind == "text":
                return bytes(instance.data).decode()
            if instance.kind == "tensor":
                return self._tensor(instance)
            return self._image(bytes(instance.data))
        except Exception as error:  # Pillow's decoders raise whatever they like on damaged data
            return Problem("invalid_input", f"cannot be read: {type(error).__name__}")

    def _tensor(self, instance: Instance) -> torch.Tensor:
        assert isinstance(self._spec, preprocess.ImagePreprocess)
        dtype = torch.uint8 if instance.datatype == "UINT8" else torch.float32
        tensor = torch.frombuffer(bytearray(instance.data), dtype=dtype).reshape(instance.shape)
        return preprocess.normalise(tensor, self._spec) if dtype == torch.uint8 else tensor

    def _image(self, data: bytes) -> torch.Tensor | Problem:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning, and remarks about odd metadata
            try:
                with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as picture:
                    width, height = picture.size
            except Image.DecompressionBombError:
                return Problem("too_large", f"the image has over {self._limits.max_image_pixels} pixels")
            except Exception:
                return Problem(
                    "invalid_input", f"is not an image in one of the formats {', '.join(IMAGE_FORMATS)}"
                )
            if width * height > self._limits.max_image_pixels:
                return Problem(
                    "too_large",
                    f"the image has {width} x {height} pixels, at most {self._limits.max_image_pixels} are decoded",
                )
            try:
                return self._preprocessor.image(data)
            except BadInput as error:
                return Problem("invalid_input", str(error))


def _digest(directory: Path) -> str:
    """The digest of what is there, for a bare URI; `load_model` then holds every file to it."""
    return "sha256:" + hashlib.sha256((directory / artifact.MANIFEST).read_bytes()).hexdigest()
