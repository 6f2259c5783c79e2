"""How long a call takes on a GPU: by events around many calls, with a cold L2 cache, providers in turn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import torch

from kernel_bench.cases import Call

SAMPLES = 60
WARM_UP_CALLS = 5
SAMPLE_SECONDS = 0.0002
MOST_CALLS = 50
COPY_BYTES = 1 << 30
GEMM_SIZE = 8192


class Clock:
    """Times calls on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Twice any L2 cache of today.
        self._flush = torch.empty(256 << 20, dtype=torch.int8, device=device)

    def medians(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """Seconds of one call, by provider: medians over samples that are taken in turn."""
        repeats = {}
        for name, call in calls.items():
            for _ in range(WARM_UP_CALLS):
                call()
            once = self._sample(call, 1)
            repeats[name] = max(1, min(MOST_CALLS, int(SAMPLE_SECONDS / max(once, 1e-7))))
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(SAMPLES):
            for name, call in calls.items():
                found[name].append(self._sample(call, repeats[name]))
        return {name: statistics.median(samples) for name, samples in found.items()}

    def _sample(self, call: Call, repeats: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._flush.zero_()
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        seconds: float = start.elapsed_time(end) / 1000
        return seconds / repeats

    def peak_bytes(self, call: Call) -> int:
        """Memory that a call takes beyond what is there before it."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        call()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before

    def copy_bytes_per_second(self) -> float:
        """Read and written by a copy, which is what no kernel that reads and writes can exceed."""
        one = torch.empty(COPY_BYTES, dtype=torch.int8, device=self._device)
        other = torch.empty_like(one)
        return 2 * COPY_BYTES / self.medians({"copy": lambda: other.copy_(one)})["copy"]

    def gemm_flops_per_second(self) -> float:
        """Of a large product in bfloat16."""
        one, other = (
            torch.randn(GEMM_SIZE, GEMM_SIZE, dtype=torch.bfloat16, device=self._device) for _ in range(2)
        )
        return 2 * GEMM_SIZE**3 / self.medians({"gemm": lambda: one @ other})["gemm"]
