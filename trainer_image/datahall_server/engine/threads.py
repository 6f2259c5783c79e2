"""How many threads the engine may use: what the container's CPU limit allows, not what the node has.

torch asks the kernel for the number of cores and gets the node's. In a pod limited to 2 of 96 cores it would
start 96 threads, be throttled by the cgroup, and answer ten times slower.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

THREADS_VARIABLE = "DATAHALL_THREADS"


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that the cgroup allows (v2, else v1); None when there is no limit or no cgroup to read."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def engine_threads(environment: Mapping[str, str] = os.environ, root: Path = Path("/sys/fs/cgroup")) -> int:
    """`DATAHALL_THREADS` if set, else the CPU limit rounded up, else the cores this process may run on."""
    if (text := environment.get(THREADS_VARIABLE, "")).isdigit() and int(text) > 0:
        return int(text)
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def engine_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of the engine process: ours, with OpenMP told how many threads and not to spin between batches.

    Spinning threads would take from the HTTP process, in the same CPU limit, the time it needs to gather the next
    batch.
    """
    threads = str(engine_threads(environment))
    defaults = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    return {**defaults, **environment, THREADS_VARIABLE: threads}
