"""Assume, then commit or roll back: the one way in which gangs take and give back what they hold."""

from __future__ import annotations

from types import TracebackType

from datahall.planning.quota import QuotaBook
from datahall.planning.state import Holder, NodeArrays
from datahall.planning.types import GangRequest, Placement


class Transaction:
    """Changes to nodes and quota that are undone unless committed.

    Used as a context manager: leaving it without `commit` rolls back.
    """

    def __init__(self, nodes: NodeArrays, quota: QuotaBook) -> None:
        self._nodes = nodes
        self._quota = quota
        self._log: list[tuple[int, GangRequest, tuple[Placement, ...]]] = []

    def assume(self, gang: GangRequest, placements: tuple[Placement, ...]) -> None:
        """Account a gang at its places."""
        self._apply(1, gang, placements)
        self._log.append((1, gang, placements))

    def release(self, gang: GangRequest, placements: tuple[Placement, ...]) -> None:
        """Give back what a gang holds."""
        self._apply(-1, gang, placements)
        self._log.append((-1, gang, placements))

    def commit(self) -> None:
        """Keep all changes made so far."""
        self._log.clear()

    def rollback(self) -> None:
        """Undo all changes since the last commit."""
        while self._log:
            sign, gang, placements = self._log.pop()
            self._apply(-sign, gang, placements)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rollback()

    def _apply(self, sign: int, gang: GangRequest, placements: tuple[Placement, ...]) -> None:
        amounts = (sign * gang.gpus, sign * gang.cpu_milli, sign * gang.memory_bytes)
        gpus_by_model: dict[str, int] = {}
        for placement in placements:
            self._nodes.use(placement.node, Holder.GANGS, amounts, sign)
            gpus_by_model[placement.gpu_model] = gpus_by_model.get(placement.gpu_model, 0) + gang.gpus
        if gang.gpus:
            for model, gpus in gpus_by_model.items():
                self._quota.charge(gang.queue, model, Holder.GANGS, sign * gpus, sign)
