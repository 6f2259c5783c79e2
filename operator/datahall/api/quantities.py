"""Kubernetes quantities ("500m", "2Gi", 4) as integers: CPU in thousandths of a core, memory in bytes.

Rounded up, as the scheduler does: a request is never understated by its conversion. Answers are kept: a hall uses the
same few quantities over and over, and exact fractions are slow.
"""

import re
from fractions import Fraction
from functools import lru_cache
from math import ceil

_SUFFIXES: dict[str, Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{suffix: Fraction(1000 ** (power + 1)) for power, suffix in enumerate("kMGTPE")},
    **{f"{suffix}i": Fraction(1024 ** (power + 1)) for power, suffix in enumerate("KMGTPE")},
}
_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,2})|([KMGTPE]i|[numkMGTPE]?))"
)


def parse_quantity(quantity: str | int) -> Fraction:
    """The exact value of a quantity, in its base unit (cores, bytes, pieces).

    Raises:
        ValueError: it is not a quantity.
    """
    if isinstance(quantity, int):
        return Fraction(quantity)
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity such as 500m, 2 or 16Gi")
    number, exponent, suffix = match.groups()
    scale = Fraction(10) ** int(exponent) if exponent else _SUFFIXES[suffix or ""]
    return Fraction(number) * scale


@lru_cache(maxsize=4096)
def cpu_milli(quantity: str | int) -> int:
    """A CPU quantity in thousandths of a core: `"1500m"` and `"1.5"` are 1500."""
    return ceil(parse_quantity(quantity) * 1000)


@lru_cache(maxsize=4096)
def memory_bytes(quantity: str | int) -> int:
    """A memory quantity in bytes: `"2Gi"` is 2147483648."""
    return ceil(parse_quantity(quantity))
