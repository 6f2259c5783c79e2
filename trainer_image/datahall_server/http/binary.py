"""The protocol's binary tensor data extension: JSON first, the tensors' raw bytes after it, all in one body.

tritonclient uses it by default. The header `Inference-Header-Content-Length` says where the JSON ends,
`binary_data_size` in a tensor's parameters how many of the bytes are its own. A BYTES tensor is its elements,
each after its length in 4 bytes.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, MalformedRequestError

HEADER = "Inference-Header-Content-Length"

_LENGTH = struct.Struct("<I")
_SIZE_PARAM = "inputs[0].parameters.binary_data_size"


def split(body: bytes, json_length: str | None) -> tuple[bytes, memoryview | None]:
    """The JSON part, and the bytes after it, or None if the extension is not in use."""
    if json_length is None:
        return body, None
    if not (json_length.isascii() and json_length.isdigit()) or not 0 < int(json_length) <= len(body):
        raise MalformedRequestError(
            f"{HEADER}: {json_length!r} is not a length within the body", param=HEADER
        )
    end = int(json_length)
    return body[:end], memoryview(body)[end:]


def take(blob: memoryview | None, parameters: Mapping[str, Any]) -> memoryview | None:
    """The bytes of the request's one input, or None if its data are in the JSON."""
    size = parameters.get("binary_data_size")
    if size is None:
        if blob:
            raise MalformedRequestError(
                f"{len(blob)} bytes after the JSON belong to no input", param=_SIZE_PARAM
            )
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidInputError("must be a number of bytes", param=_SIZE_PARAM)
    if blob is None:
        raise MalformedRequestError(f"binary data need the header {HEADER}", param=HEADER)
    if size != len(blob):
        raise InvalidInputError(f"says {size} bytes, {len(blob)} follow the JSON", param=_SIZE_PARAM)
    return blob


def decode_bytes(raw: memoryview) -> list[memoryview]:
    """The elements of a BYTES tensor."""
    elements, position = [], 0
    while position < len(raw):
        start = position + _LENGTH.size
        if start > len(raw):
            raise InvalidInputError("an element's length is cut off", param="inputs[0].data")
        (size,) = _LENGTH.unpack_from(raw, position)
        position = start + size
        if position > len(raw):
            raise InvalidInputError("an element is longer than the data", param="inputs[0].data")
        elements.append(raw[start:position])
    return elements


def encode(values: npt.NDArray[np.float32] | Sequence[str]) -> bytes:
    """The raw bytes of an output tensor."""
    if isinstance(values, np.ndarray):
        return values.astype("<f4", copy=False).tobytes()
    encoded = [value.encode() for value in values]
    return b"".join(_LENGTH.pack(len(value)) + value for value in encoded)
