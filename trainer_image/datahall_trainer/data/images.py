"""Labelled image files: one folder per class, or a `labels.csv`; decoded once into memory where they fit."""

from __future__ import annotations

import contextlib
import csv
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from datahall_trainer import uris
from datahall_trainer.data.sampler import Indices
from datahall_trainer.data.split import ordered_classes
from datahall_trainer.errors import BadInput
from datahall_trainer.preprocess import open_image, to_pixels

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
# Headers read to learn the usual size and whether there is colour; spread evenly over the data set.
_PROBES = 200
_LARGEST_SIDE = 224
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The names and labels of a data set, before any image is decoded."""

    directory: Path
    uri: str
    # Relative to the directory.
    files: list[str]
    labels: list[int]
    classes: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What every image is brought to."""

    channels: int
    height: int
    width: int


def list_images(uri: str, *, field: str, classes: Sequence[str] | None = None) -> Listing:
    """Lists the images under a URI with their labels.

    Args:
        uri: a directory with one folder per class, or with `labels.csv` (columns file,label) and, optionally,
            `classes.txt` (one name per line; a label is then a name or a line number from 0).
        field: the configuration's name for this directory, for messages.
        classes: the classes to use, as training found them; None to find them here.

    Raises:
        BadInput: there is no such directory, nothing in it, or a label that is no class.
    """
    directory = uris.resolve(uri)
    where = f"{field}: {uri}"
    if not directory.is_dir():
        raise BadInput(f"{where}: no such directory")
    found = _from_csv if (directory / "labels.csv").exists() else _from_folders
    files, names = found(directory, where)
    if not files:
        raise BadInput(f"{where}: no images (one folder per class, or labels.csv with columns file,label)")
    listed = _read_classes(directory)
    known = list(classes) if classes is not None else listed or ordered_classes(names)
    if len(known) < 2:
        raise BadInput(f"{where}: has only the class {known[0]!r}; at least 2 are needed")
    index = {name: position for position, name in enumerate(known)}
    labels = []
    for file, name in zip(files, names, strict=True):
        if name not in index and listed and name.isdecimal() and int(name) < len(listed):
            name = listed[int(name)]  # noqa: PLW2901 - a line number of classes.txt
        if name not in index:
            raise BadInput(
                f"{where}/{file}: label {name!r} is out of range: the {len(known)} classes are {_short(known)}"
            )
        labels.append(index[name])
    return Listing(directory=directory, uri=uri, files=files, labels=labels, classes=known)


def probe_shape(listing: Listing, *, field: str) -> Shape:
    """The commonest size among some of the images, colour if any has it; sides are cut to 224 pixels."""
    stride = max(1, len(listing.files) // _PROBES)
    sizes: Counter[tuple[int, int]] = Counter()
    colour = False
    for file in listing.files[::stride]:
        with _open(listing, file, field=field) as image:
            sizes[image.size] += 1
            colour = colour or image.mode not in {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"}
    # Ties by size, so that every rank decides alike.
    (width, height), _ = max(sizes.items(), key=lambda item: (item[1], item[0]))
    scale = min(1.0, _LARGEST_SIDE / max(width, height))
    return Shape(
        channels=3 if colour else 1, height=max(1, round(height * scale)), width=max(1, round(width * scale))
    )


class Images:
    """Pixels by index; held in memory if they fit, else decoded at each use."""

    def __init__(self, listing: Listing, shape: Shape, *, field: str, cache_bytes: int) -> None:
        """Decodes everything if it takes at most `cache_bytes`.

        Raises:
            BadInput: an image cannot be read; names the file.
        """
        self._listing = listing
        self._shape = shape
        self._field = field
        size = (len(listing.files), shape.channels, shape.height, shape.width)
        self._cache: Tensor | None = None
        if torch.Size(size).numel() <= cache_bytes:
            cache = torch.empty(size, dtype=torch.uint8)
            for index in range(len(listing.files)):
                cache[index] = self._decode(index)
            self._cache = cache
        else:
            _log.info("%s: %d images do not fit in memory; decoding at each use", listing.uri, size[0])

    def __len__(self) -> int:
        return len(self._listing.files)

    def pixels(self, indices: Indices) -> Tensor:
        """uint8 [len(indices), channels, height, width]."""
        if self._cache is not None:
            return self._cache[torch.from_numpy(indices)]
        return torch.stack([self._decode(int(index)) for index in indices])

    def _decode(self, index: int) -> Tensor:
        with _open(self._listing, self._listing.files[index], field=self._field) as image:
            shape = self._shape
            return to_pixels(image, channels=shape.channels, height=shape.height, width=shape.width)


def cache_budget_bytes(local_world_size: int) -> int:
    """Memory that decoded images may take in this process.

    `DATAHALL_IMAGE_CACHE_BYTES`, or half of the container's memory limit shared by its processes.
    """
    override = os.environ.get("DATAHALL_IMAGE_CACHE_BYTES")
    if override:
        return int(override)
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Without cgroup v2 there is no such file; without a limit it says "max".
    with contextlib.suppress(OSError, ValueError):
        limit = min(limit, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return limit // 2 // local_world_size


def _open(listing: Listing, file: str, *, field: str) -> Image.Image:
    try:
        return open_image(listing.directory / file)
    except BadInput as error:
        raise BadInput(f"{field}: {uris.child(listing.uri, file)}: {error}") from error


def _from_folders(directory: Path, where: str) -> tuple[list[str], list[str]]:
    try:
        folders = sorted(entry for entry in directory.iterdir() if entry.is_dir() and entry.name[0] != ".")
        files = [
            (f"{folder.name}/{file.name}", folder.name)
            for folder in folders
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in _SUFFIXES and file.name[0] != "."
        ]
    except OSError as error:
        raise BadInput(f"{where}: cannot be read: {error.strerror}") from error
    return [file for file, _ in files], [name for _, name in files]


def _from_csv(directory: Path, where: str) -> tuple[list[str], list[str]]:
    files, names = [], []
    try:
        with (directory / "labels.csv").open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                raise BadInput(
                    f"{where}/labels.csv: needs the columns file and label, has {reader.fieldnames}"
                )
            for row in reader:
                file, name = row["file"], row["label"]
                if not file or not name or ".." in Path(file).parts or Path(file).is_absolute():
                    raise BadInput(
                        f"{where}/labels.csv line {reader.line_num}: needs a file below it and a label"
                    )
                files.append(file)
                names.append(name.strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{where}/labels.csv: cannot be read: {error}") from error
    return files, names


def _read_classes(directory: Path) -> list[str] | None:
    path = directory / "classes.txt"
    if not path.exists():
        return None
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _short(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:10])}, ... {names[-1]}"
