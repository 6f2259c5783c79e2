"""Several processes in one worker: starts one per rank, and ends as their common cause."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from datahall_trainer import termination
from datahall_trainer.place import free_port

# What explains a failed worker best comes first; a lost peer is mostly only the echo of another rank's death.
_MOST_TELLING = (65, 1, 143, 75)
_GRACE_SECONDS = 15.0
_POLL_SECONDS = 0.05
_log = logging.getLogger(__name__)


def launch(local_world_size: int, environment: Mapping[str, str]) -> int:
    """Runs `local_world_size` ranks of this worker and returns the exit code of the worker.

    SIGTERM is passed on to every rank. When a rank fails, the others notice by themselves; those that do not
    within 15 s are killed. The termination message of the worker is that of the rank that explains most.
    """
    base = dict(environment)
    if "PET_MASTER_ADDR" not in base:
        base["PET_MASTER_ADDR"] = "127.0.0.1"
        base["PET_MASTER_PORT"] = str(free_port())
    ranks: list[subprocess.Popen[bytes]] = []
    terminated = False

    def forward(number: int, _frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    with tempfile.TemporaryDirectory(prefix="datahall-ranks-") as scratch:
        messages = [Path(scratch) / f"{rank}.json" for rank in range(local_world_size)]
        for index, message in enumerate(messages):
            # Shared with the signal handler, hence one by one.
            ranks.append(
                subprocess.Popen(
                    [sys.executable, "-m", "datahall_trainer"],
                    env={**base, "DATAHALL_LOCAL_RANK": str(index), "DATAHALL_TERMINATION_LOG": str(message)},
                )
            )
            if terminated:
                ranks[-1].send_signal(signal.SIGTERM)
        codes = _wait(ranks)
        chosen = _most_telling(codes)
        _log.info("exit codes of the %d ranks: %s", local_world_size, codes)
        # On success only global rank 0 has written one, and it is the first of its worker.
        source = messages[0] if chosen is None else messages[chosen]
        if source.exists():
            try:
                termination.path().write_bytes(source.read_bytes())
            except OSError as error:
                _log.warning("cannot write the termination message: %s", error)
        return 0 if chosen is None else codes[chosen]


def _wait(ranks: list[subprocess.Popen[bytes]]) -> list[int]:
    deadline: float | None = None
    while any(rank.poll() is None for rank in ranks):
        if deadline is None and any(rank.poll() not in {None, 0} for rank in ranks):
            deadline = time.monotonic() + _GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for rank in ranks:
                if rank.poll() is None:
                    rank.kill()
        time.sleep(_POLL_SECONDS)
    # As a shell has it: 128 + signal for a process that a signal ended.
    return [128 - rank.returncode if rank.returncode < 0 else rank.returncode for rank in ranks]


def _most_telling(codes: list[int]) -> int | None:
    failed = [index for index, code in enumerate(codes) if code != 0]
    if not failed:
        return None

    def order(index: int) -> int:
        code = codes[index]
        # Killed by a signal: nobody else can tell of it, so it comes right after bad input.
        return _MOST_TELLING.index(code) * 2 if code in _MOST_TELLING else 1

    return min(failed, key=order)
