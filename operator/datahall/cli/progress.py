"""Telling how a wait goes on: a bar for a person at a terminal, plain lines for a file or a pipe. On stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from datahall.api.trainingjob import TrainingJob
from datahall.cli.table import wants_colour
from datahall.cli.words import lines_of, number
from datahall.sdk.explaining import explanation, state_of

if TYPE_CHECKING:
    from datahall.sdk.kinds import Workload

EVERY_SECONDS = 5.0
"""How often a plain line about training that just goes on is printed; a change of state is printed at once."""

_SHOWN_METRICS = ("loss", "validation_loss", "validation_accuracy")


class Reporter(Protocol):
    """Hears of every change of the object that is waited for."""

    def __call__(self, workload: Workload) -> None:
        """Show it."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, and leave the terminal in order."""


def reporter(clock: Callable[[], float], stream: TextIO | None = None) -> Reporter:
    """The one that suits where stderr goes.

    Args:
        clock: seconds of a monotonic clock.
        stream: where to; None: stderr.
    """
    stream = sys.stderr if stream is None else stream
    return BarReporter(stream) if wants_colour(stream) else PlainReporter(stream, clock)


def progress_line(workload: Workload) -> str:
    """`step 120/625  19 %  loss 0.21  eta 77 s` while it trains, else the state and why."""
    state = state_of(workload)
    if isinstance(workload, TrainingJob) and state == "Running":
        numbers = _numbers(workload)
        if numbers:
            return "  ".join(numbers)
    message = lines_of(explanation(workload).message)
    return f"{state}: {message}" if message else state


class PlainReporter:
    """One line per change of state, and one every few seconds while it trains."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        """Print to `stream`, with the time from `clock`."""
        self._stream, self._clock = stream, clock
        self._topic: tuple[str, str] | None = None
        self._printed_at = 0.0
        self._printed = self._held = ""

    def __enter__(self) -> Self:
        """Nothing to begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Print what was held back for being too early."""
        if self._held:
            self._print(self._held)

    def __call__(self, workload: Workload) -> None:
        """Print the line, or hold it back if it only tells of the next step."""
        line = progress_line(workload)
        training = isinstance(workload, TrainingJob) and bool(_numbers(workload))
        state = state_of(workload)
        # While it trains, the message repeats what the numbers say: it is no news.
        topic = (state, "" if training and state == "Running" else line)
        if topic != self._topic or self._clock() - self._printed_at >= EVERY_SECONDS:
            self._topic = topic
            self._print(line)
        else:
            self._held = line

    def _print(self, line: str) -> None:
        self._held = ""
        if line == self._printed:
            return
        self._printed, self._printed_at = line, self._clock()
        print(line, file=self._stream, flush=True)


class BarReporter:
    """A bar that fills with the steps; before and between, a sentence that says why nothing moves."""

    def __init__(self, stream: TextIO) -> None:
        """Draw on `stream`."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[state]}", style="bold", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(file=stream),
        )
        self._task: Any = self._progress.add_task("", total=None, state="")

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw a last time and give the terminal back."""
        self._progress.stop()

    def __call__(self, workload: Workload) -> None:
        """Draw the present state."""
        state = state_of(workload)
        seen = workload.status.progress if isinstance(workload, TrainingJob) else None
        numbers = _numbers(workload) if isinstance(workload, TrainingJob) and state == "Running" else []
        self._progress.update(
            self._task,
            state=state,
            description="  ".join(numbers) or lines_of(explanation(workload).message),
            completed=seen.step or 0 if seen else 0,
            total=seen.total_steps if seen else None,
        )


def _numbers(job: TrainingJob) -> list[str]:
    progress = job.status.progress
    if progress is None or progress.step is None:
        return []
    of = f"/{progress.total_steps}" if progress.total_steps is not None else ""
    numbers = [f"step {progress.step}{of}"]
    if progress.percent is not None:
        numbers.append(f"{progress.percent} %")
    numbers += [
        f"{name.replace('_', ' ')} {number(progress.metrics[name])}"
        for name in _SHOWN_METRICS
        if name in progress.metrics
    ]
    if progress.eta_seconds is not None:
        numbers.append(f"eta {progress.eta_seconds} s")
    return numbers
