"""How far the run is, how fast, and how well: what the operator shows and what the log says."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

# Steps over which loss and speed are averaged.
_WINDOW_STEPS = 20


class Progress:
    """Numbers of the run so far; reads the clock, so nothing that affects training may depend on it."""

    def __init__(
        self, *, total_steps: int, epochs: int, steps_per_epoch: int, batch_size: int, device: str
    ) -> None:
        """A run that has not begun."""
        self._total_steps = total_steps
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._batch_size = batch_size
        # What computes, as the status shows it.
        self.device = device
        self._losses: deque[float] = deque(maxlen=_WINDOW_STEPS)
        self._times: deque[float] = deque(maxlen=_WINDOW_STEPS + 1)
        self._step = 0
        # Samples per second; keeps its last value over pauses.
        self._rate = 0.0
        self.validation: dict[str, float] = {}

    def start(self, step: int) -> None:
        """Training goes on from here; call it after every pause, so that the pause does not count."""
        self._step = step
        self._times.clear()
        self._times.append(time.monotonic())

    def advance(self, loss: float | None) -> None:
        """One more step is done; `loss` is the mean since it was last known, None if nobody looked."""
        self._step += 1
        if loss is not None:
            self._losses.append(loss)
        self._times.append(time.monotonic())
        elapsed = self._times[-1] - self._times[0]
        if elapsed > 0:
            self._rate = (len(self._times) - 1) * self._batch_size / elapsed

    @property
    def known(self) -> bool:
        """Whether the time that is left can be told: from the first step of this process on, and at the end."""
        return self._rate > 0 or self._step >= self._total_steps

    def to_message(self) -> dict[str, Any]:
        """As the contract wants it; `epoch` is how many are begun, 1 while in the first."""
        rate = self._rate
        left = (self._total_steps - self._step) * self._batch_size
        metrics = dict(self.validation)
        if self._losses:
            metrics["loss"] = round(sum(self._losses) / len(self._losses), 6)
        return {
            "step": self._step,
            "totalSteps": self._total_steps,
            "epoch": min(self._step // self._steps_per_epoch + 1, self._epochs),
            "epochs": self._epochs,
            "samplesPerSecond": round(rate, 1),
            "etaSeconds": round(left / rate) if rate > 0 else 0,
            "device": self.device,
            "metrics": metrics,
        }

    def to_line(self) -> str:
        """For the log."""
        now = self.to_message()
        scores = " ".join(f"{name}={value:.4f}" for name, value in now["metrics"].items() if "_" not in name)
        return (
            f"step {now['step']}/{now['totalSteps']} epoch {now['epoch']}/{now['epochs']} {scores} "
            f"{now['samplesPerSecond']} samples/s eta {now['etaSeconds']} s"
        )
