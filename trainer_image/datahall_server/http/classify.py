"""`POST /v1/classify`: the plain way to ask. Wire types and their decoding, no I/O."""

from collections.abc import Sequence

import msgspec

from ..config import Limits
from ..engine.protocol import Instance, ModelInfo
from ..errors import InvalidInputError, TooLargeError, UnsupportedContentError
from ..tasks.classification import NamedScore
from .body import DECODING_ERRORS, explain


class _Texts(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[str]


class _Images(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[bytes]  # msgspec reads base64 into bytes


class ClassifiedInput(msgspec.Struct):
    """The classes of one input, best first."""

    classes: list[NamedScore]


class ClassifyResponse(msgspec.Struct):
    """The answer: one result per input, in the order of the inputs."""

    model: str
    digest: str
    results: list[ClassifiedInput]


_texts = msgspec.json.Decoder(_Texts)
_images = msgspec.json.Decoder(_Images)


def parse(body: bytes, *, media_type: str, model: ModelInfo, limits: Limits) -> list[Instance]:
    """The instances in a body; every error names what is wrong with it."""
    takes_images = model.task == "ImageClassification"
    if media_type.startswith("image/"):
        if not takes_images:
            raise UnsupportedContentError(f"this model takes texts, not {media_type}")
        return images([body], param="inputs")
    if media_type not in ("", "application/json"):
        also = " or an image as image/png, image/jpeg, ..." if takes_images else ""
        raise UnsupportedContentError(f"Content-Type {media_type} is not read: send application/json{also}")
    try:
        if takes_images:
            return images(_images.decode(body).inputs, param="inputs")
        return texts(_texts.decode(body).inputs, param="inputs", limits=limits)
    except DECODING_ERRORS as error:
        raise explain(error) from None


def images(files: Sequence[bytes | memoryview], *, param: str) -> list[Instance]:
    """Instances of image files; whether they are images, the engine finds out."""
    _require_some(files, param)
    for index, file in enumerate(files):
        if not file:
            raise InvalidInputError("the image is empty", param=f"{param}[{index}]")
    return [Instance("image", file) for file in files]


def texts(values: Sequence[str], *, param: str, limits: Limits) -> list[Instance]:
    """Instances of texts."""
    _require_some(values, param)
    for index, text in enumerate(values):
        if len(text) > limits.max_text_characters:
            raise TooLargeError(
                f"the text has {len(text)} characters, at most {limits.max_text_characters} are read",
                param=f"{param}[{index}]",
            )
    return [Instance("text", text.encode()) for text in values]


def _require_some(values: Sequence[object], param: str) -> None:
    if not values:
        raise InvalidInputError("must not be empty", param=param)
