"""`datahall queue`: the quota tree as a table, and one queue on a page. Pure: standings and a time become text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from datahall.cli.story import line_section, standing_of, use_of
from datahall.cli.table import entry, section, table
from datahall.cli.words import NOTHING, duration, lines_of, quantity
from datahall.sdk import ModelUse, QueueLine, QueueStanding

TREE_COLUMNS = (
    *(
        "NAME",
        "MODEL",
        "USED/NOMINAL",
        "BORROWED",
        "AVAILABLE",
        "SHARE",
        "WATTS",
        "RUNNING",
        "WAITING",
        "TURN",
    ),
)
_LINE_SHOWN = 50


def tree_page(queues: Sequence[QueueStanding], *, headers: bool = True) -> str:
    """The tree, a row for each entry of a quota, and what is wrong below it.

    Figures of a whole queue stand in its first row alone, so that a column adds up.
    """
    rows: list[tuple[str, ...]] = []
    for queue in queues:
        name = "  " * queue.depth + queue.name
        whole = (
            queue.share if queue.share is not None else NOTHING,
            _watts_cell(queue),
            str(queue.running),
            str(queue.waiting),
            str(queue.turn) or NOTHING,
        )
        first, *others = [_use_cells(use) for use in queue.gpus] or [(NOTHING,) * 4]
        rows.append((name, *first, *whole))
        rows += [(name, *cells, *(NOTHING,) * len(whole)) for cells in others]
    lines = [table(TREE_COLUMNS, rows, headers=headers)]
    wrong = [(queue.name, queue.reason, lines_of(queue.trouble)) for queue in queues if queue.reason]
    lines += section("Problems", ("NAME", "REASON", "MESSAGE"), wrong)
    return "\n".join(lines)


def line_page(told: QueueLine, at: datetime) -> str:
    """One queue: quota, use, place in the tree, and who waits in it, the next first."""
    queue = told.queue
    lines = [f"Queue {queue.name}" + (f", beneath {' > '.join(told.path)}" if told.path else "")]
    lines += entry("Problem", f"{queue.reason}: {lines_of(queue.trouble)}" if queue.reason else "")
    if queue.stale:
        lines += entry(
            "Note", "its spec has changed since the operator last looked: use is told of the one before"
        )
    lines += entry("GPUs", *(_use_with_limits(use) for use in queue.gpus))
    if not queue.gpus:
        lines += entry("GPUs", "none of its own: it uses what the queues above it have")
    watts, joules = queue.watts, queue.joules
    power = _budget(
        watts.reserved if watts else None, queue.nominal_watts, watts.available if watts else None, unit="W"
    )
    energy = _budget(
        joules.last_day if joules else None,
        queue.nominal_joules_per_day,
        joules.available if joules else None,
        unit="J",
    )
    lines += entry("Watts", power)
    lines += entry("Energy", f"{energy}, in 24 h" if energy else "")
    lines += entry("Work", standing_of(queue))
    lines += entry("Beneath", ", ".join(told.beneath))
    lines += entry("Namespaces", ", ".join(told.namespaces) or "all")
    lines += entry(
        "Minimum run", f"{duration(told.minimum_run_seconds)}, before a job may be ended for others"
    )
    lines += line_section("Waiting", told.line, at, most=_LINE_SHOWN)
    if not told.complete:
        lines += ["", "Not told: jobs of other namespaces; you may not read them."]
    return "\n".join(lines)


def _use_cells(use: ModelUse) -> tuple[str, ...]:
    return (
        use.model,
        f"{use.used}/{use.nominal}",
        str(use.borrowed),
        NOTHING if use.available is None else str(use.available),
    )


def _use_with_limits(use: ModelUse) -> str:
    text = use_of(use)
    if use.borrowing_limit is not None:
        text += f", may borrow {use.borrowing_limit}"
    if use.lending_limit is not None:
        text += f", lends at most {use.lending_limit}"
    return text


def _watts_cell(queue: QueueStanding) -> str:
    if queue.watts is None:
        return NOTHING
    nominal = "" if queue.nominal_watts is None else f"/{quantity(queue.nominal_watts, 'W')}"
    return (quantity(queue.watts.reserved, "W") + nominal).replace(" ", "")


def _budget(used: int | None, nominal: int | None, left: int | None, *, unit: str) -> str:
    """`8400 W of 11.2 kW used, 2800 W available`; "" where neither use nor limit is known."""
    if used is None and nominal is None:
        return ""
    text = "?" if used is None else quantity(used, unit)
    text += f" of {quantity(nominal, unit)} used" if nominal is not None else " used"
    return text + (f", {quantity(left, unit)} available" if left is not None else "")
