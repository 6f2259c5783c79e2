"""What is mounted below a folder that is to be removed, and when it goes."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from local_cluster import cluster


@pytest.fixture
def unmounted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    folders: list[Path] = []
    monkeypatch.setattr(cluster.network, "unmount_under", folders.append)
    return folders


def failing(times: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `rmtree` fail so often, as it does on a mount point."""
    left, real = [times], shutil.rmtree

    def rmtree(folder: Path) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(number, "as told", str(folder))
        real(folder)

    monkeypatch.setattr(cluster.shutil, "rmtree", rmtree)


def test_a_mount_that_came_meanwhile_is_undone_and_the_folder_removed(
    tmp_path: Path, unmounted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kubelet"
    (folder / "pods").mkdir(parents=True)
    failing(2, errno.EBUSY, monkeypatch)
    cluster._remove_mounted(folder)
    assert not folder.exists()
    assert unmounted == [folder] * 3


def test_what_cannot_be_removed_for_another_reason_is_told_at_once(
    tmp_path: Path, unmounted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(1, errno.EACCES, monkeypatch)
    with pytest.raises(PermissionError, match="as told"):
        cluster._remove_mounted(tmp_path)
    assert len(unmounted) == 1


def test_a_mount_that_nobody_can_undo_is_told_in_the_end(
    tmp_path: Path, unmounted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(1000, errno.EBUSY, monkeypatch)
    monkeypatch.setattr(cluster, "_GRACE_SECONDS", 0.15)
    with pytest.raises(OSError, match="as told"):
        cluster._remove_mounted(tmp_path)
    assert len(unmounted) > 1
