"""Modelled watts of nodes: two points, idle and busy, for each GPU and each CPU socket.

A GPU with any share in use is busy, a socket with any core in use is busy. It is the model of Lettich et al., "Power-
and Fragmentation-aware Online Scheduling for GPU Datacenters" (2024), so that results compare with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datahall.planning.packing.demand import Floats
from datahall.planning.packing.states import CPU, FREE, KIND, WHOLE, NodeKind, Rows


@dataclass(frozen=True, slots=True)
class WattPoints:
    """What the parts of a node draw.

    Attributes:
        gpu_idle_watts: One GPU of which nothing is in use.
        gpu_busy_watts: One GPU of which something is in use.
        socket_idle_watts: One CPU socket without a busy core.
        socket_busy_watts: One CPU socket with one.
        socket_cpu_milli: CPU thousandths that Kubernetes counts per socket (hyper-threads count).
    """

    gpu_idle_watts: float
    gpu_busy_watts: float
    socket_idle_watts: float
    socket_busy_watts: float
    socket_cpu_milli: int


class WattModel:
    """Watts of nodes by state."""

    def __init__(self, kinds: Sequence[NodeKind], points: Sequence[WattPoints]) -> None:
        """Take in the parts of each kind of node, [kind]."""
        self._cpu = np.array([kind.cpu_milli for kind in kinds])
        self._gpus = np.array([kind.gpus for kind in kinds])
        self._per_socket = np.array([point.socket_cpu_milli for point in points])
        self._sockets = -(-self._cpu // self._per_socket)
        self._gpu_idle = np.array([point.gpu_idle_watts for point in points])
        self._gpu_step = np.array([point.gpu_busy_watts - point.gpu_idle_watts for point in points])
        self._socket_idle = np.array([point.socket_idle_watts for point in points])
        self._socket_step = np.array([point.socket_busy_watts - point.socket_idle_watts for point in points])

    def of(self, rows: Rows) -> Floats:
        """Watts of nodes in the given states, [row]."""
        kind = rows[:, KIND]
        busy_gpus = self._gpus[kind] - (rows[:, FREE:] == WHOLE).sum(axis=1)
        busy_sockets = -(-(self._cpu[kind] - rows[:, CPU]) // self._per_socket[kind])
        watts: Floats = (
            self._gpus[kind] * self._gpu_idle[kind]
            + busy_gpus * self._gpu_step[kind]
            + self._sockets[kind] * self._socket_idle[kind]
            + busy_sockets * self._socket_step[kind]
        )
        return watts

    def gpu_step(self, rows: Rows) -> Floats:
        """Watts that one more busy GPU adds on nodes in the given states, [row]."""
        step: Floats = self._gpu_step[rows[:, KIND]]
        return step
