"""`datahall explain`: the story of one job or service, in plain words. Pure: a story and a time become text."""

from __future__ import annotations

from datetime import datetime

from datahall.api.trainingjob import LastCheckpoint
from datahall.cli.move_pages import MOVE_COLUMNS, move_cells
from datahall.cli.page import metrics_of, progress_of
from datahall.cli.table import entry, painted, section
from datahall.cli.words import (
    NOTHING,
    age,
    clock,
    counted,
    has_passed,
    lines_of,
    ordinal,
    quantity,
    when,
)
from datahall.sdk import EndStory, LineEntry, ModelUse, QueueStanding, RunStory, Story, Turn, WaitStory

_AHEAD_SHOWN = 10
_NODES_SHOWN = 8
_LINE_COLUMNS = ("PLACE", "NAME", "NAMESPACE", "PRIORITY", "AGE", "NEEDS", "STARTS", "REASON")


def story(told: Story, at: datetime, *, colour: bool = False) -> str:
    """The whole text, without a line end."""
    state = painted(told.state) if colour else told.state
    since = f", since {when(told.since, at)}" if told.since and told.ended is None else ""
    lines = [
        f"{told.kind} {told.name} in namespace {told.namespace}",
        *entry("State", (f"{state} ({told.reason})" if told.reason else state) + since),
    ]
    if told.stale:
        lines += entry(
            "Note", "its spec has changed since the operator last looked: this is told of the one before"
        )
    if told.ended is not None:
        lines += _ended(told.ended, at)
    elif told.waiting is not None:
        lines += _waits(told, told.waiting, at)
    else:
        lines += entry("Why", lines_of(told.message))
    if told.replicas is not None:
        lines += entry("Replicas", f"{told.replicas[0]} of {told.replicas[1]} answer")
    if told.running is not None and told.running.nodes:
        lines += _runs(told, told.running, at)
    if told.failure and told.ended is None:
        lines += entry("Failure", lines_of(told.failure))
    if told.ended is None:
        lines += _queue(told)
    lines += _blockers(told) + _moves(told, at) + _ahead(told, at) + _helps(told)
    lines += _preemptions(told, at) + _events(told, at)
    if told.unread:
        lines += ["", f"Not told: {', '.join(told.unread)}; you may not read them."]
    return "\n".join(lines)


def line_rows(entries: tuple[LineEntry, ...], at: datetime) -> list[tuple[str, ...]]:
    """Waiting jobs as rows under `_LINE_COLUMNS`."""
    return [
        (
            NOTHING if each.position is None else str(each.position),
            each.name,
            each.namespace,
            str(each.priority),
            age(each.created, at),
            f"{each.workers}x{each.gpus or 'CPU'}",
            _start_cell(each.starts_at, at),
            each.reason or NOTHING,
        )
        for each in entries
    ]


def line_section(title: str, entries: tuple[LineEntry, ...], at: datetime, *, most: int) -> list[str]:
    """Waiting jobs as part of a page, the first of them."""
    lines = section(title, _LINE_COLUMNS, line_rows(entries[:most], at))
    return [*lines, f"  and {len(entries) - most} more"] if len(entries) > most else lines


def use_of(use: ModelUse) -> str:
    """`H100 20 of 16 held, 4 borrowed, 2 available`."""
    parts = [f"{use.model} {use.used} of {use.nominal} held"]
    if use.borrowed:
        parts.append(f"{use.borrowed} borrowed")
    if use.available is not None:
        parts.append(f"{use.available} available")
    return ", ".join(parts)


def standing_of(queue: QueueStanding) -> str:
    """`3 jobs and replicas hold a place, 5 wait; share 0.125; its turn is next`."""
    hold = "job or replica holds" if queue.running == 1 else "jobs and replicas hold"
    waits = "waits" if queue.waiting == 1 else "wait"
    parts = [f"{queue.running} {hold} a place, {queue.waiting} {waits}"]
    if queue.share is not None:
        parts.append(f"share {queue.share}" + (f" by weight {queue.weight}" if queue.weight != 1 else ""))
    if queue.turn is Turn.NEXT:
        parts.append("its turn is next")
    elif queue.turn is Turn.TIED:
        parts.append("its turn is next, or that of a queue with the same share")
    return "; ".join(parts)


