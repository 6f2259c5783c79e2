"""What the trainer says: live reports, and the last word in a termination message."""

from __future__ import annotations

import contextlib
import datetime

from pydantic import ValidationError

from datahall.api.trainingjob import LastCheckpoint, Progress, TrainedModel
from datahall.control import times
from datahall.control.training.causes import termination
from datahall.control.training.look import Look
from datahall.control.views import PodView

PROGRESS_EVERY_SECONDS = 5.0
"""Shortest time between two status writes that carry only progress; the first checkpoint does not wait."""


def read_progress(raw: dict[str, object], now: datetime.datetime) -> Progress:
    """A progress object as the trainer sends it, with the two fields that the operator adds.

    Raises:
        pydantic.ValidationError: it is not one.
    """
    progress = Progress.model_validate(raw)
    percent = None
    if progress.step is not None and progress.total_steps:
        percent = min(100, 100 * progress.step // progress.total_steps)
    return progress.model_copy(update={"percent": percent, "time": times.to_text(now)})


def take_report(look: Look, *, always: bool = False) -> None:
    """Take the newest report into the status, not more often than is useful."""
    report, status = look.seen.report, look.seen.job.status
    if report is None or report.generation != status.generation:
        return
    if report.progress == status.progress and report.checkpoint in (None, status.last_checkpoint):
        return
    # From its first checkpoint on, a job can be suspended or moved without losing all: that is told at once.
    first = report.checkpoint is not None and status.last_checkpoint is None
    age = times.since(status.progress.time, look.seen.now) if status.progress else PROGRESS_EVERY_SECONDS
    if age < PROGRESS_EVERY_SECONDS and not (always or first):
        look.look_again(PROGRESS_EVERY_SECONDS - age)
        return
    look.draft.set(progress=report.progress)
    if report.checkpoint is not None:
        look.draft.set(last_checkpoint=report.checkpoint)


def take_last_word(look: Look, first: PodView) -> None:
    """Take over what can be read of the last progress and checkpoint; the rest is no reason to lose the result."""
    said = termination(first) or {}
    if isinstance(progress := said.get("progress"), dict):
        with contextlib.suppress(ValidationError):
            look.draft.set(progress=read_progress(progress, look.seen.now))
    if isinstance(checkpoint := said.get("checkpoint"), dict):
        with contextlib.suppress(ValidationError):
            look.draft.set(last_checkpoint=LastCheckpoint.model_validate(checkpoint))


def output_of(said: dict[str, object]) -> TrainedModel | None:
    """The finished model; None where nothing readable is said of one: any program may write any JSON there."""
    output, progress = said.get("output"), said.get("progress")
    if not isinstance(output, dict):
        return None
    metrics = progress.get("metrics") if isinstance(progress, dict) else None
    plain = {"uri": output.get("uri"), "digest": output.get("digest")}
    for body in ({**plain, "metrics": metrics or {}}, plain):
        with contextlib.suppress(ValidationError):
            return TrainedModel.model_validate(body)
    return None
