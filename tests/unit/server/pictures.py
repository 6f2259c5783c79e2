"""Image files for requests."""

import base64
import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.unit.server.artifacts import SIDE


def pixels(seed: int, *, side: int = SIDE) -> np.ndarray:
    """Noise whose brightness depends on the seed, so that the model can tell the pictures apart."""
    return np.random.default_rng(seed).integers(0, 1 + 37 * (seed + 1) % 256, (side, side), dtype=np.uint8)


def png(seed: int, *, side: int = SIDE, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, side=side)).save(buffer, kind)
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def bomb(width: int, height: int) -> bytes:
    """A few bytes that claim to be a huge image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )
