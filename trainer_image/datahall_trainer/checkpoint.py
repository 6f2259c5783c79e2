"""Checkpoints: complete or not there, verified before use, fenced against an earlier generation."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
import torch

from datahall_trainer import uris
from datahall_trainer.artifact import FileEntry, file_entry, fsync
from datahall_trainer.errors import BadInput, Fenced

_STATE = "state.pt"
_MANIFEST = "manifest.json"
_FENCE = "FENCE"
_NAME = re.compile(r"step-(\d{8,})")
# What never mends itself however often the job is started again.
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENOENT}
_log = logging.getLogger(__name__)


class CheckpointManifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Written last: a directory without it is no checkpoint."""

    schema: Literal["datahall.dev/checkpoint/v1"] = "datahall.dev/checkpoint/v1"
    step: int
    generation: int
    world_size: int
    files: dict[str, FileEntry]


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """A checkpoint that is on disk."""

    step: int
    uri: str
    bytes: int
    # Seconds since the epoch.
    time: float

    def to_message(self) -> dict[str, Any]:
        """As the contract wants it."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.time))
        return {"step": self.step, "uri": self.uri, "bytes": self.bytes, "time": stamp}


def storage_error(error: OSError, *, field: str, uri: str, doing: str) -> Exception:
    """A full, read-only or forbidden disk as `BadInput` with a sentence; anything else as it came."""
    if error.errno in _HOPELESS:
        return BadInput(f"{field}: {uri}: {(os.strerror(error.errno or 0)).lower()} while {doing}")
    return error


class CheckpointStore:
    """The directory `.checkpoints/UID` of one job. Only rank 0 writes."""

    def __init__(self, output_uri: str, uid: str, *, generation: int, keep: int) -> None:
        """Touches nothing yet."""
        self._output_uri = output_uri
        self._uri = uris.child(output_uri, ".checkpoints", uid)
        self._directory = uris.resolve(self._uri)
        self._generation = generation
        self._keep = keep

    def take_over(self) -> None:
        """Raises the fence to this generation.

        Raises:
            Fenced: a later generation was here.
            BadInput: the place cannot be written.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self.check_fence()
            _write_durably(self._directory / _FENCE, f"{self._generation}\n".encode())
            for leftover in self._directory.glob(".tmp-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError as error:
            raise storage_error(
                error, field="output.uri", uri=self._output_uri, doing="preparing checkpoints"
            ) from error

    def check_fence(self) -> None:
        """Called before every write that others can see.

        Raises:
            Fenced: a later generation has begun.
        """
        try:
            text = (self._directory / _FENCE).read_text().strip()
        except FileNotFoundError:
            return
        newest = int(text) if text.isdecimal() else 0
        if newest > self._generation:
            raise Fenced(
                f"generation {newest} has taken over; generation {self._generation} writes nothing more"
            )

    def save(self, step: int, state: dict[str, Any], *, world_size: int) -> Saved:
        """Writes a checkpoint, then removes those beyond `keep`.

        Raises:
            Fenced: a later generation has begun.
            BadInput: the disk is full or cannot be written.
        """
        self.check_fence()
        name = f"step-{step:08d}"
        temporary = self._directory / f".tmp-{name}-g{self._generation}"
        target = self._directory / name
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            entry = _save_state(temporary / _STATE, state)
            manifest = CheckpointManifest(
                step=step, generation=self._generation, world_size=world_size, files={_STATE: entry}
            )
            raw = msgspec.json.encode(manifest, order="sorted")
            _write_durably(temporary / _MANIFEST, raw)
            self.check_fence()
            shutil.rmtree(
                target, ignore_errors=True
            )  # of this step, but damaged: else it had been resumed from
            temporary.rename(target)
            fsync(self._directory)
            self._prune()
        except OSError as error:
            doing = f"writing the checkpoint of step {step}"
            raise storage_error(error, field="output.uri", uri=self._output_uri, doing=doing) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        uri = uris.child(self._uri, name)
        return Saved(step=step, uri=uri, bytes=entry.bytes + len(raw), time=time.time())

    def newest_valid(self) -> Saved | None:
        """The checkpoint to resume from; damaged ones are passed over, with a sentence in the log."""
        for step, path in self._complete_looking():
            try:
                size = _verify(path)
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                _log.warning("checkpoint %s is damaged and is not used: %s", path.name, error)
                continue
            uri = uris.child(self._uri, path.name)
            return Saved(step=step, uri=uri, bytes=size, time=(path / _MANIFEST).stat().st_mtime)
        return None

    def load(self, saved: Saved) -> dict[str, Any]:
        """The state of a checkpoint, on the CPU."""
        path = self._directory / f"step-{saved.step:08d}" / _STATE
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def _complete_looking(self) -> list[tuple[int, Path]]:
        found = []
        for path in self._directory.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and (path / _MANIFEST).exists():
                found.append((int(match[1]), path))
        return sorted(found, reverse=True)

    def _prune(self) -> None:
        for _, path in self._complete_looking()[self._keep :]:
            # Without its manifest it is no checkpoint, so nobody can meet it half removed.
            (path / _MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


class _HashingWriter:
    """A file that hashes what it is given, and remembers the error that torch would hide in another."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hasher = hashlib.sha256()
        self._size = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            self._stream.write(data)
        except OSError as error:
            self.error = error
            raise
        self._hasher.update(data)
        self._size += len(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()

    def entry(self) -> FileEntry:
        return FileEntry(sha256=self._hasher.hexdigest(), bytes=self._size)


def _save_state(path: Path, state: dict[str, Any]) -> FileEntry:
    with path.open("wb") as stream:
        writer = _HashingWriter(stream)
        try:
            torch.save(state, writer)  # type: ignore[arg-type] # writes only, never seeks
        except RuntimeError:
            if writer.error is not None:
                raise writer.error from None
            raise
        stream.flush()
        os.fsync(stream.fileno())
    return writer.entry()


def _verify(directory: Path) -> int:
    manifest = msgspec.json.decode((directory / _MANIFEST).read_bytes(), type=CheckpointManifest)
    for name, entry in manifest.files.items():
        actual = file_entry(directory / name)
        if actual != entry:
            raise ValueError(
                f"{name} has SHA-256 {actual.sha256} ({actual.bytes} bytes), expected {entry.sha256} ({entry.bytes})"
            )
    return sum(entry.bytes for entry in manifest.files.values())


def _write_durably(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        fsync(temporary)
        temporary.replace(path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
