"""Reading a request's body without trusting its sender: not too big, not too slow, not too many at once."""

import asyncio

import msgspec
from starlette.requests import ClientDisconnect, Request

from ..errors import (
    BodyTimeoutError,
    ClientGoneError,
    InvalidInputError,
    MalformedRequestError,
    OverloadedError,
    TooLargeError,
    UnsupportedContentError,
)


class HeldBytes:
    """How many bytes of bodies all requests hold together: without a bound, many large ones would end the process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    def take(self, size: int) -> None:
        """Claim memory; an OverloadedError when there is none left."""
        if self._held + size > self._limit:
            raise OverloadedError(f"the server holds {self._held} bytes of requests, at most {self._limit}")
        self._held += size

    def give_back(self, size: int) -> None:
        """Release what `take` claimed."""
        self._held -= size
        assert self._held >= 0


class BodyReader:
    """Reads one request's body; a context manager, because the body is held, and counted, until the answer."""

    def __init__(self, request: Request, *, max_bytes: int, held: HeldBytes) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._held = held
        self._size = 0

    def __enter__(self) -> "BodyReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.give_back(self._size)

    async def read(self, *, deadline: float) -> bytes:
        """The whole body.

        Raises:
            UnsupportedContentError: It is compressed.
            TooLargeError: It is, or says it is, over the limit.
            BodyTimeoutError: It was not complete by the deadline.
            ClientGoneError: The client hung up in the middle.
            OverloadedError: All bodies together are over their limit.
        """
        headers = self._request.headers
        if headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise UnsupportedContentError("compressed bodies are not read: send it without Content-Encoding")
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise self._too_large(int(announced))
        chunks = []
        try:
            async with asyncio.timeout_at(deadline):
                async for chunk in self._request.stream():
                    self._held.take(len(chunk))
                    self._size += len(chunk)
                    if self._size > self._max_bytes:
                        raise self._too_large(None)
                    chunks.append(chunk)
        except TimeoutError:
            raise BodyTimeoutError("the body did not arrive in time") from None
        except ClientDisconnect:
            raise ClientGoneError("the client hung up") from None
        return b"".join(chunks)

    def _too_large(self, size: int | None) -> TooLargeError:
        said = f"the body has {size} bytes" if size is not None else "the body is too large"
        return TooLargeError(f"{said}, at most {self._max_bytes} are read")


def media_type(request: Request) -> str:
    """The content type without its parameters, in lower case; empty if absent."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def explain(error: Exception, *, within: str = "") -> MalformedRequestError | InvalidInputError:
    """Turn msgspec's complaint into ours, with the path of the field as `param`.

    Args:
        error: One of DECODING_ERRORS.
        within: The path of the part that was being decoded, where that was not the whole body.
    """
    if not isinstance(error, msgspec.ValidationError):
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return MalformedRequestError(f"not valid JSON: {detail}", param=within or None)
    message, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").lstrip(".") if not within else path.rstrip("`")
    return InvalidInputError(message, param=(within + path) or None)


DECODING_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises on a stranger's bytes; RecursionError for a body of a hundred thousand brackets."""
