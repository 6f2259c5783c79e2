"""The frames between the two processes: 4 + 8 bytes of lengths, a msgpack head, then raw bytes.

Images and tensors travel as the raw bytes they came in, never inside JSON or pickle: nothing a client sends is
ever executed, and a 32 MiB image costs one copy. One batch is under way at a time, so an answer needs no number
to be matched by.
"""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

_LENGTHS = struct.Struct("<IQ")
LENGTHS_BYTES = _LENGTHS.size

InstanceKind = Literal["image", "text", "tensor"]


@dataclass(frozen=True, slots=True)
class Instance:
    """One thing to classify.

    Attributes:
        kind: `image`: the bytes of an image file; `text`: UTF-8; `tensor`: little-endian elements, row-major.
        datatype: Of a tensor: FP32 (the model's own input, already normalized) or UINT8 (pixels, 0 to 255).
        shape: Of a tensor, without the batch dimension.
    """

    kind: InstanceKind
    data: bytes | memoryview
    datatype: str = ""
    shape: tuple[int, ...] = ()


class InstanceHead(msgspec.Struct, array_like=True, frozen=True):
    """An instance less its bytes."""

    kind: InstanceKind
    size: int
    datatype: str
    shape: tuple[int, ...]


class Compute(msgspec.Struct, tag=True, frozen=True):
    """HTTP process to engine: classify these; their bytes follow, one after the other."""

    heads: list[InstanceHead]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the HTTP process needs to know of the model.

    Attributes:
        input_shape: Of one image as the model takes it, [C, H, W]; None for texts.
    """

    task: Literal["ImageClassification", "TextClassification"]
    digest: str
    labels: list[str]
    input_shape: tuple[int, int, int] | None
    device: str
    load_seconds: float


class Loaded(msgspec.Struct, tag=True, frozen=True):
    """Engine to HTTP process: the model is in memory and warm."""

    model: ModelInfo


class LoadFailed(msgspec.Struct, tag=True, frozen=True):
    """Engine to HTTP process: this model can never be served; a sentence for the termination message."""

    message: str


class Problem(msgspec.Struct, array_like=True, frozen=True):
    """Why one instance has no scores."""

    kind: Literal["invalid_input", "too_large", "model_failed"]
    message: str


class Computed(msgspec.Struct, tag=True, frozen=True):
    """Engine to HTTP process: scores follow as little-endian float32 [instances, classes].

    A row with a problem is to be ignored.
    """

    classes: int
    seconds: float
    problems: list[Problem | None]


Answer = Loaded | LoadFailed | Computed

_encoder = msgspec.msgpack.Encoder()
_compute_decoder = msgspec.msgpack.Decoder(Compute)
_answer_decoder = msgspec.msgpack.Decoder(Answer)


def pack(head: Compute | Answer, body: Sequence[bytes | memoryview] = ()) -> list[bytes | memoryview]:
    """The pieces of one frame, to be written in order."""
    encoded = _encoder.encode(head)
    return [_LENGTHS.pack(len(encoded), sum(len(piece) for piece in body)), encoded, *body]


def unpack_lengths(data: bytes) -> tuple[int, int]:
    """Length of the head and length of the body."""
    head, body = _LENGTHS.unpack(data)
    return head, body


def decode_answer(head: bytes) -> Answer:
    """Parse the head of a frame from the engine."""
    answer: Answer = _answer_decoder.decode(head)
    return answer


def compute_head(instances: Sequence[Instance]) -> Compute:
    """The head that announces these instances."""
    return Compute([InstanceHead(i.kind, len(i.data), i.datatype, i.shape) for i in instances])


class BlockingChannel:
    """The engine's end: it does one thing at a time, so blocking reads are all it needs."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def receive(self) -> list[Instance] | None:
        """The next batch, or None when the HTTP process has closed its end."""
        lengths = self._read(LENGTHS_BYTES)
        if lengths is None:
            return None
        head_size, body_size = unpack_lengths(bytes(lengths))
        head, body = self._read(head_size), self._read(body_size)
        if head is None or body is None:
            return None
        instances, start = [], 0
        for item in _compute_decoder.decode(head).heads:
            instances.append(Instance(item.kind, body[start : start + item.size], item.datatype, item.shape))
            start += item.size
        return instances

    def send(self, head: Answer, body: Sequence[bytes | memoryview] = ()) -> None:
        """Write one frame. A BrokenPipeError means the HTTP process is gone."""
        for piece in pack(head, body):
            self._socket.sendall(piece)

    def _read(self, size: int) -> memoryview | None:
        buffer = memoryview(bytearray(size))
        filled = 0
        while filled < size:
            received = self._socket.recv_into(buffer[filled:])
            if received == 0:
                return None
            filled += received
        return buffer
