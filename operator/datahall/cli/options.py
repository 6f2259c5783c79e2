"""Options that several commands share, and what they add up to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace; the context's own if absent.", show_default=False),
]
Context = Annotated[
    str | None, typer.Option("--context", help="Context of the kubeconfig.", show_default=False)
]
Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", help="Path of the kubeconfig.", show_default=False)
]


def seconds(text: str) -> float:
    """A duration as kubectl takes it, or plain seconds: `90`, `90s`, `20m`, `1h30m`.

    Raises:
        typer.BadParameter: it is neither.
    """
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"{text!r} is no duration; write 90s, 20m or 1h30m")
    return sum(float(number) * units[unit] for number, unit in parts)


class Output(StrEnum):
    """How a list is printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Connection:
    """Which cluster, and where in it.

    Attributes:
        namespace: None for the context's own.
        context: None for the current one.
        kubeconfig: None for kubectl's own search.
    """

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
