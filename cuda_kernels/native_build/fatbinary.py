"""Which architectures a built library has code for, read out of the ELF file itself.

The container's layout is not documented; it was read from files that nvcc 13.0 makes and compared with cuobjdump, which
CUDA 13.0 does not have as a package. A container that looks otherwise is an error, not an empty list.
"""

from __future__ import annotations

import struct
from pathlib import Path

_MAGIC = struct.pack("<I", 0xBA55ED50)
_CONTAINER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes that follow
_ENTRY = struct.Struct("<HHIQ")  # kind, version, bytes of this header, bytes of code
_ARCHITECTURE_AT, _FLAGS_AT = 0x1C, 0x28
_PTX, _CUBIN = 1, 2
_ARCHITECTURE_SPECIFIC, _FAMILY_SPECIFIC = 1 << 20, 1 << 21


def architectures(library: Path) -> tuple[str, ...]:
    """Such as ("compute_90", "sm_80", "sm_90a"): machine code as sm_*, PTX as compute_*.

    Raises:
        ValueError: the file has no such code, or in a form that is not known here.
    """
    data = library.read_bytes()
    found: set[str] = set()
    at = data.find(_MAGIC)
    while at >= 0:
        _, version, header_bytes, size = _CONTAINER.unpack_from(data, at)
        start, end = at + header_bytes, at + header_bytes + size
        if version != 1 or end > len(data):
            raise ValueError(
                f"{library}: a container of code of version {version}, {size} bytes, is not known"
            )
        while start < end:
            kind, _, entry_bytes, code_bytes = _ENTRY.unpack_from(data, start)
            if kind not in (_PTX, _CUBIN) or entry_bytes < _FLAGS_AT + 8:
                raise ValueError(
                    f"{library}: code of kind {kind} with a header of {entry_bytes} bytes is not known"
                )
            (number,) = struct.unpack_from("<I", data, start + _ARCHITECTURE_AT)
            (flags,) = struct.unpack_from("<Q", data, start + _FLAGS_AT)
            suffix = "a" if flags & _ARCHITECTURE_SPECIFIC else "f" if flags & _FAMILY_SPECIFIC else ""
            found.add(f"{'sm' if kind == _CUBIN else 'compute'}_{number}{suffix}")
            start += entry_bytes + code_bytes
        at = data.find(_MAGIC, end)
    if not found:
        raise ValueError(f"{library}: no CUDA code in it")
    return tuple(sorted(found))
