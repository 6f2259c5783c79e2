"""`datahall moves`: which jobs would move, from where to where, for whom. Pure: plans and a time become text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from datahall.api.trainingjob_status import Move
from datahall.cli.table import table
from datahall.cli.words import NOTHING, clock
from datahall.sdk import PlannedMoves

MOVES_COLUMNS = ("FOR", "NEEDS", "MOVES", "FROM", "TO", "GPU-SECONDS", "DUE")
MOVE_COLUMNS = ("JOB", "FROM", "TO", "GPU-SECONDS")


def moves_page(plans: Sequence[PlannedMoves], at: datetime, *, headers: bool = True) -> str:
    """A row for each job that would move, so that the column of GPU-seconds adds up."""
    rows = []
    for plan in plans:
        times = f"{plan.workers} x " if plan.workers > 1 else ""
        needs = f"{times}{plan.gpus} GPU{'' if plan.gpus == 1 else 's'}"
        due = clock(plan.due, at)
        rows += [(f"{plan.namespace}/{plan.name}", needs, *move_cells(move), due) for move in plan.jobs]
    return table(MOVES_COLUMNS, rows, headers=headers)


def move_cells(move: Move) -> tuple[str, ...]:
    """The cells of `MOVE_COLUMNS`."""
    return (
        move.job,
        ",".join(move.from_nodes) or NOTHING,
        ",".join(move.to_nodes) or NOTHING,
        str(move.gpu_seconds),
    )
