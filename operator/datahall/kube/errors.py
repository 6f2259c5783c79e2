"""What can go wrong between us and the API server, grouped by what the caller can do about it.

One choke point (`from_response`, and the transport wrapper in `client`) translates HTTP and network failures to the
most specific class, so nobody parses status codes or texts elsewhere.
"""

from __future__ import annotations

from typing import Any


class KubeError(Exception):
    """Base of everything the client raises.

    Attributes:
        status: HTTP status code, 0 where no answer came.
        reason: the API server's machine-readable reason, "" where there is none.
        body: the decoded answer, None where none came: a proxied Service answers in its own format.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.body: Any = None


class KubeConfigError(KubeError):
    """No usable kubeconfig and not in a cluster: nothing was sent."""


class UnavailableError(KubeError):
    """The API server did not answer, or answered 5xx: the write may or may not have happened."""


class TooManyRequestsError(UnavailableError):
    """429: the server asks to come back after `retry_after_seconds`."""

    def __init__(
        self, message: str, *, status: int = 429, reason: str = "", retry_after_seconds: float = 1.0
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after_seconds = retry_after_seconds


class UnauthorizedError(KubeError):
    """401: the credentials are not accepted."""


class ForbiddenError(KubeError):
    """403: RBAC or an admission policy refuses; trying again cannot help."""


class NotFoundError(KubeError):
    """404: no such object, or no such kind (its CustomResourceDefinition is not installed)."""


class ConflictError(KubeError):
    """409: the object changed since it was read, or another field manager owns a field."""


class AlreadyExistsError(ConflictError):
    """409 on create: an object of that name exists."""


class ResourceExpiredError(KubeError):
    """410: the resourceVersion is too old to watch from; list again."""


class InvalidError(KubeError):
    """400, 413, 415 or 422: the object breaks its schema or a rule; the message says which."""


def from_response(status: int, body: Any, *, what: str, retry_after: str | None = None) -> KubeError:
    """Make the error for an HTTP answer of 400 or more.

    Args:
        status: HTTP status code.
        body: decoded `Status` object, or text where the answer was not JSON.
        what: the request in words, for the message.
        retry_after: the Retry-After header.
    """
    error = _specific(status, body, what=what, retry_after=retry_after)
    error.body = body
    return error


def _specific(status: int, body: Any, *, what: str, retry_after: str | None) -> KubeError:
    reason, message = "", str(body)[:500]
    if isinstance(body, dict):
        reason = str(body.get("reason", ""))
        message = str(body.get("message", "")) or message
    text = f"{what}: {message} ({status} {reason})" if reason else f"{what}: {message} ({status})"
    if status == 429:
        seconds = float(retry_after) if retry_after and retry_after.isdigit() else 1.0
        return TooManyRequestsError(text, status=status, reason=reason, retry_after_seconds=seconds)
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExistsError(text, status=status, reason=reason)
    by_status: dict[int, type[KubeError]] = {
        401: UnauthorizedError,
        403: ForbiddenError,
        404: NotFoundError,
        409: ConflictError,
        410: ResourceExpiredError,
        400: InvalidError,
        413: InvalidError,
        415: InvalidError,
        422: InvalidError,
    }
    kind = by_status.get(status, UnavailableError if status >= 500 else KubeError)
    return kind(text, status=status, reason=reason)
