"""Conversions have the bits that torch's have (and CUDA's, for NaN); bit operations are those of their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kernel_execution import Input, Library, Output

NAN = {"bfloat16": 0x7FFF, "float16": 0x7FFF, "float8": 0x7F}
TORCH = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float8": torch.float8_e4m3fn}
WORD = {"bfloat16": torch.int16, "float16": torch.int16, "float8": torch.uint8}


def floats() -> NDArray[np.float32]:
    """Every sign and exponent, with mantissas around each tie that a narrower format has, and many at random."""
    rng = np.random.default_rng(0)
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    ties = [high | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]
    narrow = np.arange(1 << 12, dtype=np.uint32) << 20
    ties += [narrow | low for low in (0x7FFFF, 0x80000, 0x80001, 0xFFFFF)]
    half = np.arange(1 << 19, dtype=np.uint32) << 13
    ties += [half | low for low in (0xFFF, 0x1000, 0x1001)]
    random = rng.integers(0, 1 << 32, 300_000, dtype=np.uint32)
    return np.concatenate([*ties, random]).view(np.float32)


def convert(library: Library, name: str, x: NDArray, dtype: type) -> NDArray:
    y = np.empty(x.shape, dtype)
    library.check(name, Input("x", x), Output("y", y), x.size)
    return y


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_narrowing_rounds_as_torch_does(conversions: Library, name: str) -> None:
    x = floats()
    y = convert(conversions, f"float_to_{name}", x, np.uint16)
    expected = torch.from_numpy(x).to(TORCH[name]).view(WORD[name]).numpy().view(np.uint16)
    is_nan = np.isnan(x)
    assert np.array_equal(y[~is_nan], expected[~is_nan])
    assert (y[is_nan] == NAN[name]).all()


def test_narrowing_to_float8_saturates(conversions: Library) -> None:
    x = floats()
    y = convert(conversions, "float_to_float8", x, np.uint8)
    clamped = torch.from_numpy(x).clamp(-448, 448)
    expected = clamped.to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    is_nan = np.isnan(x)
    assert np.array_equal(y[~is_nan], expected[~is_nan])
    assert (y[is_nan] == NAN["float8"]).all()


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float8"])
def test_widening_is_exact_for_every_pattern(conversions: Library, name: str) -> None:
    word = np.uint8 if name == "float8" else np.uint16
    x = np.arange(np.iinfo(word).max + 1).astype(word)
    y = convert(conversions, f"{name}_to_float", x, np.uint32).view(np.float32)
    signed = x if name == "float8" else x.view(np.int16)
    expected = torch.from_numpy(signed).view(TORCH[name]).float().numpy()
    is_nan = np.isnan(expected)
    assert np.array_equal(y[~is_nan].view(np.uint32), expected[~is_nan].view(np.uint32))
    # bfloat16 is the upper half of a float, with its NaN; of the others, all become one.
    nans = x[is_nan].astype(np.uint32) << 16 if name == "bfloat16" else 0x7FFFFFFF
    assert (y[is_nan].view(np.uint32) == nans).all()


def test_bit_operations(conversions: Library) -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([[0, 1, 2**31, 2**32 - 1], rng.integers(0, 1 << 32, 500)]).astype(np.uint32)
    values = [int(value) for value in x]

    def permuted(value: int) -> int:
        eight = [*value.to_bytes(4, "little"), *(value ^ 0xFFFFFFFF).to_bytes(4, "little")]
        # The selector 0x7b20 from its lowest digit on: bytes 0, 2, the sign of 3, 7.
        return int.from_bytes([eight[0], eight[2], 0xFF if eight[3] & 0x80 else 0, eight[7]], "little")

    def bytes_of(value: int) -> list[int]:
        return [int(byte) for byte in np.array([value], np.uint32).view(np.int8)]

    dots = [5 + sum(a * b for a, b in zip(bytes_of(v), bytes_of(0x7F80FF01), strict=True)) for v in values]
    expected = {
        "permuted_bytes": [permuted(v) for v in values],
        "reversed_bits": [int(f"{v:032b}"[::-1], 2) for v in values],
        "leading_zeros": [32 - v.bit_length() for v in values],
        "first_bit": [(v & -v).bit_length() for v in values],
        "high_product": [v * 0xDEADBEEF >> 32 for v in values],
        "dot_of_bytes": dots,
    }
    for name, wanted in expected.items():
        dtype = np.int32 if name in {"dot_of_bytes", "leading_zeros", "first_bit"} else np.uint32
        assert convert(conversions, name, x, dtype).tolist() == wanted, name
