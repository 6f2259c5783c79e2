"""`python -m datahall_server`: the replica's entry point."""

import asyncio
import sys

import uvloop

from . import logs, server


def main() -> None:
    """Serve, and exit with the code that says how it ended."""
    logs.configure()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(server.main())
    sys.exit(code)


if __name__ == "__main__":
    main()
