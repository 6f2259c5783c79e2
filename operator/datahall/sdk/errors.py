"""What the SDK raises: one base class, one class per thing that a caller can do about it.

`translated` is the choke point between the Kubernetes client's errors and these; the message is always a sentence that
can be shown to a person as it stands, and the original error is its `__cause__`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from datahall.kube.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeConfigError,
    KubeError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
)
from datahall.kube.errors import NotFoundError as KubeNotFoundError

if TYPE_CHECKING:
    from datahall.api.inferenceservice import InferenceService, ReplicaFailure
    from datahall.api.trainingjob import Failure, TrainingJob


class DatahallError(Exception):
    """Base of everything that the SDK raises on purpose."""


class MisuseError(DatahallError, ValueError):
    """The call itself makes no sense (a bad manifest, an unknown kind or condition): nothing was sent."""


class UnreachableError(DatahallError):
    """There is no usable login, or the API server does not answer: the call may be repeated."""


class DeniedError(DatahallError):
    """The API server refuses the credentials, or RBAC or an admission policy refuses the call."""


class NotInstalledError(DatahallError):
    """The cluster does not know the kind: the CustomResourceDefinitions of Datahall are not installed."""


class NotFoundError(DatahallError):
    """The object does not exist, or went away while it was waited for."""


class RejectedError(DatahallError):
    """The object breaks its schema or a rule, or another field manager owns a field: the message says which."""


class UnreadableError(DatahallError):
    """The cluster holds an object that this version of the SDK cannot read."""


class NoLogsError(DatahallError):
    """There is no log to read: no pod has started yet, or all are gone. `follow` waits instead."""


class JobFailed(DatahallError):  # noqa: N818 - reads as what happened
    """What was waited for cannot come any more: the TrainingJob failed, or the InferenceService is stalled.

    Attributes:
        object: the object as it was last seen.
        reason: one word of the reason catalogue.
        failure: which pod failed, how, and its last log lines; None where no pod failed (a deadline, for one).
    """

    def __init__(self, message: str, *, object: TrainingJob | InferenceService, reason: str) -> None:  # noqa: A002
        super().__init__(message)
        self.object = object
        self.reason = reason
        self.failure: Failure | ReplicaFailure | None = object.status.failure


class WaitTimeout(DatahallError, TimeoutError):  # noqa: N818 - reads as what happened
    """The time is up; the object lives on.

    Attributes:
        object: the object as it was last seen, None if it was not seen at all.
        state: its state in one word.
    """

    def __init__(self, message: str, *, object: TrainingJob | InferenceService | None, state: str) -> None:  # noqa: A002
        super().__init__(message)
        self.object = object
        self.state = state


class PredictError(DatahallError):
    """The server did not answer with classes.

    Attributes:
        status: HTTP status, 0 where no answer came.
        kind: the server's word for it ("invalid_input", "overloaded"), "" where it gave none.
    """

    def __init__(self, message: str, *, status: int = 0, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


INSTALL_HINT = (
    "the cluster does not know Datahall's kinds; install them with `helm install datahall charts/datahall` "
    "or `kubectl apply -f crds/`"
)


def from_kube(error: KubeError) -> DatahallError:
    """The error of the SDK that fits an error of the Kubernetes client."""
    message = _sentence(error)
    match error:
        case KubeConfigError():
            return UnreachableError(message)
        case TooManyRequestsError():
            return UnreachableError(f"the API server is overloaded: {message}")
        case UnavailableError() if "failed to create typed patch object" in message:
            # Server-side apply answers 500 for an unknown field; it is the object's fault all the same.
            return RejectedError(message)
        case UnavailableError():
            return UnreachableError(f"the API server cannot be reached: {message}")
        case UnauthorizedError():
            return DeniedError(f"the API server does not accept the credentials: {message}")
        case ForbiddenError():
            return DeniedError(message)
        case KubeNotFoundError() if error.reason:
            return NotFoundError(message)
        case KubeNotFoundError():
            # An object that is missing is answered with a Status, a kind that is missing with plain text.
            return NotInstalledError(INSTALL_HINT)
        case ConflictError() | InvalidError():
            return RejectedError(message)
        case _:
            return DatahallError(message)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the Kubernetes client's errors into the SDK's."""
    try:
        yield
    except KubeError as error:
        raise from_kube(error) from error


def _sentence(error: KubeError) -> str:
    if isinstance(error.body, dict) and error.body.get("message"):
        return str(error.body["message"])
    return str(error)
