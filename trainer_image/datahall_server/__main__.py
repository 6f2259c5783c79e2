"""`python -m datahall_server`: the replica's entry point."""

import asyncio
import signal
import sys
from types import FrameType


def main() -> None:
    """Serve, and exit with the code that says how it ended."""
    # As process 1 of a container, SIGTERM does nothing until a handler is set, and the imports below take a
    # second: a pod deleted right after its start would hang for the whole grace period.
    signal.signal(signal.SIGTERM, _leave_at_once)
    import uvloop

    from . import logs, server

    logs.configure()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(server.main())
    sys.exit(code)


def _leave_at_once(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