# ---- its parts


def _waits(told: Story, waiting: WaitStory, at: datetime) -> list[str]:
    if told.priority is None:
        return []
    ahead = len(waiting.ahead)
    if waiting.position is not None:
        place = (
            f"{ordinal(waiting.position)} in line of queue {told.queue_name}, with priority {told.priority}"
        )
        if ahead:
            place += f"; {ahead} before it {'is' if ahead == 1 else 'are'} named below"
    else:
        place = f"in no line of queue {told.queue_name} yet"
    if waiting.starts_at is None:
        start = "nobody can tell"
    elif has_passed(waiting.starts_at, at):
        start = f"was expected at {when(waiting.starts_at, at)}: what is before it takes longer than it said"
    else:
        start = f"about {when(waiting.starts_at, at)}: an estimate, from what runs now"
    since = f"since {when(waiting.since, at)}" if waiting.since else ""
    return [*entry("Waits", since), *entry("Place", place), *entry("Start", start)]


def _runs(told: Story, run: RunStory, at: datetime) -> list[str]:
    elastic = f" (it starts with {run.fewest} or more)" if run.fewest < run.wanted else ""
    lines = entry("Place", f"has its place, with priority {told.priority}")
    lines += entry("Workers", f"{run.workers} of {run.wanted}{elastic}")
    nodes = [
        each.node
        + (f" ({counted(each.workers, 'worker')}" + (f", {each.gpu_model})" if each.gpu_model else ")"))
        for each in run.nodes[:_NODES_SHOWN]
    ]
    more = len(run.nodes) - _NODES_SHOWN
    lines += entry("Where", run.spread or "", *nodes, f"and {counted(more, 'more node')}" if more > 0 else "")
    if run.progress is not None:
        lines += entry("Progress", progress_of(run.progress, running=run.ends_at is not None))
    ends = []
    if run.ends_at is not None and has_passed(run.ends_at, at):
        ends.append(f"was expected at {when(run.ends_at, at)}; no later report")
    elif run.ends_at is not None:
        ends.append(f"about {when(run.ends_at, at)}, at the speed of its last report")
    if run.deadline_at is not None:
        ends.append(f"its deadline is {when(run.deadline_at, at)}")
    if told.state == "Running":
        lines += entry("End", *(ends or ["nobody can tell"]))
        lines += entry("If ended", _loss(run.checkpoint, run, at))
        lines += entry("By whom", *_by_whom(told, run, at))
    return lines


def _loss(saved: LastCheckpoint | None, run: RunStory, at: datetime) -> str:
    """What an end for others would cost."""
    first = "it is asked to save, and waits in line again"
    if saved is None:
        return f"{first}; no checkpoint is known yet: without one it begins anew"
    when_saved = f", saved {age(saved.time, at)} ago" if saved.time else ""
    step = run.progress.step if run.progress else None
    behind = f", {step - saved.step} steps back" if step is not None and step > saved.step else ""
    return f"{first}; if it cannot save, it goes on from step {saved.step}{when_saved}{behind}"


