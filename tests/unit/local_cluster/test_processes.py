"""A process is its pid, start time and boot together; nothing else may be ended in its name."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from local_cluster.processes import (
    Identity,
    end,
    log_tail,
    parse_stat,
    read_identity,
    spawn,
    write_identity,
)

STAT = "42 (a ) b) S 1 42 42 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 9 0 123456 1 2 3"


def test_start_time_is_found_behind_a_name_with_brackets() -> None:
    assert parse_stat(42, STAT, boot="b") == Identity(42, 123456, "b")


@pytest.mark.parametrize("state", ["Z", "X"])
def test_the_dead_have_no_identity(state: str) -> None:
    assert parse_stat(42, STAT.replace(" S ", f" {state} "), boot="b") is None


def test_a_record_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    write_identity(path, Identity(1, 2, "b"))
    assert read_identity(path) == Identity(1, 2, "b")


@pytest.mark.parametrize("text", ["", "12", "{}", '{"pid": 1}'], ids=["empty", "number", "object", "partial"])
def test_an_unreadable_record_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.pid"
    path.write_text(text)
    assert read_identity(path) is None
    assert read_identity(tmp_path / "absent.pid") is None


def test_a_reused_pid_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        identity = Identity.of(process.pid)
        assert identity is not None
        before = replace(identity, start_ticks=identity.start_ticks - 1)
        other_boot = replace(identity, boot="another")
        end([before, other_boot], grace_seconds=0.2)
        assert process.poll() is None
        assert identity.alive()
        process.kill()


def test_what_ignores_sigterm_is_killed() -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        identity = Identity.of(process.pid)
        assert identity is not None
        end([identity], grace_seconds=0.2)
        assert process.wait(5) == -signal.SIGKILL


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    process = spawn([sys.executable, "-c", "print('one'); print('two')"], log=log)
    assert process.wait(10) == 0
    assert log_tail(log, lines=1) == "two"
    assert log_tail(tmp_path / "absent") == "(no log)"
