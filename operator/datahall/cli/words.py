"""Numbers as people read them: ages, durations, sizes, scores. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

NOTHING = "-"
"""What a table shows where there is nothing to show: a cell is never empty, so that `awk` can count columns."""


def now() -> datetime:
    """The present time; the one clock of the CLI."""
    return datetime.now(UTC)


def age(since: str | None, at: datetime) -> str:
    """How long ago an RFC 3339 instant was: `42s`, `7m`, `3h20m`, `5d`."""
    then = instant(since)
    return NOTHING if then is None else duration((at - then).total_seconds())


def instant(text: str | None) -> datetime | None:
    """An RFC 3339 instant; None for none, and for something else."""
    if not text:
        return None
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return None
    return then.replace(tzinfo=UTC) if then.tzinfo is None else then.astimezone(UTC)


def when(text: str | None, at: datetime) -> str:
    """A point in time and how far off it is: `15:20 UTC, in 16m`, `2026-11-21 09:05 UTC, 29h ago`."""
    then = instant(text)
    if then is None:
        return NOTHING
    seconds = (then - at).total_seconds()
    return f"{clock(text, at)}, " + (
        f"in {duration(seconds)}" if seconds >= 1 else f"{duration(-seconds)} ago"
    )


def clock(text: str | None, at: datetime) -> str:
    """A point in time, with the day where it is not today: `15:20 UTC`."""
    then = instant(text)
    if then is None:
        return NOTHING
    return f"{then:%H:%M} UTC" if then.date() == at.astimezone(UTC).date() else f"{then:%Y-%m-%d %H:%M} UTC"


def has_passed(text: str | None, at: datetime) -> bool:
    """Whether a point in time is over."""
    then = instant(text)
    return then is not None and then <= at


def duration(seconds: float) -> str:
    """At most two units, as kubectl has it."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10 and whole % 60:
        return f"{minutes}m{whole % 60}s"
    if minutes < 120:
        return f"{minutes}m"
    if hours < 10 and minutes % 60:
        return f"{hours}h{minutes % 60}m"
    if hours < 48:
        return f"{hours}h"
    return f"{days}d"


def size(count: int) -> str:
    """Bytes with a binary unit."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def number(value: float) -> str:
    """Three significant digits, without an exponent where that is short."""
    return f"{value:.3g}"


def quantity(amount: float, unit: str) -> str:
    """Watts or joules with the prefix that keeps them short: `8400 W`, `11.2 kW`, `312 MJ`."""
    for prefix in ("", "k", "M", "G"):
        if amount < 10_000:
            return f"{amount:.4g} {prefix}{unit}"
        amount /= 1000
    return f"{amount:.4g} T{unit}"


def counted(number_: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number_} {noun}" if number_ == 1 else f"{number_} {noun}s"


def ordinal(place: int) -> str:
    """`1st`, `2nd`, `3rd`, `11th`."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(place % 10 if place % 100 not in {11, 12, 13} else 0, "th")
    return f"{place}{ending}"


def percent(fraction: float) -> str:
    """A fraction of 1 in per cent, one decimal."""
    return f"{fraction * 100:.1f}%"


def lines_of(text: str) -> str:
    """A message on one line: a table row must not break."""
    return " ".join(text.split())
