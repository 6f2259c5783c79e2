"""How long something takes, again and again: by the wall and by the processor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Times:
    """What was measured, in milliseconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Time what is done inside."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.wall.append(1000 * (time.perf_counter() - wall))
        self.cpu.append(1000 * (time.process_time() - cpu))

    def line(self) -> dict[str, object]:
        """Percentiles, and the first time, which may have more to do."""
        found: dict[str, object] = {"repetitions": len(self.wall)}
        for name, values in (("milliseconds", self.wall), ("cpu_milliseconds", self.cpu)):
            found[f"{name}_first"] = round(values[0], 2)
            found |= {f"{name}_p{p}": round(float(np.percentile(values, p)), 2) for p in (50, 99)}
        return found
