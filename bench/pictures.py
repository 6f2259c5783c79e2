"""The pictures of docs/scheduling.md, drawn from runs of the real planner.

`python -m bench.pictures` writes docs/pictures/*.svg; a test holds that it would write the same bytes again. Plain SVG
by hand: no library, no font of its own, nothing but text and simple shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bench.played_hall import GPUS_PER_NODE, Job, Record, Span, play, racks
from datahall.planning import Level, QueueState
from datahall.planning.types import Limits

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a300", "#7f7f7f")
_INK, _FAINT, _PAPER = "#222222", "#bbbbbb", "#ffffff"
_LEFT, _TOP, _RIGHT = 70, 46, 20
_LANE, _GAP, _LINE = 22, 8, 16
_WIDTH = 760


# ---- scenarios

_ASKS = ((40, 80), (40, 50), (65, 60), (75, 30))
"""When team-b submits a job of one node, and how long it runs, in minutes."""


def backfill() -> str:
    """A gang that needs half the hall waits; room is kept for it, and short jobs pass."""
    jobs = [
        Job("speech", "lab", 0, 60, 3),
        Job("vision", "lab", 0, 90, 2),
        Job("tables", "lab", 0, 130, 2),
        Job("language", "lab", 10, 50, 4),
        Job("short-1", "lab", 15, 30),
        Job("long", "lab", 20, 60),
        Job("short-2", "lab", 46, 12),
    ]
    queues = [QueueState("lab", {"H100": Limits(128)})]
    record = play(racks(4, 4), queues, jobs, minutes=150)
    title = "A reservation with backfill: language needs 4 nodes, and gets them when it was told"
    return _hall(record, jobs, title)


def priority() -> str:
    """A job of higher priority needs three nodes of one rack; the cheapest of lower priority end for it."""
    jobs = [
        Job("base", "lab", 0, 110, 4, priority=5),
        Job("sweep-1", "lab", 0, 60),
        Job("sweep-2", "lab", 5, 60),
        Job("sweep-3", "lab", 10, 60),
        Job("sweep-4", "lab", 20, 60),
        Job("urgent", "lab", 30, 45, 3, priority=10, level=Level.RACK),
    ]
    queues = [QueueState("lab", {"H100": Limits(128)}, minimum_run_seconds=600)]
    record = play(racks(4, 4), queues, jobs, minutes=130)
    title = "Preemption: urgent needs 3 nodes of one rack; three jobs save, end, and go on later"
    return _hall(record, jobs, title)


def borrowing() -> str:
    """One team borrows all that its neighbour leaves idle, and gives it back when it is asked for."""
    jobs = [Job(f"a{number}", "team-a", 0, 100) for number in range(12)]
    jobs += [Job(f"b{number}", "team-b", arrives, minutes) for number, (arrives, minutes) in enumerate(_ASKS)]
    quota = {"H100": Limits(32)}
    queues = [
        QueueState("hall"),
        QueueState("team-a", quota, parent="hall", minimum_run_seconds=600),
        QueueState("team-b", quota, parent="hall", minimum_run_seconds=600),
    ]
    record = play(racks(4, 4), queues, jobs, minutes=180)
    return _areas(record, "Borrowing and giving back: two teams with 32 GPUs each")


PICTURES: dict[str, Callable[[], str]] = {
    "backfill.svg": backfill,
    "borrowing.svg": borrowing,
    "priority.svg": priority,
}


# ---- drawing


@dataclass(frozen=True, slots=True)
class _Axis:
    """Minutes from left to right."""

    minutes: int

    def x(self, minute: float) -> float:
        """Where a minute is, in pixels."""
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * minute / self.minutes

    def draw(self, top: float, bottom: float) -> list[str]:
        """A line and a label every half an hour."""
        parts = []
        for minute in range(0, self.minutes + 1, 30):
            x = self.x(minute)
            parts.append(_stroke(x, top, x, bottom, _FAINT, dashes="1 3"))
            parts.append(_text(x, bottom + 14, _clock(minute), anchor="middle"))
        return parts


def _hall(record: Record, jobs: Sequence[Job], title: str) -> str:
    """Nodes from top to bottom, by rack; jobs as blocks; below, who waited from when to when."""
    nodes = sorted({node for span in record.spans for node in span.nodes})
    axis = _Axis(record.minutes)
    top_of: dict[str, float] = {}
    y = float(_TOP)
    parts: list[str] = []
    for place, node in enumerate(nodes):
        if place and node[0] != nodes[place - 1][0]:
            y += _GAP
        if place == 0 or node[0] != nodes[place - 1][0]:
            parts.append(_text(8, y + _LANE * 0.68, f"rack {node[0]}", weight="bold"))
        top_of[node] = y
        parts.append(_text(_LEFT - 6, y + _LANE * 0.68, node, anchor="end"))
        parts.append(_box(_LEFT, y, axis.x(record.minutes) - _LEFT, _LANE - 2, "#f4f4f4"))
        y += _LANE
    colour = {job.name: _COLOURS[number % len(_COLOURS)] for number, job in enumerate(jobs)}
    blocks = [
        block
        for span in sorted(record.spans, key=lambda span: (span.start, span.job))
        for block in _blocks(span, nodes, top_of, axis, colour[span.job])
    ]
    waits = _waits(record, jobs, axis, y + _GAP, colour)
    bottom = y + _GAP + _LINE * len(waits)
    parts += axis.draw(_TOP, bottom)
    return _svg(title, [*parts, *blocks, *(part for line in waits for part in line)], bottom + 24)


def _blocks(
    span: Span, nodes: Sequence[str], top_of: dict[str, float], axis: _Axis, colour: str
) -> list[str]:
    """A job on its nodes: neighbours are one block; the time in which it saves for others is hatched."""
    parts: list[str] = []
    together: list[list[str]] = []
    for node in span.nodes:
        before = nodes[nodes.index(node) - 1] if nodes.index(node) else ""
        if together and together[-1][-1] == before and before[0] == node[0]:
            together[-1].append(node)
        else:
            together.append([node])
    for group in together:
        x, y, height = axis.x(span.start), top_of[group[0]], _LANE * len(group) - 2
        parts.append(_box(x, y, axis.x(span.end) - x, height, colour))
        if span.freed > span.end:
            parts.append(_box(axis.x(span.end), y, axis.x(span.freed) - axis.x(span.end), height, _INK))
        if axis.x(span.end) - x > 7.5 * len(span.job):
            parts.append(_text(x + 5, y + height / 2 + 4, span.job, colour=_PAPER, weight="bold"))
    return parts


def _waits(
    record: Record, jobs: Sequence[Job], axis: _Axis, top: float, colour: dict[str, str]
) -> list[list[str]]:
    """A line for each time that a job waited: a thin bar, and what it was told."""
    lines: list[list[str]] = []
    for job in jobs:
        begins = [job.arrives, *(span.freed for span in _of(record, job) if span.ended_for)]
        starts = [span.start for span in _of(record, job)]
        for number, since in enumerate(begins):
            until = starts[number] if number < len(starts) else record.minutes
            if until <= since:
                continue
            y = top + _LINE * len(lines)
            told = record.promised.get(job.name)
            text = f"{job.name} waits"
            if number:
                text = f"{job.name} waits, ended for {_of(record, job)[number - 1].ended_for}"
            elif told is not None:
                text += f"; told at {_clock(told[0])} that it starts at {_clock(told[1])}"
            bar = _box(axis.x(since), y + 5, axis.x(until) - axis.x(since), 4, colour[job.name])
            lines.append([bar, _text(axis.x(until) + 6, y + 11, text)])
    return lines


def _areas(record: Record, title: str) -> str:
    """GPUs held over time, stacked: the first team's own, what it borrowed, the second team's."""
    axis, height = _Axis(record.minutes), 200.0
    most = 2 * 4 * GPUS_PER_NODE
    first, second = (
        [report.gpus["H100"] for report in record.reports[queue]] for queue in ("team-a", "team-b")
    )
    own = [entry.used - entry.borrowed for entry in first]
    layers = [
        ("team-a, its own", own, _COLOURS[0]),
        ("team-a, borrowed from team-b", [entry.borrowed for entry in first], _COLOURS[4]),
        ("team-b, its own", [entry.used for entry in second], _COLOURS[1]),
    ]
    bottom = _TOP + height
    base = [0] * len(own)
    parts: list[str] = []
    for name, values, colour in layers:
        over = [low + value for low, value in zip(base, values, strict=True)]
        parts.append(_area(axis, base, over, bottom=bottom, scale=height / most, colour=colour))
        base = over
        x = _LEFT + 215 * (len(parts) - 1)
        parts[-1] += "\n" + _box(x, bottom + 26, 11, 11, colour) + "\n" + _text(x + 16, bottom + 36, name)
    for gpus in (0, most // 2, most):
        y = bottom - gpus * height / most
        parts.append(_text(_LEFT - 6, y + 4, f"{gpus} GPUs", anchor="end"))
        parts.append(_stroke(_LEFT, y, axis.x(record.minutes), y, _INK if gpus == most // 2 else _FAINT))
    for minute in sorted({arrives for arrives, _ in _ASKS}):
        asked = sum(GPUS_PER_NODE for arrives, _ in _ASKS if arrives == minute)
        parts.append(_stroke(axis.x(minute), _TOP - 8, axis.x(minute), bottom, _INK, dashes="4 3"))
        parts.append(_text(axis.x(minute), _TOP - 11, f"{asked}", anchor="middle"))
    parts.append(_text(axis.x(_ASKS[-1][0]) + 14, _TOP - 11, "GPUs that team-b asks for"))
    return _svg(title, [*parts, *axis.draw(_TOP, bottom)], bottom + 48)


def _area(
    axis: _Axis, low: Sequence[int], high: Sequence[int], *, bottom: float, scale: float, colour: str
) -> str:
    """What lies between two lines of steps."""
    there = _steps(axis, high, bottom=bottom, scale=scale)
    back = _steps(axis, low, bottom=bottom, scale=scale)
    return f'<polygon points="{" ".join([*there, *reversed(back)])}" fill="{colour}"/>'


def _steps(axis: _Axis, values: Sequence[int], *, bottom: float, scale: float) -> list[str]:
    """The corners of a line that is level but where a value changes."""
    corners: list[str] = []
    since = 0
    for minute in range(1, axis.minutes + 1):
        if minute == axis.minutes or values[minute] != values[since]:
            y = bottom - values[since] * scale
            corners += [_point(axis.x(since), y), _point(axis.x(minute), y)]
            since = minute
    return corners


def _of(record: Record, job: Job) -> list[Span]:
    return sorted((span for span in record.spans if span.job == job.name), key=lambda span: span.start)


def _svg(title: str, parts: Sequence[str], height: float) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}" '
        f'height="{height:g}" font-family="sans-serif" font-size="11">'
    )
    name = f"<title>{escape(title)}</title>"
    paper = _box(0, 0, _WIDTH, height, _PAPER)
    heading = _text(8, 20, title, weight="bold", size=13)
    return "\n".join([head, name, paper, heading, *parts, "</svg>"]) + "\n"


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{_px(x)}" y="{_px(y)}" width="{_px(width)}" height="{_px(height)}" fill="{colour}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = _INK,
    weight: str = "normal",
    size: int = 11,
) -> str:
    place = f'x="{_px(x)}" y="{_px(y)}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-weight="{weight}" font-size="{size}">{escape(text)}</text>'


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashes: str = "none") -> str:
    ends = f'x1="{_px(x1)}" y1="{_px(y1)}" x2="{_px(x2)}" y2="{_px(y2)}"'
    return f'<line {ends} stroke="{colour}" stroke-dasharray="{dashes}"/>'


def _point(x: float, y: float) -> str:
    return f"{_px(x)},{_px(y)}"


def _px(length: float) -> str:
    """A length to a tenth of a pixel, the same everywhere."""
    return f"{round(length, 1):g}"


def _clock(minute: int) -> str:
    return f"{minute // 60}:{minute % 60:02d}"


def main() -> None:
    """Write the pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")
        print(f"wrote docs/pictures/{name}")


if __name__ == "__main__":
    main()
