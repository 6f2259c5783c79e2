"""What the runtime found, in words: which kernel, which thread, which line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

PLACE = re.compile(r"@([0-9a-f]+)@")
OWN_HEADERS = "/kernel_execution"
"""The layer's own sources are called so in the line numbers."""


class Kind(Enum):
    """What is wrong."""

    OUT_OF_BOUNDS = "out of bounds"
    INDEX = "index"
    READ_ONLY = "read-only"
    MISALIGNED = "misaligned"
    UNINITIALISED = "uninitialised"
    UNWRITTEN = "unwritten"
    RACE = "race"
    BARRIER = "barrier"
    MASK = "mask"
    SHUFFLE = "shuffle"
    DEADLOCK = "deadlock"
    ENDLESS = "endless"
    OVERFLOW = "overflow"
    DIVISION = "division"
    LIMIT = "limit"
    MORE = "more"


@dataclass(frozen=True)
class Finding:
    """One error of a kernel; the same error of other threads is counted with the first."""

    kind: Kind
    count: int
    kernel: str
    where: str
    """Block and thread of the first."""
    text: str
    """What happened, with file:line."""

    def __str__(self) -> str:
        start = ", ".join(part for part in (self.kernel.partition("(")[0], self.where) if part)
        again = f" [{self.count} times]" if self.count > 1 else ""
        return f"{self.kind.value}: {start + ': ' if start else ''}{self.text}{again}"


def parse(report: str, library: Path) -> tuple[Finding, ...]:
    """The runtime's report, one finding a line, with places made lines."""
    lines = lines_of(library, {int(place, 16) for place in PLACE.findall(report)})
    findings = []
    for entry in report.splitlines():
        word, count, kernel, where, text = entry.split("\t")
        places = [lines[int(place, 16)] for place in PLACE.findall(text)]
        if word == "barrier lines":
            # Loops being unrolled, one line can be several places in the code.
            if places[0] == places[1]:
                continue
            word = Kind.BARRIER.value
        text = PLACE.sub(lambda match: lines[int(match[1], 16)], text)
        findings.append(Finding(Kind(word), int(count), short_name(kernel), where, text))
    return tuple(findings)


def lines_of(library: Path, places: Iterable[int]) -> dict[int, str]:
    """`norm.cu:120` for each place, which is where a call in the library's code returns to."""
    wanted = sorted(places)
    if not wanted:
        return {}
    # One before: the call itself, not what follows it.
    addresses = [f"{max(place - 1, 0):#x}" for place in wanted]
    command = ["addr2line", "-e", str(library), "-a", "-i", *addresses]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: list[str] = []
    has_line = True
    for line in output.splitlines():
        if line.startswith("0x"):
            found.append("an unknown line")
            has_line = False
        elif not has_line and not line.startswith("?"):
            path, _, number = line.partition(":")
            # Inlined functions come first: those of the layer itself are not where the fault is.
            if str(Path(path).parent) != OWN_HEADERS:
                found[-1] = f"{Path(path).name}:{number.split(' ')[0]}"
                has_line = True
    return dict(zip(wanted, found, strict=True))


def short_name(function: str) -> str:
    """A demangled kernel without its result, namespaces and parameters."""
    name = function.replace("(anonymous namespace)::", "").removeprefix("void ")
    return re.sub(r"\b\w+::", "", name)
