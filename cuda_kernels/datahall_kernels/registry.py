"""What an op is, and how it comes into torch's registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Op:
    """One op of namespace `datahall`.

    It takes contiguous tensors only: the functions that people call see to that. It has no optional outputs; a
    gradient that nobody wants has 0 elements.
    """

    name: str
    schema: str
    """Arguments and results, without the name."""
    reference: Callable[..., Any]
    """The CPU implementation in plain torch, which says what is right."""
    fake: Callable[..., Any]
    """Shapes and types of the results, for torch.compile; makes the same checks."""
    backward: Callable[..., Any] | None = None
    setup_context: Callable[..., None] | None = None
    """What `backward` needs of the forward pass."""
    is_composite: bool = False
    """Made of other ops and torch's: `reference` serves CUDA, too, and there is no kernel of its own."""


def define(ops: Iterable[Op], library: torch.library.Library, *, dispatch_key: str | None = "CPU") -> None:
    """Define ops in the library's namespace, with the reference for `dispatch_key` (None: without)."""
    for op in ops:
        # Kernels read memory as it lies: torch.compile must not change strides behind our back.
        tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
        library.define(op.name + op.schema, tags=tags)
        if dispatch_key is not None:
            library.impl(op.name, op.reference, dispatch_key)
            if op.is_composite:
                library.impl(op.name, op.reference, "CUDA")


def register(ops: Iterable[Op], library: torch.library.Library) -> None:
    """Give ops that are defined their shapes and gradients."""
    namespace = library.ns
    for op in ops:
        torch.library.register_fake(f"{namespace}::{op.name}", op.fake, lib=library)
        if op.backward is not None:
            torch.library.register_autograd(
                f"{namespace}::{op.name}", op.backward, setup_context=op.setup_context, lib=library
            )
