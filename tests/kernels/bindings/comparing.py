"""What all tests of bindings need."""

from __future__ import annotations

from typing import Any

import pytest
import torch


def assert_refused_alike(bindings: Any, op: str, given: tuple[Any, ...]) -> None:
    """The reference refuses the arguments, and bindings do in the same words."""
    with pytest.raises(ValueError, match=f"^{op}: ") as reference:
        getattr(torch.ops.datahall, op)(*given)
    with pytest.raises(RuntimeError) as refused:
        getattr(bindings, op)(*given)
    assert str(refused.value).splitlines()[0] == str(reference.value)
