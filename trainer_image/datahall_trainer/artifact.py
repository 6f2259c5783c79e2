"""A finished model on disk: its manifest, its digest, writing it atomically and loading it verified.

The digest of a model is `sha256:` + SHA-256 of the bytes of `manifest.json`, which holds SHA-256 and size of
every other file. It holds neither time, host nor job name, so equal weights have an equal digest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from datahall_trainer import models
from datahall_trainer.errors import ArtifactError, BadInput
from datahall_trainer.preprocess import ImagePreprocess, Preprocessor, TextPreprocess

__all__ = [
    "ArtifactError", "FileEntry", "Manifest", "Preprocessor", "load_manifest", "load_model", "verify",
    "write_artifact",
]  # fmt: skip

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
_CHUNK_BYTES = 1 << 20


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a file must be."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything that is needed to use the model beside it."""

    schema: Literal["datahall.dev/model/v1"] = "datahall.dev/model/v1"
    task: Literal["ImageClassification", "TextClassification"]
    architecture: str
    # Names by class index: logits[:, i] is the score of classes[i].
    classes: list[str]
    preprocess: ImagePreprocess | TextPreprocess
    # Hyper-parameters of the architecture, for `models.build`.
    model: dict[str, Any]
    dtype: Literal["float32"] = "float32"
    # Of the held-out data, fractions of 1 except the loss; empty if there was none.
    metrics: dict[str, float]
    files: dict[str, FileEntry]

    def __post_init__(self) -> None:
        """Refuses names that would leave the directory, and models with nothing to tell apart."""
        for name in self.files:
            if Path(name).name != name or name in {"", ".", "..", MANIFEST}:
                raise ValueError(f"files: {name!r} is not a plain file name")
        if WEIGHTS not in self.files:
            raise ValueError(f"files: {WEIGHTS} is missing")
        if len(self.classes) < 2:
            raise ValueError("classes: at least 2 are needed")


def load_manifest(directory: Path) -> Manifest:
    """Reads `manifest.json`, without looking at the files it lists.

    Raises:
        ArtifactError: it is absent or says something that no trainer wrote.
    """
    return _decode(_read_manifest(directory), directory)


def verify(directory: Path, digest: str | None) -> str:
    """Checks that the model in `directory` is whole and, if `digest` is given, the one that was asked for.

    Returns:
        Its digest, `sha256:HEX`.

    Raises:
        ArtifactError: names the file, and what its digest should be and is.
    """
    raw = _read_manifest(directory)
    found = "sha256:" + hashlib.sha256(raw).hexdigest()
    if digest is not None and digest != found:
        raise ArtifactError(f"{directory / MANIFEST}: digest is {found}, expected {digest}")
    for name, entry in _decode(raw, directory).files.items():
        path = directory / name
        try:
            actual = file_entry(path)
        except OSError as error:
            raise ArtifactError(f"{path}: {error.strerror}, expected sha256:{entry.sha256}") from error
        if actual != entry:
            raise ArtifactError(
                f"{path}: digest is sha256:{actual.sha256} ({actual.bytes} bytes), "
                f"expected sha256:{entry.sha256} ({entry.bytes} bytes)"
            )
    return found


def load_model(directory: Path, digest: str | None, device: torch.device | str) -> tuple[Manifest, nn.Module]:
    """Verifies and loads a model for inference.

    Image models take float32 [N, C, H, W] as their one argument, text models the dictionary of
    `Preprocessor.texts` as keyword arguments; both give logits [N, classes].

    Args:
        directory: where `manifest.json` lies.
        digest: what it must be, or None to take what is there.
        device: where the weights go.

    Returns:
        The manifest and the model in eval mode, its parameters frozen.

    Raises:
        ArtifactError: it is damaged, is another model, or does not fit its own description.
    """
    verify(directory, digest)
    manifest = load_manifest(directory)
    try:
        model = models.build(manifest.architecture, manifest.model, directory)
        model.load_state_dict(load_file(directory / WEIGHTS), strict=True)
    except (BadInput, RuntimeError, SafetensorError, OSError) as error:
        raise ArtifactError(f"{directory}: {error}") from error
    return manifest, model.to(device).eval().requires_grad_(False)


def write_artifact(
    parent: Path,
    *,
    manifest: Callable[[dict[str, FileEntry]], Manifest],
    weights: Mapping[str, Tensor],
    extra_files: Mapping[str, bytes],
    before_publish: Callable[[], None] = lambda: None,
) -> tuple[Path, str]:
    """Writes a model as `parent/HEX/`, complete or not at all.

    It is made under a temporary name and renamed, so that nobody ever sees half of it. If a model of the same
    digest is there already and whole, that one stays.

    Args:
        parent: the `versions` directory, made if absent.
        manifest: builds the manifest from the entries of the files.
        weights: tensors by name; stored as contiguous copies on the CPU.
        extra_files: further files (tokenizer, encoder configuration) by plain name.
        before_publish: called right before the rename; what it raises leaves nothing behind.

    Returns:
        The directory, named by the first 16 hex digits, and the digest.

    Raises:
        OSError: the file system refused, for instance because it is full.
    """
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=parent))
    try:
        temporary.chmod(0o755)  # mkdtemp's 0700 would keep out a server that runs as another user
        # Serialised in memory and written by Python: safetensors' own writer hides the errno of a full disk.
        raw_weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
        (temporary / WEIGHTS).write_bytes(raw_weights)
        for name, content in extra_files.items():
            (temporary / name).write_bytes(content)
        names = sorted([WEIGHTS, *extra_files])
        built = manifest({name: file_entry(temporary / name) for name in names})
        raw = msgspec.json.format(msgspec.json.encode(built, order="sorted"), indent=1) + b"\n"
        (temporary / MANIFEST).write_bytes(raw)
        for name in [*names, MANIFEST]:
            (temporary / name).chmod(0o644)
            fsync(temporary / name)
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        target = parent / digest.removeprefix("sha256:")[:16]
        before_publish()
        if target.exists():
            try:
                verify(target, digest)
                return target, digest
            except ArtifactError:
                shutil.rmtree(target)  # damaged: the one just made takes its place
        temporary.rename(target)
        fsync(parent)
        return target, digest
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_entry(path: Path) -> FileEntry:
    """SHA-256 and size of a file, read in pieces."""
    hasher = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            hasher.update(chunk)
            size += len(chunk)
    return FileEntry(sha256=hasher.hexdigest(), bytes=size)


def fsync(path: Path) -> None:
    """Makes a file's content, or a directory's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_manifest(directory: Path) -> bytes:
    try:
        return (directory / MANIFEST).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{directory / MANIFEST}: {error.strerror}") from error


def _decode(raw: bytes, directory: Path) -> Manifest:
    try:
        return msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{directory / MANIFEST}: {error}") from error
