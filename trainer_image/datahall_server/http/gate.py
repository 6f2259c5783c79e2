"""Around every request: count it, time it, and while the server is closing ask its client to reconnect elsewhere."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..lifecycle import Lifecycle
from ..metrics import Metrics


class Gate:
    """ASGI middleware, outermost."""

    def __init__(self, app: ASGIApp, *, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            return
        code = 499  # stands if the app ends without an answer: its client was gone
        started = time.monotonic()

        async def observe(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                if self._lifecycle.closing:
                    # Decided when the answer starts, not when the request came: a drain may have begun in between.
                    message.setdefault("headers", []).append((b"connection", b"close"))
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, observe)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                self._metrics.requests.labels(route, str(code)).inc()
                self._metrics.request_seconds.labels(route).observe(time.monotonic() - started)
