"""Leaving without losing a request.

A pod that gets SIGTERM is still in the endpoint lists of every node for a moment, and clients hold connections to
it. So, in order:

1. At once: `/ready` says 503, and each answer says `Connection: close`, so that busy clients reconnect elsewhere.
2. For `drain_seconds`: new connections and requests are served as before, while endpoints forget the pod.
3. The listener closes, once its queue is empty. What was accepted has LINGER_SECONDS to send its request: a connection
   whose request is still in the socket's buffer looks idle, and closing it then would lose the request.
4. Idle connections close, and the answers under way are finished, bounded so that the process is gone before the
   kubelet kills it.

What no server can do: warn a client that sends on an idle connection at the very moment it closes. HTTP/1.1
clients retry that.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn

from .config import Limits
from .lifecycle import Lifecycle, Phase

LINGER_SECONDS = 0.5
ENGINE_STOP_SECONDS = 2.0
KEEP_ALIVE_SECONDS = 75
"""Longer than most clients keep an idle connection: each close by us, and not by them, could meet a request."""


class DrainingServer(uvicorn.Server):
    """uvicorn, with its signals and its shutdown replaced by the above."""

    def __init__(self, app: object, *, lifecycle: Lifecycle, limits: Limits) -> None:
        bounded = limits.shutdown_seconds - limits.drain_seconds - LINGER_SECONDS - ENGINE_STOP_SECONDS
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                lifespan="off",
                http="httptools",
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, int(bounded)),
            )
        )
        self._lifecycle = lifecycle
        self._drain_seconds = limits.drain_seconds
        self._leaving: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT begin the drain; uvicorn's own handlers would stop accepting at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.begin_drain)
        yield
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    def begin_drain(self) -> None:
        """Start to leave; a second signal changes nothing."""
        if self._leaving is None:
            # A pod that was never ready is in no endpoint list: there is nobody to wait for.
            wait = self._drain_seconds if self._lifecycle.phase is Phase.READY else 0.0
            self._lifecycle.drain()
            self._leaving = asyncio.get_running_loop().create_task(self._leave_after(wait))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, serve what had reached it, then let uvicorn finish the rest."""
        loop = asyncio.get_running_loop()
        # A duplicate keeps the kernel's queue alive past the event loop's own close.
        listeners = [
            socket.socket(fileno=os.dup(each.fileno())) for server in self.servers for each in server.sockets
        ]
        for server in self.servers:
            server.close()
        for connection in [found for listener in listeners for found in _queued(listener)]:
            with contextlib.suppress(OSError):  # a client that has gone again
                await loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    async def _leave_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.should_exit = True


def _queued(listener: socket.socket) -> list[socket.socket]:
    """Close a listener, after taking the connections that wait in its queue: closing would reset them."""
    found: list[socket.socket] = []
    with listener:
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = listener.accept()
                connection.setblocking(False)
                found.append(connection)
    return found
