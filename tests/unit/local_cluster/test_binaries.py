"""What is built of Go, and when: beside another build, all that the two share would be compiled twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_cluster import binaries

# In the place of Go: writes down whether somebody else could begin to compile now, and leaves a program.
GO = """#!/bin/sh
flock --nonblock "$DATAHALL_CACHE/bin/.compiling.lock" true && echo free >> "$LOG" || echo taken >> "$LOG"
while [ "$1" != -o ]; do shift; done
echo program > "$2"
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    go = tmp_path / "path" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(go.parent), prepend=":")
    monkeypatch.setenv("DATAHALL_CACHE", str(tmp_path))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path


def test_nothing_else_is_compiled_meanwhile(cache):
    binaries.ensure("etcd", "helm")
    assert (cache / "log").read_text().split() == ["taken", "taken"]


def test_programs_are_built_in_the_order_of_need_whatever_the_order_asked_for(cache, capsys):
    binaries.ensure("helm", "kubectl", "kube-apiserver", "etcd")
    compiled = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines() if "compiling" in line]
    assert compiled == [f"{name}: compiling" for name in ("etcd", "kube-apiserver", "helm", "kubectl")]


def test_what_is_built_is_not_built_again(cache):
    first = binaries.ensure("pause")
    assert binaries.ensure("pause") == first
    assert first["pause"].read_text() == "program\n"
    assert len((cache / "log").read_text().split()) == 1
