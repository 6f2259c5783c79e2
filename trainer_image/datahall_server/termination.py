"""The termination message: what the kubelet, and so the operator, learns of a server that could not go on."""

import logging
import os
from pathlib import Path

import msgspec

from . import logs

EXIT_BAD_INPUT = 65
"""sysexits' EX_DATAERR: the model or the configuration can never work; see docs/contracts.md."""

EXIT_ENGINE_DIED = 1

MAX_MESSAGE_BYTES = 4000
"""The kubelet keeps 4,096 bytes."""

_log = logging.getLogger(__name__)


def write(*, cause: str, message: str) -> None:
    """Write the message to `DATAHALL_TERMINATION_LOG`, default `/dev/termination-log`, and to the log.

    A path that cannot be written (a run outside Kubernetes) is no reason to fail differently: the log has the
    sentence too.
    """
    logs.event(_log, message, level=logging.ERROR, cause=cause)
    while (
        len(body := msgspec.json.encode({"result": "Failed", "cause": cause, "message": message}))
        > MAX_MESSAGE_BYTES
    ):
        message = message[: len(message) * 3 // 4] + "..."
    path = Path(os.environ.get("DATAHALL_TERMINATION_LOG", "/dev/termination-log"))
    try:
        path.write_bytes(body)
    except OSError as error:
        logs.event(
            _log,
            "cannot write the termination message",
            level=logging.WARNING,
            path=str(path),
            error=str(error),
        )