def _by_whom(told: Story, run: RunStory, at: datetime) -> list[str]:
    """Who has the right to end it for themselves; there are two rights, and no others."""
    told_of: list[str] = []
    if run.undisturbed_until is not None and not has_passed(run.undisturbed_until, at):
        told_of.append(f"nobody before {when(run.undisturbed_until, at)}: the queue's minimum run time")
    if run.outranked_by:
        first = run.outranked_by[0]
        more = len(run.outranked_by) - 1
        others = f" and {more} more" if more else ""
        told_of.append(
            f"by priority: {first.namespace}/{first.name} ({first.priority}){others} of its queue, which waits, may"
        )
    elif not any(gap.startswith("TrainingJobs") for gap in told.unread):
        told_of.append(f"by priority: nobody that waits in its queue has more than {told.priority}")
    if run.borrowed:
        held = ", ".join(f"{gpus} of {model}" for model, gpus in sorted(run.borrowed.items()))
        told_of.append(
            f"by quota: its queue has borrowed GPUs ({held}), and who lent them may take them back"
        )
    elif told.queue is not None:
        told_of.append("by quota: nobody, its queue has borrowed no GPUs")
    return told_of


def _ended(end: EndStory, at: datetime) -> list[str]:
    lines = entry("Ended", when(end.time, at) if end.time else "")
    lines += entry("How", lines_of(end.sentence))
    if (made := end.output) is not None:
        lines += entry("Output", made.uri, made.digest, metrics_of(made.metrics))
    if end.failure is not None:
        lines += [f"             | {line}" for line in end.failure.last_log_lines]
    return lines


def _queue(told: Story) -> list[str]:
    queue = told.queue
    if queue is None:
        missing = f"{told.queue_name}, which does not exist"
        return entry("Queue", told.queue_name if "Queues" in told.unread else missing)
    power = ""
    if queue.watts is not None:
        left = queue.watts.available
        power = f"{quantity(queue.watts.reserved, 'W')} reserved"
        power += f", {quantity(left, 'W')} available" if left is not None else ""
    return entry(
        "Queue",
        f"{queue.name}: {standing_of(queue)}",
        *(use_of(use) for use in queue.gpus),
        power,
        lines_of(queue.trouble),
    )


def _blockers(told: Story) -> list[str]:
    if told.waiting is None:
        return []
    rows = [(each.reason, lines_of(each.message) or NOTHING) for each in told.waiting.blockers]
    return section("What it waits for", ("REASON", "MESSAGE"), rows)


def _ahead(told: Story, at: datetime) -> list[str]:
    if told.waiting is None:
        return []
    return line_section(f"Ahead of it in queue {told.queue_name}", told.waiting.ahead, at, most=_AHEAD_SHOWN)


def _moves(told: Story, at: datetime) -> list[str]:
    moves = told.waiting.moves if told.waiting is not None else None
    if moves is None:
        return []
    title = f"Moves for it at about {clock(moves.due_time, at)}, if nothing else makes room before"
    return section(title, MOVE_COLUMNS, [move_cells(move) for move in moves.jobs])


def _helps(told: Story) -> list[str]:
    return section("What helps", ("REASON", "DO"), [(each.reason, each.sentence) for each in told.helps])


def _preemptions(told: Story, at: datetime) -> list[str]:
    newest = told.preempted_by
    if newest is None and not told.earlier_preemptions:
        return []
    rows = []
    if newest is not None:
        priority = "" if newest.priority is None else f" (priority {newest.priority})"
        rows.append((clock(newest.time, at), f"for {newest.job}{priority}: {lines_of(newest.message)}"))
    rows += [(clock(event.time, at), lines_of(event.message)) for event in told.earlier_preemptions]
    title = f"Ended {counted(told.preemptions or len(rows), 'time')} to make room for others"
    return section(title, ("WHEN", "WHY"), rows)


def _events(told: Story, at: datetime) -> list[str]:
    rows = []
    for event in told.events:
        seen = f"{age(event.time, at)} ago" + (f" (x{event.count})" if event.count > 1 else "")
        rows.append((seen, event.reason or NOTHING, lines_of(event.message)))
    return section("Lately", ("WHEN", "REASON", "MESSAGE"), rows)


def _start_cell(starts_at: str | None, at: datetime) -> str:
    return NOTHING if starts_at is None else clock(starts_at, at).replace(" UTC", "Z").replace(" ", "T")
