"""Labelled texts: CSV or JSON Lines with the columns text and label."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datahall_trainer import uris
from datahall_trainer.data.split import ordered_classes
from datahall_trainer.errors import BadInput

_SUFFIXES = {".csv", ".jsonl"}
# csv's own limit of 128 kB per field is less than a long document.
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """A data set of texts, in the order of the files' names and lines."""

    texts: list[str]
    labels: list[int]
    classes: list[str]


def read_texts(uri: str, *, field: str, classes: Sequence[str] | None = None) -> Texts:
    """Reads the texts under a URI with their labels.

    Args:
        uri: a `.csv` or `.jsonl` file, or a directory of such.
        field: the configuration's name for it, for messages.
        classes: the classes to use, as training found them; None to find them here.

    Raises:
        BadInput: there is nothing, a column is missing, or a label is no class; names file and line.
    """
    path = uris.resolve(uri)
    if not path.exists():
        raise BadInput(f"{field}: {uri}: no such file or directory")
    files = [path]
    if path.is_dir():
        files = sorted(
            entry for entry in path.iterdir() if entry.suffix in _SUFFIXES and entry.name[0] != "."
        )
    elif path.suffix not in _SUFFIXES:
        raise BadInput(f"{field}: {uri}: must be a .csv or .jsonl file, or a directory of such")
    rows: list[tuple[str, str, str]] = []
    for file in files:
        name = f"{field}: {uri}" if file == path else f"{field}: {uris.child(uri, file.name)}"
        read = _read_csv if file.suffix == ".csv" else _read_jsonl
        try:
            rows.extend(read(file, name))
        except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
            raise BadInput(f"{name}: cannot be read: {error}") from error
    if not rows:
        raise BadInput(f"{field}: {uri}: no texts (.csv or .jsonl with the columns text and label)")
    known = list(classes) if classes is not None else ordered_classes(label for _, label, _ in rows)
    if len(known) < 2:
        raise BadInput(f"{field}: {uri}: has only the class {known[0]!r}; at least 2 are needed")
    index = {name: position for position, name in enumerate(known)}
    for _, label, place in rows:
        if label not in index:
            raise BadInput(
                f"{place}: label {label!r} is out of range: the classes are {', '.join(known[:12])}"
            )
    return Texts(texts=[row[0] for row in rows], labels=[index[row[1]] for row in rows], classes=known)


def _read_csv(path: Path, name: str) -> Iterator[tuple[str, str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not {"text", "label"} <= set(reader.fieldnames or ()):
            raise BadInput(
                f"{name}: needs the columns text and label, has {', '.join(reader.fieldnames or ['none'])}"
            )
        for row in reader:
            place = f"{name} line {reader.line_num}"
            if row["text"] is None or row["label"] is None or not row["label"].strip():
                raise BadInput(f"{place}: text or label is missing")
            yield row["text"], row["label"].strip(), place


def _read_jsonl(path: Path, name: str) -> Iterator[tuple[str, str, str]]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            place = f"{name} line {number}"
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise BadInput(f"{place}: needs an object with the columns text (a string) and label")
            label = row.get("label")
            if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
                raise BadInput(f"{place}: label must be a string or a whole number")
            yield row["text"], str(label), place
