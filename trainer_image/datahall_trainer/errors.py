"""What can end a run, each with the exit code and the cause that `docs/contracts.md` fixes."""

from __future__ import annotations

from typing import ClassVar


class TrainerError(Exception):
    """Base of every error that the trainer raises on purpose: its text is a sentence for a person."""

    exit_code: ClassVar[int] = 1
    cause: ClassVar[str] = "UserCode"


class BadInput(TrainerError):  # noqa: N818 - the name is the cause in the job's status
    """Data, model or configuration that can never work, however often the job is started again."""

    exit_code = 65
    cause = "BadInput"


class ArtifactError(BadInput):
    """A finished model on disk is absent, damaged, or not the one that was asked for."""


class PeerLost(TrainerError):  # noqa: N818
    """Another rank of the gang went away: a rendezvous or a collective failed."""

    exit_code = 75
    cause = "PeerLost"


class Fenced(PeerLost):
    """A later generation of this job has begun, so this one must write nothing more."""


class Interrupted(TrainerError):  # noqa: N818
    """SIGTERM: the run stopped in order at a step boundary, its checkpoint saved."""

    exit_code = 143
    cause = "Interrupted"


def one_line(error: BaseException) -> str:
    """The error as one line of text, with its type where the text alone would say nothing."""
    text = " ".join(str(error).split())
    if isinstance(error, TrainerError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
