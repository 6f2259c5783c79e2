"""Options that several commands share, and what they add up to."""

from __future__ import annotations

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
