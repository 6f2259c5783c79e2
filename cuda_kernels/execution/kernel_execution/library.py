"""A library of kernels, and calls of its launchers."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TypeAlias

from .buffers import Buffer, InOut, Input, Output, Scratch, Span, Table, span_of
from .findings import Finding, Kind, parse

# The runtime has one launch at a time, and its buffers are one call's.
_LOCK = threading.Lock()
_LAUNCH_FAILURE = 719

Argument: TypeAlias = "Buffer | Table | ctypes._SimpleCData[object] | float | None"


class KernelError(Exception):
    """A launcher refused its arguments, or its kernels did what they must not. Has all findings."""


class Order(IntEnum):
    """In which order blocks, and the threads of a block, get their turns: what is right is so in any."""

    FORWARD = 0
    REVERSE = 1
    SHUFFLED = 2


@dataclass(frozen=True)
class Outcome:
    """What came of a call."""

    code: int
    """What the launcher returned: a cudaError_t. 719 (launch failure) where there are findings."""
    findings: tuple[Finding, ...]

    def kinds(self) -> set[Kind]:
        """The kinds of error that there were."""
        return {finding.kind for finding in self.findings}


@dataclass(frozen=True)
class _Placed:
    buffer: Buffer
    span: Span
    address: int


class Library:
    """Launchers of a library that `build` made."""

    def __init__(self, path: Path) -> None:
        """Loads the library at `path`."""
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._buffer = self._library.datahall_cpu_buffer
        self._buffer.restype = ctypes.c_void_p
        size = ctypes.c_size_t
        self._buffer.argtypes = [
            ctypes.c_char_p,
            size,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_int,
            size,
            size,
            size,
        ]
        self._findings = self._library.datahall_cpu_findings
        self._findings.restype = size
        self._findings.argtypes = [ctypes.c_char_p, size]
        self._first_unwritten = self._library.datahall_cpu_first_unwritten
        self._first_unwritten.restype = ctypes.c_longlong
        self._first_unwritten.argtypes = [ctypes.c_void_p]
        self._settings = self._library.datahall_cpu_settings
        self._settings.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_longlong]
        self._settings.restype = None

    def release(self) -> None:
        """Gives back what it keeps between calls: for who has many libraries, one after the other."""
        with _LOCK:
            self._library.datahall_cpu_release()

    def check(
        self,
        function: str,
        *arguments: Argument,
        order: Order = Order.FORWARD,
        seed: int = 0,
    ) -> None:
        """Calls a launcher as `run` does; all has to be right.

        Raises:
            KernelError: It returned an error, or there are findings.
        """
        outcome = self.run(function, *arguments, order=order, seed=seed)
        if outcome.findings or outcome.code != 0:
            lines = [f"{function} returned {outcome.code}", *(str(finding) for finding in outcome.findings)]
            raise KernelError("\n".join(lines))

    def run(
        self,
        function: str,
        *arguments: Argument,
        order: Order = Order.FORWARD,
        seed: int = 0,
        most_accesses: int = 0,
        most_idle_milliseconds: int = 10_000,
    ) -> Outcome:
        """Calls a launcher. Outputs are written into their arrays, unless there were findings.

        Args:
            function: The plain-C launcher's name.
            arguments: Buffers for pointers, and tables of them; the same one twice for two pointers to one place.
                None for a null pointer; an int goes as `long long` (or what is narrower), a float as `float`, and
                anything else as the ctypes value that says so.
            order: Whose turn it is, of blocks and threads.
            seed: Of Order.SHUFFLED.
            most_accesses: After so many a launch is taken to be endless; 0: some billions.
            most_idle_milliseconds: As is one that neither touches memory nor waits for so long, of its own time.
        """
        with _LOCK:
            self._library.datahall_cpu_reset()
            self._settings(int(order), seed, most_accesses, most_idle_milliseconds)
            # By identity: a buffer that is given twice is one piece of memory.
            places: dict[int, _Placed] = {}
            try:
                code = self._call(function, arguments, places)
                findings = [*parse(self._report(), self.path), *self._unwritten(places.values(), code)]
                if findings and code == 0:
                    code = _LAUNCH_FAILURE  # some are known to be any only now that they have lines
                if not findings:
                    for place in places.values():
                        if isinstance(place.buffer, Output | InOut):
                            place.span.copy_from(place.address)
            finally:
                self._library.datahall_cpu_reset()
        return Outcome(code, tuple(findings))

    def _call(self, function: str, arguments: Sequence[Argument], places: dict[int, _Placed]) -> int:
        launcher = getattr(self._library, function)
        launcher.restype = ctypes.c_int
        values: list[object] = []
        for argument in arguments:
            if isinstance(argument, Table):
                filled = argument.filled([self._address(buffer, places) for buffer in argument.buffers])
                values.append(ctypes.c_void_p(self._address(filled, places)))
            elif isinstance(argument, Buffer):
                values.append(ctypes.c_void_p(self._address(argument, places)))
            elif argument is None:
                values.append(ctypes.c_void_p(None))
            elif isinstance(argument, int):
                values.append(ctypes.c_longlong(argument))
            elif isinstance(argument, float):
                values.append(ctypes.c_float(argument))
            else:
                values.append(argument)
        return int(launcher(*values))

    def _address(self, buffer: Buffer, places: dict[int, _Placed]) -> int:
        if id(buffer) not in places:
            places[id(buffer)] = self._place(buffer)
        return places[id(buffer)].address

    def _place(self, buffer: Buffer) -> _Placed:
        if isinstance(buffer, Scratch):
            span = Span(0, buffer.element_bytes, 1, buffer.bytes, buffer.bytes)
        else:
            span = span_of(buffer.name, buffer.array)
        is_read = isinstance(buffer, Input | InOut)
        address = self._buffer(
            buffer.name.encode(),
            span.bytes,
            span.element_bytes,
            not isinstance(buffer, Input),
            is_read,
            buffer.misaligned_by,
            span.row_bytes if span.has_gaps else 0,
            span.row_stride if span.has_gaps else 0,
        )
        if address is None:
            raise MemoryError(
                f"{buffer.name}: no room for {span.bytes} bytes beside the other buffers of the call"
            )
        if is_read:
            span.copy_to(address)
        return _Placed(buffer, span, address)

    def _report(self) -> str:
        room = self._findings(None, 0)
        text = ctypes.create_string_buffer(room)
        self._findings(text, room)
        return text.value.decode()

    def _unwritten(self, placed: Iterable[_Placed], code: int) -> list[Finding]:
        found = []
        for place in placed:
            if (
                code == 0
                and isinstance(place.buffer, Output)
                and place.buffer.is_complete
                and place.span.bytes
            ):
                first = self._first_unwritten(place.address)
                if first >= 0:
                    text = (
                        f"nobody has written {place.buffer.name} + {first} (it has {place.span.bytes} bytes)"
                    )
                    found.append(Finding(Kind.UNWRITTEN, 1, "", "", text))
        return found
