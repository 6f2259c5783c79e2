"""What a queue is granted, and which rules its resources follow.

A resource is a string that the caller names, and its amounts are integers in a unit that the caller chooses. Two
kinds, told apart by the name alone, so that a new resource needs no code:

* `family:member`, such as `gpu:H100`, is *granted*: a queue may use what it, its parents or its neighbours have quota
  for, and nothing else. The member `Any` stands for every member without an entry of its own (see `node.QueueNode`).
* A plain name, such as `watts` or `joules_per_day`, is a *budget*: it limits the queues that name it and what is
  beneath them; where no queue on the way up names it, there is no limit.

GPUs are counted whole in `gpu:MODEL`, in thousandths in `gpu_milli:MODEL`; a tree uses one of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from datahall.planning.types import ANY_MODEL, Limits

WATTS = "watts"
"""Power that is reserved, in watts."""
JOULES_PER_DAY = "joules_per_day"
"""Energy drawn in the last 24 hours, in joules: spent, and room again only as it ages (see `rolling`)."""

Amounts = Mapping[str, int]
"""Resource to amount."""


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A node of the quota tree.

    Attributes:
        name: The queue's name.
        parent: The queue it borrows from and lends to; "" for a root.
        weight: Its part of what is contended, relative to its neighbours; greater than 0.
        limits: Limits per resource.
        namespaces: Namespaces that may use the queue; empty means every namespace.

    Raises:
        ValueError: A number is out of its bounds.
    """

    name: str
    parent: str = ""
    weight: float = 1.0
    limits: Mapping[str, Limits] = field(default_factory=dict)
    namespaces: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: a queue must have one")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"queue {self.name}: weight is {self.weight}; it must be greater than 0")
        for resource, limits in self.limits.items():
            for what in ("nominal", "borrowing_limit", "lending_limit"):
                amount = getattr(limits, what)
                if amount is not None and amount < 0:
                    raise ValueError(
                        f"queue {self.name}: {what} of {resource} is {amount}; it must be 0 or more"
                    )


@lru_cache(maxsize=1024)
def family(resource: str) -> str:
    """The family of a granted resource ("gpu" of "gpu:H100"); "" for a budget."""
    return resource.partition(":")[0] if ":" in resource else ""


def any_member(of_family: str) -> str:
    """The entry that stands for every member of a family without an entry of its own."""
    return f"{of_family}:{ANY_MODEL}"


def gpus(resource: str, amount: int) -> float:
    """How many GPUs an amount of a resource is; 0 for resources that are not GPUs."""
    of = family(resource)
    return amount if of == "gpu" else amount / 1000 if of == "gpu_milli" else 0.0
