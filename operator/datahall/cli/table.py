"""Plain aligned columns, as kubectl prints them; a colour for the state only where a person looks at a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

_LABEL_WIDTH = 12

_COLOURS = {
    "Succeeded": 32,
    "Ready": 32,
    "Running": 36,
    "Queued": 33,
    "Starting": 33,
    "Restarting": 33,
    "Progressing": 33,
    "WaitingForModel": 33,
    "Failed": 31,
    "Stalled": 31,
}


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, headers: bool = True, colour: bool = False
) -> str:
    """The rows under their headers, two blanks apart; the last column is as long as it wants."""
    printed = [*([columns] if headers else []), *rows]
    widths = [max((len(row[place]) for row in printed), default=0) for place in range(len(columns))]
    lines = []
    for row in printed:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        if colour and row is not columns:
            cells = [painted(cell) for cell in cells]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines)


def section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A part of a page: a blank line, its title, an indented table; nothing without rows."""
    return ["", title, *(f"  {line}" for line in table(columns, rows).splitlines())] if rows else []


def entry(label: str, *values: str) -> list[str]:
    """A labelled line of a page, one more for each further value; nothing without values."""
    shown = [value for value in values if value]
    labels = [f"{label}:", *[""] * (len(shown) - 1)]
    return [f"{head:<{_LABEL_WIDTH}} {value}" for head, value in zip(labels, shown, strict=False)]


def painted(text: str) -> str:
    """A state in its colour, anything else as it is; blanks around it stay."""
    code = _COLOURS.get(text.strip())
    return f"\x1b[{code}m{text}\x1b[0m" if code is not None else text


def wants_colour(stream: TextIO | None = None) -> bool:
    """Whether a person looks at it, and has not said no (https://no-color.org)."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
