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


@pytest.mark.parametrize(
    ("name", "namespace", "said"),
    [
        ("kubelet", "mnt:[1]", "process 42"),
        ("kubelet", "mnt:[2]", ""),  # in a container, where the folder is another
        ("kubectl", "mnt:[1]", ""),
    ],
)
def test_a_kubelet_that_runs_here_is_another_one_but_what_one_has_left_is_not(
    name: str, namespace: str, said: str, tmp_path: Path
) -> None:
    site = Site()
    site.kubelet_root = tmp_path / "kubelet"
    (site.kubelet_root / "pods").mkdir(parents=True)
    for process, command, lives_in in (("self", "python", "mnt:[1]"), ("42", name, namespace)):
        folder = tmp_path / "proc" / process / "ns"
        folder.mkdir(parents=True)
        (folder / "mnt").symlink_to(lives_in)
        (folder.parent / "comm").write_text(f"{command}\n")
    assert machine._other_kubelet(site, tmp_path / "proc") == said
