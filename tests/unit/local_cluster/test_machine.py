"""What a machine lacks is said in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_cluster import machine
from local_cluster.errors import ClusterError
from local_cluster.site import Site


def test_all_problems_are_listed_at_once_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(machine, "missing_packages", lambda *, images: ["containerd", "runc"])
    with pytest.raises(ClusterError) as caught:
        machine.check(Site(), images=True)
    text = str(caught.value)
    assert "not root" in text
    assert "containerd, runc" in text
    assert "CLUSTER=current" in text


def test_another_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.platform, "system", lambda: "Darwin")
    with pytest.raises(ClusterError, match="Darwin"):
        machine.check(Site(), images=False)
