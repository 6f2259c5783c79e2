"""What is measured: ops, shapes, and what each has to move and to compute at least."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Call = Callable[[], object]
Make = Callable[[torch.device], Call]
"""Makes the arguments on a device, and gives what is timed."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One op at one shape, by several providers."""

    op: str
    passed: str
    """forward, backward or full."""
    shape: str
    dtype: torch.dtype
    moved_bytes: float
    """Inputs read once and outputs written once."""
    flops: float = 0.0
    makers: Mapping[str, Make] = field(default_factory=dict)
    """By provider."""

    @property
    def name(self) -> str:
        """How `--only` finds it."""
        return f"{self.op} {self.passed} {self.shape} {str(self.dtype).removeprefix('torch.')}"

    def ceiling_seconds(self, *, bytes_per_second: float, flops_per_second: float) -> float:
        """The least time that it can take."""
        return max(self.moved_bytes / bytes_per_second, self.flops / flops_per_second)


def random(
    *shape: int, device: torch.device, dtype: torch.dtype, seed: int = 0, gradient: bool = False
) -> Tensor:
    """Normal numbers, the same on every machine."""
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return made.to(device=device, dtype=dtype).requires_grad_(gradient)


def passes(function: Callable[..., Tensor], passed: str, inputs: tuple[Tensor, ...], *rest: object) -> Call:
    """A pass of a differentiable function of some tensors.

    Args:
        function: takes `inputs` and then `rest`.
        passed: forward, backward or full.
        inputs: those whose gradients are made.
        rest: other arguments.
    """
    if passed == "forward":

        def forward() -> object:
            with torch.no_grad():
                return function(*inputs, *rest)

        return forward
    y = function(*inputs, *rest)
    gradient = torch.ones_like(y)
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    if passed == "backward":
        return lambda: torch.autograd.grad(y, wanted, gradient, retain_graph=True)
    return lambda: torch.autograd.grad(function(*inputs, *rest), wanted, gradient)


def selected(cases: Iterator[Case], only: str) -> list[Case]:
    """The cases whose name has all the words."""
    return [case for case in cases if all(word in case.name for word in only.split())]
