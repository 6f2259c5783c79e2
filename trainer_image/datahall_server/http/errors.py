"""The one place where an error becomes a status and a body.

Open Inference Protocol clients read `{"error": "sentence"}`; everyone else gets `{"error": {"type", "message",
"param"}}`, the shape that OpenAI's clients know.
"""

import msgspec
from starlette.responses import Response

from .. import errors

STATUS: dict[type[errors.ServerError], int] = {
    errors.MalformedRequestError: 400,
    errors.NotFoundError: 404,
    errors.MethodNotAllowedError: 405,
    errors.BodyTimeoutError: 408,
    errors.TooLargeError: 413,
    errors.UnsupportedContentError: 415,
    errors.InvalidInputError: 422,
    errors.ClientGoneError: 499,  # nginx's number; only the metrics ever see it
    errors.ModelFailedError: 500,
    errors.NotReadyError: 503,
    errors.OverloadedError: 503,
    errors.EngineDiedError: 503,
    errors.DeadlineExceededError: 504,
}


def respond(error: errors.ServerError, *, path: str) -> Response:
    """The response that tells a client about the error, in the words of the protocol it speaks."""
    headers = {}
    if isinstance(error, errors.UnavailableError):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if path == "/v2" or path.startswith("/v2/"):
        sentence = f"{error.param}: {error.message}" if error.param else error.message
        body: object = {"error": sentence}
    else:
        body = {"error": {"type": error.kind, "message": error.message, "param": error.param}}
    return Response(
        msgspec.json.encode(body),
        status_code=STATUS.get(type(error), 500),
        headers=headers,
        media_type="application/json",
    )
