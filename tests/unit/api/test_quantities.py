from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahall.api.quantities import cpu_milli, memory_bytes, parse_quantity


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("500m", 500),
        ("1", 1000),
        (2, 2000),
        ("1.5", 1500),
        ("0.0001", 1),
        ("100u", 1),
        ("1n", 1),
        ("2e1", 20_000),
        ("1k", 1_000_000),
    ],
)
def test_cpu_is_rounded_up_to_thousandths(text, milli):
    assert cpu_milli(text) == milli


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2Gi", 2 * 1024**3),
        ("16384Ki", 16 * 1024**2),
        ("1G", 10**9),
        ("1.5Mi", 1572864),
        ("128974848", 128974848),
        ("1E", 10**18),
        ("1Ei", 1024**6),
        ("1e3", 1000),
        ("1E3", 1000),
        ("100m", 1),
        (7, 7),
    ],
)
def test_memory_is_in_bytes(text, size):
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "1GB", "1 Gi", "lots", "1..5", "0x10", "1e", "\u0661"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


@given(
    st.integers(min_value=0, max_value=10**9),
    st.sampled_from(["", "m", "k", "Ki", "M", "Mi", "G", "Gi", "Ti", "Pi"]),
)
def test_a_number_with_suffix_is_the_number_times_the_suffix(number, suffix):
    assert parse_quantity(f"{number}{suffix}") == number * parse_quantity(f"1{suffix}")


@given(st.integers(min_value=1, max_value=10**12))
def test_thousandths_survive(milli):
    assert parse_quantity(f"{milli}m") == Fraction(milli, 1000)
    assert cpu_milli(f"{milli}m") == milli
