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
    if not since:
        return NOTHING
    try:
        then = datetime.fromisoformat(since)
    except ValueError:
        return NOTHING
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return duration((at - then).total_seconds())


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


def percent(fraction: float) -> str:
    """A fraction of 1 in per cent, one decimal."""
    return f"{fraction * 100:.1f}%"


def lines_of(text: str) -> str:
    """A message on one line: a table row must not break."""
    return " ".join(text.split())
