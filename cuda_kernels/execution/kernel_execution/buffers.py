"""What a launcher gets for its pointers: arrays, with who may do what to them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    Array = torch.Tensor | NDArray[np.generic]
else:
    Array = object


@dataclass(frozen=True)
class Input:
    """Only read: a write to it is an error."""

    name: str
    array: Array
    misaligned_by: int = 0
    """Bytes beyond a multiple of 256 that it starts at."""


@dataclass(frozen=True)
class Output:
    """Written to the last byte, whatever was in it before."""

    name: str
    array: Array
    misaligned_by: int = 0
    is_complete: bool = True
    """Whether a byte that no kernel wrote is an error."""


@dataclass(frozen=True)
class InOut:
    """Read and written."""

    name: str
    array: Array
    misaligned_by: int = 0


@dataclass(frozen=True)
class Scratch:
    """Workspace without meaning before and after; a read of what no kernel wrote is an error."""

    name: str
    bytes: int
    element_bytes: int = 4
    misaligned_by: int = 0


Buffer = Input | Output | InOut | Scratch


@dataclass(frozen=True)
class Table:
    """An array of structs of 8-byte members, only read: pointers to buffers, null pointers (None), and numbers."""

    name: str
    rows: Sequence[Sequence[Buffer | int | None]]

    @property
    def buffers(self) -> list[Buffer]:
        """What it points to, in order."""
        return [cell for row in self.rows for cell in row if isinstance(cell, Buffer)]

    def filled(self, addresses: Sequence[int]) -> Input:
        """The table itself, with the addresses of `buffers`."""
        left = iter(addresses)
        cells = [[next(left) if isinstance(cell, Buffer) else cell or 0 for cell in row] for row in self.rows]
        return Input(self.name, np.array(cells, np.int64))


@dataclass(frozen=True)
class Span:
    """Where an array lies: rows of bytes, one after the other or with gaps between them."""

    address: int
    element_bytes: int
    rows: int
    row_bytes: int
    row_stride: int

    @property
    def bytes(self) -> int:
        """From the first byte to the last."""
        return (self.rows - 1) * self.row_stride + self.row_bytes if self.rows and self.row_bytes else 0

    @property
    def has_gaps(self) -> bool:
        """Whether bytes between the rows are not the array's."""
        return self.rows > 1 and self.row_stride != self.row_bytes

    def copy_to(self, to: int) -> None:
        """Copies the rows to the same layout at another address."""
        for start in self._pieces():
            ctypes.memmove(to + start, self.address + start, self.row_bytes if self.has_gaps else self.bytes)

    def copy_from(self, source: int) -> None:
        """Copies the rows from the same layout at another address."""
        for start in self._pieces():
            ctypes.memmove(
                self.address + start, source + start, self.row_bytes if self.has_gaps else self.bytes
            )

    def _pieces(self) -> Iterator[int]:
        if self.bytes:
            yield from range(0, self.rows * self.row_stride, self.row_stride) if self.has_gaps else (0,)


def span_of(name: str, array: Array) -> Span:
    """Where an array's bytes lie.

    Raises:
        ValueError: It is not on the CPU, or its elements are neither dense nor rows at even distances.
    """
    if isinstance(array, np.ndarray):
        address, element = array.ctypes.data, array.itemsize
        shape, strides = array.shape, array.strides
    else:
        if array.device.type != "cpu":
            raise ValueError(f"{name}: is on {array.device}; kernels run here on arrays in the CPU's memory")
        address, element = array.data_ptr(), array.element_size()
        shape, strides = tuple(array.shape), tuple(stride * element for stride in array.stride())
    if 0 in shape:
        return Span(address, element, 0, 0, 0)
    # From the last dimension on: first those that are dense, then those that are steps of one distance.
    dimensions = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size > 1]
    row_bytes = element
    while dimensions and dimensions[-1][1] == row_bytes:
        row_bytes *= dimensions.pop()[0]
    rows, row_stride = 1, row_bytes
    if dimensions:
        size, row_stride = dimensions.pop()
        rows = size
        while dimensions and dimensions[-1][1] == rows * row_stride:
            rows *= dimensions.pop()[0]
    if dimensions or row_stride < row_bytes:
        raise ValueError(
            f"{name}: strides {strides} of shape {shape} are neither dense nor rows at even distances"
        )
    return Span(address, element, rows, row_bytes, row_stride)
