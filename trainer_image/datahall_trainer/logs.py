"""One line per event, for people; the last of them are kept for the job's status."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque

LAST_LINES = 20
# A line of a traceback is short; one that is not would crowd out the others.
_LINE_CHARACTERS = 300

_tail: deque[str] = deque(maxlen=LAST_LINES)


class _Tail(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            _tail.append(line[:_LINE_CHARACTERS])


def setup(rank: int) -> None:
    """Sends log lines to standard error, in UTC and with the rank."""
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)s rank={rank} %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr), _Tail()]
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)


def last_lines() -> list[str]:
    """The last log lines of this process, oldest first."""
    return list(_tail)
