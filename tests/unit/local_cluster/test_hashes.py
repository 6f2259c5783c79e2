"""What decides whether something is built again."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_cluster.binaries import PROGRAMS, module_hash
from local_cluster.images import IMAGES, files_hash
from local_cluster.paths import REPOSITORY, ROOM, cache_home


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "go.mod").write_text("module x\n")
    (tmp_path / "go.sum").write_text("")
    (tmp_path / "main.go").write_text("package main\n")
    return tmp_path


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go", "more.go"])
def test_a_programs_hash_follows_pins_and_sources(module: Path, name: str) -> None:
    before = module_hash(module)
    with (module / name).open("a") as file:
        file.write("// changed\n")
    assert module_hash(module) != before


def test_a_programs_hash_follows_flags_and_nothing_else(module: Path) -> None:
    before = module_hash(module)
    (module / "README.md").write_text("words")
    assert module_hash(module) == before
    assert module_hash(module, flags=("go", "build")) != before


def test_each_program_has_a_pinned_module() -> None:
    for program in PROGRAMS.values():
        folder = ROOM / program.module
        assert (folder / "go.mod").exists()
        assert (folder / "go.sum").exists() or program.name == "pause"


def test_files_hash_follows_content_and_names_but_not_byte_code(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "a.py").write_text("1")
    first = files_hash(tmp_path, ["package"])
    (folder / "__pycache__" / "a.pyc").write_text("x")
    assert files_hash(tmp_path, ["package"]) == first
    (folder / "a.py").write_text("2")
    second = files_hash(tmp_path, ["package"])
    (folder / "a.py").rename(folder / "b.py")
    third = files_hash(tmp_path, ["package"])
    assert len({first, second, third, files_hash(tmp_path, ["package"], salt="s")}) == 4


def test_images_name_files_that_exist_and_two_tags() -> None:
    for image in IMAGES:
        assert all((REPOSITORY / name).exists() for name in (image.containerfile, *image.inputs))
        stays, by_content = image.names()
        assert stays == f"datahall.dev/{image.name}:dev"
        assert by_content == f"datahall.dev/{image.name}:{image.content_hash()}"


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("DATAHALL_CACHE", raising=False)
    assert cache_home() == tmp_path / "xdg" / "datahall"
    monkeypatch.setenv("DATAHALL_CACHE", str(tmp_path / "own"))
    assert cache_home() == tmp_path / "own"
