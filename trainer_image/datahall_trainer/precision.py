"""Number formats: fp32, bf16 autocast, fp16 autocast with loss scaling."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from datahall_trainer.errors import BadInput


class Precision:
    """Wraps the forward pass and the optimizer's step for one number format.

    Weights, gradients and the optimizer's state stay fp32 in all three.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """Chooses the format.

        Raises:
            BadInput: fp16 without a GPU; its loss scaling is made for them.
        """
        if name == "fp16" and device.type != "cuda":
            raise BadInput(
                "training.precision: fp16 needs a CUDA GPU and this worker computes on the CPU; use bf16"
            )
        self._device_type = device.type
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self._scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device_type, self._dtype)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call backward on."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Steps; under fp16 a step whose gradients overflowed is skipped."""
        if self._scaler is None:
            optimizer.step()
            return
        # The optimizer clips the gradients: they must be of their own size by then.
        self._scaler.unscale_(optimizer)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undoes `state_dict`."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)
