"""Who this rank is in the gang. Without PyTorch: whoever only starts ranks must not wait for it to load."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from datahall_trainer.errors import BadInput


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where this process stands in the gang; torchrun's `PET_*` variables say it."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    master_address: str
    master_port: int
    generation: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Place:
        """Reads it.

        Raises:
            BadInput: a variable is no number or contradicts another.
        """

        def number(name: str, default: int) -> int:
            text = environment.get(name, str(default))
            if not text.isdecimal():
                raise BadInput(f"{name} must be a whole number, is {text!r}")
            return int(text)

        nodes, node = number("PET_NNODES", 1), number("PET_NODE_RANK", 0)
        local_world_size, local_rank = number("PET_NPROC_PER_NODE", 1), number("DATAHALL_LOCAL_RANK", 0)
        if nodes < 1 or local_world_size < 1 or node >= nodes or local_rank >= local_world_size:
            raise BadInput(
                f"PET_NODE_RANK {node} of PET_NNODES {nodes}, local rank {local_rank} of "
                f"PET_NPROC_PER_NODE {local_world_size}: no such place in the gang"
            )
        return cls(
            rank=node * local_world_size + local_rank,
            world_size=nodes * local_world_size,
            local_rank=local_rank,
            local_world_size=local_world_size,
            master_address=environment.get("PET_MASTER_ADDR", "127.0.0.1"),
            master_port=number("PET_MASTER_PORT", 29500),
            generation=number("DATAHALL_GENERATION", 1),
        )


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
