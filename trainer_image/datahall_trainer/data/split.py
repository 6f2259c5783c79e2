"""Holding out part of a data set, and naming classes in an order that does not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from datahall_trainer.data.sampler import Indices
from datahall_trainer.errors import BadInput

# Keeps the split's random numbers apart from those of the order of training under the same seed.
_SPLIT_STREAM = 0x5917


def stratified(labels: Sequence[int], *, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Splits a data set so that every class gives its share.

    Args:
        labels: class index of each sample.
        fraction: part to hold out; the total is rounded to whole samples and dealt by largest remainder.
        seed: of the choice.

    Returns:
        Indices to train on and indices held out, each ascending.

    Raises:
        BadInput: one of the two would be empty.
    """
    array = np.asarray(labels, dtype=np.int64)
    total = round(len(array) * fraction)
    if not 0 < total < len(array):
        raise BadInput(f"data.validationFraction: {fraction} of {len(array)} samples leaves one side empty")
    members = [np.flatnonzero(array == label) for label in range(int(array.max()) + 1)]
    shares = [len(indices) * fraction for indices in members]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(members)), key=lambda i: (counts[i] - shares[i], i))
    for index in by_remainder[: max(0, total - sum(counts))]:
        counts[index] += 1
    held_out = np.zeros(len(array), dtype=bool)
    for label, (indices, count) in enumerate(zip(members, counts, strict=True)):
        random = np.random.Generator(np.random.PCG64([seed, _SPLIT_STREAM, label]))
        held_out[random.permutation(indices)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def ordered_classes(names: Iterable[str]) -> list[str]:
    """Distinct class names: numerically if all are whole numbers, else by code point."""
    distinct = sorted(set(names))
    if all(name.isascii() and name.isdigit() for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return distinct
