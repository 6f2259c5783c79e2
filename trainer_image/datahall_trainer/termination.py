"""The termination message: what the operator may rely on after the process has gone."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from datahall_trainer import logs
from datahall_trainer.errors import TrainerError, one_line

_LIMIT_BYTES = 4000
_MESSAGE_CHARACTERS = 1500
_log = logging.getLogger(__name__)


def path() -> Path:
    """Where the kubelet reads it; `DATAHALL_TERMINATION_LOG` names another place for local runs and tests."""
    return Path(os.environ.get("DATAHALL_TERMINATION_LOG", "/dev/termination-log"))


def succeeded(*, uri: str, digest: str, progress: dict[str, Any], checkpoint: dict[str, Any] | None) -> None:
    """Says that the run is done and which model came of it."""
    _write(
        {
            "result": "Succeeded",
            "output": {"uri": uri, "digest": digest},
            "progress": progress,
            "checkpoint": checkpoint,
        }
    )


def failed(error: BaseException) -> None:
    """Says why the run ended, with the last log lines as far as they fit."""
    cause = error.cause if isinstance(error, TrainerError) else TrainerError.cause
    message: dict[str, Any] = {
        "result": "Failed",
        "cause": cause,
        "message": one_line(error)[:_MESSAGE_CHARACTERS],
        "lastLogLines": logs.last_lines(),
    }
    while _size(message) > _LIMIT_BYTES and message["lastLogLines"]:
        message["lastLogLines"].pop(0)
    # Characters outside ASCII are several bytes each, so even the message alone can be too long.
    while _size(message) > _LIMIT_BYTES:
        message["message"] = message["message"][: len(message["message"]) * 3 // 4]
    _write(message)


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode("utf-8", errors="replace")


def _size(message: dict[str, Any]) -> int:
    return len(_encode(message))


def _write(message: dict[str, Any]) -> None:
    try:
        path().write_bytes(_encode(message))
    except OSError as error:
        # The exit code still tells the cause; nothing better can be done here.
        _log.warning("cannot write the termination message: %s", error)
