"""Which samples each optimizer step sees: a pure function of seed, epoch and step.

Nothing here remembers anything, so to resume is to ask for the next step; and nothing knows how many ranks
there are: they take every n-th sample of a batch that is the same for any n.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

# Batches whose samples are sorted by length together: more saves padding, fewer keeps batches random.
_BUCKET_BATCHES = 16


class Sampler:
    """Batches of one global size; what does not fill a batch is left to the next epoch's other order."""

    def __init__(
        self, size: int, *, batch_size: int, seed: int, lengths: Sequence[int] | None = None
    ) -> None:
        """Plans nothing yet.

        Args:
            size: samples in the data set, at least 1.
            batch_size: samples per optimizer step over all ranks; cut to `size` where that is smaller.
            seed: of the order.
            lengths: tokens of each sample; if given, samples of like length come together.
        """
        self._size = size
        self.batch_size = min(batch_size, size)
        self.steps_per_epoch = size // self.batch_size
        self._seed = seed
        self._lengths = None if lengths is None else np.asarray(lengths, dtype=np.int64)
        self._planned: tuple[int, list[Indices]] | None = None

    def batch(self, epoch: int, step: int) -> Indices:
        """Sample indices of optimizer step `step` (from 0) of `epoch` (from 0), over all ranks."""
        if self._planned is None or self._planned[0] != epoch:
            self._planned = (epoch, self._plan(epoch))
        return self._planned[1][step]

    def _plan(self, epoch: int) -> list[Indices]:
        random = np.random.Generator(np.random.PCG64([self._seed, epoch]))
        order = random.permutation(self._size)[: self.steps_per_epoch * self.batch_size]
        if self._lengths is None:
            return list(order.reshape(-1, self.batch_size))
        batches: list[Indices] = []
        bucket = _BUCKET_BATCHES * self.batch_size
        for start in range(0, len(order), bucket):
            group = order[start : start + bucket]
            # Stable, so that equal lengths keep the random order on every machine.
            group = group[np.argsort(self._lengths[group], kind="stable")]
            batches.extend(group.reshape(-1, self.batch_size))
        return [batches[index] for index in random.permutation(len(batches))]


def shard(indices: Indices, rank: int, world_size: int) -> Indices:
    """The part of a batch that `rank` computes: every `world_size`-th sample, so that sorted lengths spread."""
    return indices[rank::world_size]


def uniform(indices: Indices, *, seed: int, epoch: int, draws: int) -> npt.NDArray[np.float64]:
    """Random numbers that belong to a sample in an epoch, whoever draws them and whenever.

    Returns:
        float64 [len(indices), draws] in [0, 1), by SplitMix64 (Steele, Lea, Flood 2014) over the counters.
    """
    state = _mix(np.array([seed], dtype=np.uint64))
    state = _mix(state ^ np.array([epoch + 1], dtype=np.uint64))
    per_sample = _mix(state ^ indices.astype(np.uint64))
    counters = np.arange(1, draws + 1, dtype=np.uint64)
    bits = _mix(per_sample[:, None] + counters[None, :] * np.uint64(0x9E3779B97F4A7C15))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's output function; arrays of uint64 wrap silently, which is what it wants."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
