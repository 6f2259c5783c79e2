"""A blob is linked into containerd's store, or it is sent: never neither."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local_cluster import containerd
from local_cluster.containerd import import_image

LAYER = "sha256:" + "b" * 64
MANIFEST = "sha256:" + "a" * 64


@pytest.fixture
def image(tmp_path: Path) -> Any:
    blobs = tmp_path / "images" / "trainer" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest in (MANIFEST, LAYER):
        (blobs / digest.removeprefix("sha256:")).write_text(digest)
    return SimpleNamespace(
        name="trainer", names=lambda: ["trainer:dev", "trainer:1"], layout=tmp_path / "images" / "trainer"
    )


class FakeCtr:
    """What `ctr` was told; `failing` names a verb of `ctr content` that does not work."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.told: list[tuple[str, ...]] = []
        self.archive = io.BytesIO()

    def __call__(self, site: Any, *arguments: str, check: bool = True, stdin: Any = None) -> Any:
        self.told.append(arguments)
        return SimpleNamespace(returncode=int(arguments[1] == self.failing), stdout=b"")

    def sent(self) -> set[str]:
        self.archive.seek(0)
        with tarfile.open(fileobj=self.archive) as archive:
            names = archive.getnames()
        return {name.removeprefix("blobs/").replace("/", ":") for name in names if name.startswith("blobs/")}


def imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: Any, ctr: FakeCtr) -> Path:
    """Import; the folder where containerd keeps blobs."""

    class Kept:
        def __enter__(self) -> io.BytesIO:
            return ctr.archive

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(containerd, "_ctr", ctr)
    monkeypatch.setattr(containerd, "_importing", lambda site: Kept())
    monkeypatch.setattr(containerd.images, "manifest", lambda layout: ({}, [MANIFEST, LAYER]))
    site: Any = SimpleNamespace(containerd_root=tmp_path / "containerd")
    import_image(site, image)
    return tmp_path / "containerd" / "io.containerd.content.v1.content" / "blobs" / "sha256"


def test_blobs_are_linked_and_only_the_manifest_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: Any
) -> None:
    ctr = FakeCtr()
    store = imported(monkeypatch, tmp_path, image, ctr)
    assert ctr.sent() == {MANIFEST}
    assert (store / ("b" * 64)).stat().st_nlink == 2
    # Held against garbage collection before the import, and let go after it.
    marks = [told[3] for told in ctr.told if told[:3] == ("content", "label", LAYER)]
    assert marks == ["containerd.io/gc.root=import", "containerd.io/gc.root="]


@pytest.mark.parametrize("failing", ["ingest", "label"])
def test_what_containerd_did_not_take_or_hold_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: Any, failing: str
) -> None:
    ctr = FakeCtr(failing)
    imported(monkeypatch, tmp_path, image, ctr)
    assert ctr.sent() == {MANIFEST, LAYER}


def test_what_cannot_be_linked_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: Any) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    ctr = FakeCtr()
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    imported(monkeypatch, tmp_path, image, ctr)
    assert ctr.sent() == {MANIFEST, LAYER}
    assert not [told for told in ctr.told if told[1] == "ingest"]
