"""Progress to the operator, by HTTP from a thread of its own: it never blocks or stops training."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

_INTERVAL_SECONDS = 2.0
_TIMEOUT_SECONDS = 5.0
_REDIRECTS = 5
_log = logging.getLogger(__name__)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to us: urllib would turn the POST into a GET or refuse."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Reporter:
    """Sends the newest state; states that come faster than it may send are overwritten, not queued."""

    def __init__(self, url: str | None, token_file: str | None, *, uid: str, generation: int) -> None:
        """Starts the thread, unless `url` is None: then every report is dropped."""
        self._url = url
        self._token_file = token_file
        self._head = {"uid": uid, "generation": generation}
        self._pending: dict[str, Any] | None = None
        self._urgent = False
        self._closing = False
        self._failing = False
        self._changed = threading.Condition()
        # No proxy: the operator is in the cluster, and the environment may name one for the outside.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
        self._thread: threading.Thread | None = None
        if url is not None:
            self._thread = threading.Thread(target=self._run, name="report", daemon=True)
            self._thread.start()

    def send(
        self, progress: dict[str, Any], checkpoint: dict[str, Any] | None, *, urgent: bool = False
    ) -> None:
        """Hands over the newest state; returns at once.

        Args:
            progress: as in the contract.
            checkpoint: the newest, or None.
            urgent: do not wait for the interval (a checkpoint, the end).
        """
        if self._thread is None:
            return
        with self._changed:
            self._pending = {**self._head, "progress": progress, "checkpoint": checkpoint}
            self._urgent = self._urgent or urgent
            self._changed.notify()

    def close(self, timeout_seconds: float = 2 * _TIMEOUT_SECONDS) -> None:
        """Sends what is left, for at most `timeout_seconds`."""
        if self._thread is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        last = -_INTERVAL_SECONDS
        while True:
            with self._changed:
                while True:
                    wait = last + _INTERVAL_SECONDS - time.monotonic()
                    due = self._pending is not None and (wait <= 0 or self._urgent or self._closing)
                    if due or (self._closing and self._pending is None):
                        break
                    self._changed.wait(max(wait, 0.0) if self._pending is not None else None)
                body, self._pending, self._urgent = self._pending, None, False
            if body is None:
                return
            last = time.monotonic()
            self._post(json.dumps(body).encode())

    def _post(self, body: bytes) -> None:
        assert self._url is not None
        try:
            self._post_following(self._url, body)
        # Whatever goes wrong here, training goes on; the termination message is what counts.
        except Exception as error:
            if not self._failing:
                _log.warning(
                    "cannot report progress to %s: %s; training goes on", self._url, _sentence(error)
                )
            self._failing = True
            return
        if self._failing:
            _log.info("progress reports arrive again")
        self._failing = False

    def _post_following(self, url: str, body: bytes) -> None:
        for _ in range(_REDIRECTS + 1):
            if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
                raise ValueError(f"{url} is not an HTTP address")
            request = urllib.request.Request(url, data=body, method="POST")  # noqa: S310 - checked above
            request.add_header("Content-Type", "application/json")
            if self._token_file is not None:
                # Read anew each time: the kubelet rotates it.
                request.add_header("Authorization", "Bearer " + Path(self._token_file).read_text().strip())
            try:
                with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
                    response.read()
                return
            except urllib.error.HTTPError as error:
                with error:
                    location = error.headers.get("Location")
                    if error.code not in {307, 308} or not location:
                        said = " ".join(error.read(500).decode("utf-8", errors="replace").split())
                        raise ConnectionError(f"HTTP {error.code} {said}") from None
                url = urllib.parse.urljoin(url, location)
        raise ConnectionError(f"more than {_REDIRECTS} redirects")


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
