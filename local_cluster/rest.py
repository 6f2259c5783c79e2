"""The few calls to an API server that this room makes itself: raw JSON over HTTP, standard library only.

Just enough to wait for readiness, to create nodes by the thousand, and to provision volumes. Everything else uses the
project's own client.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

Object = dict[str, Any]


class RestError(Exception):
    """The API server answered with an error; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Rest:
    """One connection, kept open between calls; not for use by several threads at a time."""

    def __init__(self, *, url: str, context: ssl.SSLContext, token: str | None = None) -> None:
        """`context` verifies the server and may hold a client certificate; `token` is a bearer token."""
        self._url = urlsplit(url)
        self._context = context
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: http.client.HTTPSConnection | None = None

    def _open(self, *, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self._url.hostname or "", self._url.port, context=self._context, timeout=timeout
        )

    def call(
        self, method: str, path: str, body: Object | None = None, *, content_type: str | None = None
    ) -> Object:
        """Send one request and read the answer. A connection that went stale is opened anew, once."""
        headers = {**self._headers, **({"Content-Type": content_type} if content_type else {})}
        payload = None if body is None else json.dumps(body)
        for attempt in (1, 2):
            if self._connection is None:
                self._connection = self._open(timeout=30)
            try:
                self._connection.request(method, path, payload, headers)
                response = self._connection.getresponse()
                text = response.read()
            except (http.client.HTTPException, OSError):
                self.close()
                if attempt == 2:
                    raise
            else:
                return _answer(response.status, text)
        raise AssertionError("unreachable")

    def watch(self, path: str, *, timeout_seconds: int) -> Iterator[Object]:
        """Yield watch events until the server ends the watch, which it does after `timeout_seconds`."""
        connection = self._open(timeout=timeout_seconds + 30)
        joint = "&" if "?" in path else "?"
        try:
            connection.request(
                "GET", f"{path}{joint}watch=true&timeoutSeconds={timeout_seconds}", headers=self._headers
            )
            response = connection.getresponse()
            if response.status != http.client.OK:
                _answer(response.status, response.read())
            for line in response:
                yield json.loads(line)
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _answer(status: int, text: bytes) -> Object:
    try:
        parsed = json.loads(text) if text else {}
    except ValueError:
        parsed = {"message": text.decode(errors="replace")}
    if status >= http.client.BAD_REQUEST:
        raise RestError(status, str(parsed.get("message", parsed)))
    return parsed if isinstance(parsed, dict) else {"value": parsed}
