"""What can go wrong with a request, in the server's own words.

`http/errors.py` alone knows which status each becomes.
"""

from typing import ClassVar


class ServerError(Exception):
    """Something a client is told about.

    Attributes:
        kind: A stable word for programs; the class decides it.
        message: A sentence for people.
        param: The field of the request that is to blame, as a path such as `inputs[3]`; None where there is none.
    """

    kind: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class MalformedRequestError(ServerError):
    """The body cannot be parsed at all: not JSON, cut off, badly framed."""

    kind = "malformed_request"


class InvalidInputError(ServerError):
    """The body parses, but a value in it cannot be used: wrong type, shape, datatype, base64 or image."""

    kind = "invalid_input"


class TooLargeError(ServerError):
    """The body, an image, a text or the number of inputs is over a limit."""

    kind = "too_large"


class UnsupportedContentError(ServerError):
    """The content type or encoding is not one this endpoint reads."""

    kind = "unsupported_content"


class NotFoundError(ServerError):
    """No such path, model or version."""

    kind = "not_found"


class MethodNotAllowedError(ServerError):
    """The path exists, the method does not."""

    kind = "method_not_allowed"


class BodyTimeoutError(ServerError):
    """The client did not finish sending its body in time."""

    kind = "body_timeout"


class UnavailableError(ServerError):
    """This replica cannot answer now; another, or this one later, can.

    Attributes:
        retry_after_seconds: When it is worth asking again.
    """

    kind = "unavailable"

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotReadyError(UnavailableError):
    """The model is not loaded yet."""

    kind = "not_ready"


class OverloadedError(UnavailableError):
    """The queue, or the memory for requests, is full."""

    kind = "overloaded"


class EngineDiedError(UnavailableError):
    """The process that holds the model ended while the request was held."""

    kind = "engine_died"


class DeadlineExceededError(ServerError):
    """The answer was not there within `timeoutSeconds`."""

    kind = "deadline_exceeded"


class ModelFailedError(ServerError):
    """The model itself raised, or its scores are not finite: a defect of the model, not of the request."""

    kind = "model_failed"


class ClientGoneError(ServerError):
    """The client hung up before its answer; nobody reads this one."""

    kind = "client_gone"


class StartError(Exception):
    """The server cannot run: bad configuration, or a model that cannot be loaded. Exit code 65."""
