"""`CLUSTER=current`: what is missing is said at once, before anything is done."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from local_cluster import binaries, cli, current
from local_cluster.errors import ClusterError

Put = Callable[..., None]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with an empty PATH and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("DATAHALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLUSTER", "current")
    monkeypatch.setenv("DATAHALL_OPERATOR_IMAGE", "registry/operator:1")
    monkeypatch.setenv("DATAHALL_TRAINER_IMAGE", "registry/trainer:1")
    return folder


@pytest.fixture
def put(machine: Path) -> Put:
    """Put a program on PATH that answers by the words of its command line."""

    def make(name: str, folder: Path = machine, **answers: object) -> None:
        cases = "".join(
            f"  *{word}*) echo {shlex.quote(answer if isinstance(answer, str) else json.dumps(answer))};;\n"
            for word, answer in answers.items()
        )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}  *) echo "no answer: $*" >&2; exit 1;;\nesac\n')
        path.chmod(0o755)

    return make


CLASS = {
    "metadata": {"name": "shared", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
}


def cluster(
    *, minor: str = "36", gpus: str | None = "8", classes: tuple[object, ...] = (CLASS,)
) -> dict[str, object]:
    server = {"major": "1", "minor": minor, "gitVersion": f"v1.{minor}.0"}
    allocatable = {"cpu": "4"} | ({"nvidia.com/gpu": gpus} if gpus else {})
    return {
        "context": "hall",
        "version": {"serverVersion": server},
        "nodes": {"items": [{"status": {"allocatable": allocatable}}]},
        "storageclasses": {"items": list(classes)},
    }


def test_all_that_is_missing_is_said_at_once_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, put: Put
) -> None:
    put("kubectl", **cluster())
    monkeypatch.delenv("DATAHALL_TRAINER_IMAGE")
    with pytest.raises(ClusterError) as caught:
        current.check(with_images=True)
    text = str(caught.value)
    assert "not on PATH: helm. Install Helm 4; or install Go" in text
    assert "not set: DATAHALL_TRAINER_IMAGE. Build both images" in text
    page, _, heading = text.splitlines()[-1].split()[0].partition("#")
    written = (Path(__file__).parents[3] / page).read_text(encoding="utf-8")
    assert f"## {heading.replace('-', ' ').capitalize()}" in written.splitlines()


def test_both_programs_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="not on PATH: kubectl, helm"):
        current.check(with_images=True)


def test_the_command_ends_with_one_sentence_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("local_cluster: CLUSTER=current cannot work yet:")
    assert "Traceback" not in said


def test_programs_of_ours_that_are_built_already_will_do(
    put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    put("kubectl", binaries.location("kubectl").parent, **cluster())
    put("helm", binaries.location("helm").parent)
    current.check(with_images=True)
    assert "context hall: Kubernetes v1.36.0 answers" in capsys.readouterr().err


def test_what_is_missing_is_compiled_where_there_is_go(
    monkeypatch: pytest.MonkeyPatch, put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    built: list[str] = []
    monkeypatch.setattr(binaries, "ensure", lambda *names: built.extend(names))
    put("go")
    put("kubectl", **cluster())
    current.check(with_images=True)
    assert built == ["helm"]


def test_a_look_at_the_cluster_needs_no_images(monkeypatch: pytest.MonkeyPatch, put: Put) -> None:
    monkeypatch.delenv("DATAHALL_OPERATOR_IMAGE")
    put("kubectl", **cluster())
    put("helm")
    assert cli.main(["status"]) == 0
    assert cli.main(["up"]) == 1


def test_a_cluster_that_is_too_old_is_refused(put: Put) -> None:
    put("kubectl", **cluster(minor="31+"))
    put("helm")
    with pytest.raises(ClusterError, match=r"v1\.31\+\.0 is too old: Datahall needs 1\.32"):
        current.check(with_images=True)


def test_the_oldest_version_is_that_of_the_chart() -> None:
    chart = (Path(__file__).parents[3] / "charts" / "datahall" / "Chart.yaml").read_text(encoding="utf-8")
    assert f'kubeVersion: ">={current._OLDEST[0]}.{current._OLDEST[1]}.0-0"' in chart


def test_missing_gpus_and_storage_are_told_before_they_are_missed(
    put: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    put("kubectl", **cluster(gpus=None, classes=({"metadata": {"name": "plain"}},)))
    put("helm")
    current.check(with_images=True)
    said = capsys.readouterr().err
    assert "GPUs (nvidia.com/gpu): none; the demo computes on the CPU" in said
    assert "default StorageClass: none; claims must name theirs (DATAHALL_STORAGE_CLASS)" in said


def test_a_kubeconfig_without_context_is_a_sentence(put: Put) -> None:
    put("kubectl")
    put("helm")
    with pytest.raises(ClusterError, match="choose one by `kubectl config use-context NAME`"):
        current.check(with_images=True)


def test_images_are_not_brought_to_a_cluster_that_is_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["images"]) == 1
    assert "build and push them" in capsys.readouterr().err
