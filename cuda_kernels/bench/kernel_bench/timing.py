"""How long a call takes on a GPU: by events around it, with a cold L2 cache, providers in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch

from kernel_bench.cases import Call

SAMPLES = 60
WARM_UP_CALLS = 5
MOST_CYCLES_A_SECOND = 2e9
LEAST_HEAD_START, MOST_HEAD_START = 0.0001, 0.05
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
        head_starts = {name: self._head_start(call) for name, call in calls.items()}
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(SAMPLES):
            for name, call in calls.items():
                found[name].append(self._sample(call, head_starts[name]))
        return {name: statistics.median(samples) for name, samples in found.items()}

    def _head_start(self, call: Call) -> float:
        """Seconds that the GPU is to be kept busy with while the host says what the call is made of.

        Else small kernels would be timed by what Python takes to launch them, 10 us and more each.
        """
        for _ in range(WARM_UP_CALLS):
            call()
        torch.cuda.synchronize(self._device)
        before = time.perf_counter()
        call()
        return min(max(2 * (time.perf_counter() - before), LEAST_HEAD_START), MOST_HEAD_START)

    def _sample(self, call: Call, head_start: float) -> float:
        # One call, and not the mean of many: the second would find in L2 what the first has read.
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda._sleep(int(head_start * MOST_CYCLES_A_SECOND))  # type: ignore[no-untyped-call]
        self._flush.zero_()
        start.record()
        call()
        end.record()
        end.synchronize()
        seconds: float = start.elapsed_time(end) / 1000
        return seconds

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
