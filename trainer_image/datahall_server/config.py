"""What the server is told at its start: the operator's JSON, and the limits a person may change by environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from .errors import StartError

CONFIG_VARIABLE = "DATAHALL_SERVER_CONFIG"

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


# camelCase, and a field nobody knows is refused: the operator and this image are released together.
class ModelSource(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where the model lies, and which one it must be.

    Attributes:
        uri: Such as `pvc://models/digits/versions/0123456789abcdef`.
        digest: `sha256:` and 64 hex digits, or None: serve what is there and report its digest.
    """

    uri: Annotated[str, msgspec.Meta(min_length=1)]
    digest: Annotated[str, msgspec.Meta(pattern="^sha256:[0-9a-f]{64}$")] | None = None


class Batching(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How instances are gathered. One input of a request (a text, an image, a row of a tensor) is one instance.

    Attributes:
        max_batch_size: Instances computed together, at most.
        max_delay_milliseconds: How long the first instance of a batch waits for company while the engine is free.
        max_queue: Instances waiting, at most; more are refused with 503.
    """

    max_batch_size: PositiveInt = 32
    max_delay_milliseconds: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    max_queue: PositiveInt = 1024


class Postprocess(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Which classes an answer names: at most `top_k`, none with a score below `threshold`."""

    top_k: PositiveInt = 3
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


class ServerConfig(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """`DATAHALL_SERVER_CONFIG`, as docs/contracts.md has it.

    Attributes:
        timeout_seconds: From a request's headers to its answer; later is a 504.
    """

    name: Annotated[str, msgspec.Meta(min_length=1)]
    namespace: str
    model: ModelSource
    batching: Batching = Batching()
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    postprocess: Postprocess = Postprocess()
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What protects the process from its clients; each by an environment variable `DATAHALL_` + the name in capitals.

    Attributes:
        max_body_bytes: One request body. More is a 413.
        max_held_bytes: All request bodies held at one time. More is a 503.
        max_image_pixels: Width times height, read from the image's header before anything is decoded.
        max_text_characters: One text. Tokenizers read all of a text before they cut it, so a huge one would stall
            the rest.
        drain_seconds: How long a draining server still accepts, while endpoints forget the pod.
        shutdown_seconds: From SIGTERM to the exit, at most; under the kubelet's 30.
    """

    max_body_bytes: int = 32 * 1024 * 1024
    max_held_bytes: int = 256 * 1024 * 1024
    max_image_pixels: int = 50_000_000
    max_text_characters: int = 100_000
    drain_seconds: float = 5.0
    shutdown_seconds: float = 28.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Limits":
        """Read the limits; a value that is not a number is a StartError that names its variable."""
        values: dict[str, Any] = {}
        for name, default in ((name, getattr(cls(), name)) for name in cls.__dataclass_fields__):
            variable = f"DATAHALL_{name.upper()}"
            text = environment.get(variable)
            if text is None:
                continue
            try:
                values[name] = type(default)(text)
            except ValueError:
                raise StartError(f"{variable}: {text!r} is not a number") from None
            if values[name] < 0:
                raise StartError(f"{variable}: must not be negative, is {text}")
        return cls(**values)


def load(environment: Mapping[str, str] = os.environ) -> ServerConfig:
    """Parse `DATAHALL_SERVER_CONFIG`.

    Raises:
        StartError: Absent, not JSON, or not of the expected shape; the message names the field.
    """
    text = environment.get(CONFIG_VARIABLE)
    if not text:
        raise StartError(f"{CONFIG_VARIABLE}: not set")
    try:
        return msgspec.json.decode(text, type=ServerConfig)
    except msgspec.DecodeError as error:  # a ValidationError is one, and names the field
        raise StartError(f"{CONFIG_VARIABLE}: {error}") from None
