"""The demo, on a cluster that is played by programs on PATH: what it says when that cluster is not like ours."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Answers from a file by the words of its command line, and writes down what it was asked and given.
PLAYED = """#!{python}
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
words = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
given = sys.stdin.read() if "-" in words else ""
with (folder / "asked.jsonl").open("a") as log:
    log.write(json.dumps([" ".join(words), given]) + "\\n")
for key, answer in json.loads((folder / "answers.json").read_text()).items():
    if all(word in words for word in key.split()):
        print(json.dumps(answer))
        break
else:
    if "get" in words:
        print('{{"items": []}}' if "--ignore-not-found" not in words else "")
"""


class Played:
    """A cluster that answers as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("kubectl", "helm", "datahall"):
            (folder / name).write_text(PLAYED.format(python=sys.executable))
            (folder / name).chmod(0o755)
        self.answers(**{})

    def answers(self, **answers: Any) -> None:
        """Answers by words of the command line, underlines for spaces."""
        keyed = {key.replace("_", " "): answer for key, answer in answers.items()}
        (self.folder / "answers.json").write_text(json.dumps(keyed))

    @property
    def asked(self) -> list[tuple[str, str]]:
        log = self.folder / "asked.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(command, given) for command, given in map(json.loads, lines)]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("DATAHALL_CACHE", str(tmp_path / "cache"))
    for name in ("DATAHALL_STORAGE_CLASS", "DATAHALL_ACCESS_MODE", "DATAHALL_HELM_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("DATAHALL_OPERATOR_IMAGE", "DATAHALL_TRAINER_IMAGE"):
        monkeypatch.setenv(name, "registry.local/hall/image:1")
    monkeypatch.setattr(sys, "argv", ["demo.py", "digits"])
    return Played(folder)


@pytest.fixture
def demo(path: None) -> ModuleType:
    return importlib.import_module("demo")


@pytest.fixture
def loading(path: None) -> ModuleType:
    return importlib.import_module("loading")


def changes(cluster: Played) -> list[str]:
    return [command for command, _ in cluster.asked if " get " not in command]


def test_a_missing_program_is_said_before_anything_is_done(cluster, demo):
    (cluster.folder / "helm").unlink()
    with pytest.raises(SystemExit, match="not on PATH: helm"):
        demo.main()
    assert cluster.asked == []


def test_missing_images_are_said_before_anything_is_done(cluster, demo, monkeypatch):
    monkeypatch.delenv("DATAHALL_TRAINER_IMAGE")
    with pytest.raises(SystemExit, match="not set: DATAHALL_TRAINER_IMAGE"):
        demo.main()
    assert cluster.asked == []


def test_a_cluster_without_storage_is_refused_before_anything_is_changed(cluster, demo):
    cluster.answers(get_storageclasses={"items": [{"metadata": {"name": "disk"}}]})
    with pytest.raises(SystemExit, match=r"set DATAHALL_STORAGE_CLASS .*this cluster has: disk"):
        demo.main()
    assert changes(cluster) == []


def test_an_installation_that_fails_tells_what_its_pods_say(cluster, demo, capsys):
    (cluster.folder / "helm").write_text("#!/bin/sh\nexit 1\n")
    waiting = {"reason": "ErrImagePull", "message": "not found"}
    status = {"containerStatuses": [{"state": {"waiting": waiting}}]}
    cluster.answers(get_pods={"items": [{"metadata": {"name": "operator-0"}, "status": status}]})
    with pytest.raises(SystemExit, match="failed with exit code 1"):
        demo.install([])
    assert "pod operator-0: ErrImagePull: not found" in capsys.readouterr().out


def test_claims_of_another_class_are_made_and_told(cluster, demo, monkeypatch, capsys):
    monkeypatch.setenv("DATAHALL_STORAGE_CLASS", "nfs")
    cluster.answers(get_storageclasses={"items": [{"metadata": {"name": "nfs"}}]})
    folder = demo.ROOT / "examples" / "digits"
    demo.make_claims(folder, demo.missing_claims(folder))
    made = [json.loads(given) for command, given in cluster.asked if command == "kubectl apply -f -"]
    assert [(claim["metadata"]["name"], claim["spec"]["storageClassName"]) for claim in made] == [
        ("data", "nfs"),
        ("models", "nfs"),
    ]
    assert "claim data: ReadWriteMany, StorageClass nfs" in capsys.readouterr().out


def finished() -> dict[str, Any]:
    output = {"digest": "sha256:" + "0" * 64, "metrics": {"validation_accuracy": 0.98}}
    return {"status": {"state": "Succeeded", "progress": {"device": "cpu"}, "output": output}}


def test_without_gpus_the_job_is_applied_for_the_cpu(cluster, demo, capsys):
    cluster.answers(get_trainingjob=finished())
    demo.train("digits")
    (applied,) = [json.loads(given) for command, given in cluster.asked if command == "kubectl apply -f -"]
    assert (applied["kind"], applied["spec"]["resources"]["gpus"]) == ("TrainingJob", 0)
    printed = capsys.readouterr().out
    assert "it is applied with resources.gpus: 0 and computes on the CPU" in printed
    assert "held-out accuracy: 98.0 %" in printed


def test_with_gpus_the_job_is_applied_as_it_is_written(cluster, demo):
    node = {
        "metadata": {"labels": {}},
        "status": {
            "allocatable": {"nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    cluster.answers(get_trainingjob=finished(), get_nodes={"items": [node]})
    demo.train("digits")
    (applied,) = [command for command in changes(cluster) if " apply " in command]
    assert "30-trainingjob.yaml" in applied
    assert "40-inferenceservice.yaml" in applied


def test_a_job_that_can_never_start_ends_the_demo_with_the_reason(cluster, demo):
    condition = {"type": "Queued", "status": "True", "reason": "NoSuchNodes", "message": "no node has GPUs"}
    cluster.answers(get_trainingjob={"status": {"state": "Queued", "conditions": [condition]}})
    with pytest.raises(SystemExit, match="the job cannot start: NoSuchNodes: no node has GPUs"):
        demo.stop_if_hopeless("digits", seconds=0.3)


@pytest.mark.parametrize("state", ["Starting", "Running", "Succeeded", "Failed"])
def test_a_job_that_started_is_not_held_up(cluster, demo, state):
    cluster.answers(get_trainingjob={"status": {"state": state}})
    demo.stop_if_hopeless("digits", seconds=600)


# ---- the pod that takes the data in


@pytest.fixture
def impatient(loading, monkeypatch):
    for name in ("_QUIET_SECONDS", "_CLAIM_SECONDS", "_POD_SECONDS"):
        monkeypatch.setattr(loading, name, -1)
    return loading


def test_a_claim_that_no_volume_is_made_for_is_said_in_the_provisioners_words(cluster, impatient, capsys):
    claim = {
        "metadata": {"name": "data", "namespace": "team-a", "uid": "c"},
        "spec": {"storageClassName": "disk", "accessModes": ["ReadWriteMany"]},
        "status": {"phase": "Pending"},
    }
    old = {"reason": "Waiting", "message": "for a pod", "lastTimestamp": "2026-11-22T15:00:00Z"}
    new = {"reason": "ProvisioningFailed", "message": "no RWX here", "lastTimestamp": "2026-11-22T16:00:00Z"}
    cluster.answers(get_pvc=claim, get_events={"items": [new, old]}, get_pod={"status": {}})
    with pytest.raises(SystemExit) as caught:
        impatient._await_pod("load-digits", "team-a")
    said = str(caught.value)
    assert "claim data is not bound" in said
    assert "(StorageClass disk, ReadWriteMany): ProvisioningFailed: no RWX here" in said
    assert "DATAHALL_STORAGE_CLASS" in said
    assert "DATAHALL_ACCESS_MODE=ReadWriteOnce" in said
    assert "pod load-digits waits: ProvisioningFailed: no RWX here" in capsys.readouterr().out


def test_an_image_that_cannot_be_pulled_is_said_in_the_kubelets_words(cluster, impatient):
    state = {"waiting": {"reason": "ErrImagePull", "message": "denied"}}
    pod = {"status": {"containerStatuses": [{"state": state}]}}
    cluster.answers(get_pvc={"metadata": {}, "status": {"phase": "Bound"}}, get_pod=pod)
    with pytest.raises(SystemExit, match=r"pod load-digits does not run after .* s: ErrImagePull: denied"):
        impatient._await_pod("load-digits", "team-a")


def test_a_pod_that_runs_is_not_waited_for(cluster, impatient):
    cluster.answers(get_pod={"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    impatient._await_pod("load-digits", "team-a")
