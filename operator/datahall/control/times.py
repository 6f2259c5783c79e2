"""RFC 3339 times, as the API server writes them (whole seconds, UTC), to and from aware datetimes."""

from __future__ import annotations

import datetime


def to_text(moment: datetime.datetime) -> str:
    """The API server's form."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_text(text: str) -> datetime.datetime:
    """Parse the API server's form, fractions of a second included.

    Raises:
        ValueError: it is not RFC 3339.
    """
    return datetime.datetime.fromisoformat(text)


def since(text: str | None, now: datetime.datetime) -> float:
    """Seconds from `text` to `now`; 0 where there is no time."""
    return (now - from_text(text)).total_seconds() if text else 0.0
