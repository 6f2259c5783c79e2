"""Wait for what can be observed rather than for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def until(
    check: Callable[[], Awaitable[Any]], *, seconds: float = 20, what: str = "", every: float = 0.05
) -> Any:
    """Poll until `check` gives something true; its value."""
    deadline = time.monotonic() + seconds
    while True:
        if value := await check():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what or check}")
        await asyncio.sleep(every)
