"""The demo fits itself to the cluster that it meets, or says at once why it cannot work there."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from datahall.api.reasons import Reason

ROOT = Path(__file__).parents[3]
IMAGES = {
    "DATAHALL_OPERATOR_IMAGE": "registry.local/hall/operator:0.1.0",
    "DATAHALL_TRAINER_IMAGE": "registry.local/hall/trainer:0.1.0",
}


@pytest.fixture
def fitting(path: None) -> ModuleType:
    return importlib.import_module("fitting")


def manifests(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "examples" / file).read_text(encoding="utf-8")))


def storage_class(name: str, *, default: bool = False) -> dict[str, Any]:
    annotation = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {"metadata": {"name": name} | ({"annotations": annotation} if default else {})}


def node(gpus: int = 0, *, model: str = "H100", ready: bool = True, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": model}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "8"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {}),
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


# ---- programs and images


def test_missing_programs_are_named_all_at_once(fitting):
    assert fitting.missing_programs(["sh"], shutil.which) is None
    said = fitting.missing_programs(["kubectl", "helm"], lambda _: None)
    assert said.startswith("not on PATH: kubectl, helm. ")


def test_images_become_flags_of_the_chart(fitting):
    assert fitting.image_flags(IMAGES) == [
        "--set=images.operator.repository=registry.local/hall/operator",
        "--set=images.operator.tag=0.1.0",
        "--set=images.trainer.repository=registry.local/hall/trainer",
        "--set=images.trainer.tag=0.1.0",
    ]


def test_an_image_may_have_a_port_or_a_digest(fitting):
    digest = "sha256:" + "0" * 64
    environ = {
        "DATAHALL_OPERATOR_IMAGE": "registry.local:5000/operator:dev",
        "DATAHALL_TRAINER_IMAGE": f"registry.local:5000/trainer@{digest}",
    }
    assert fitting.image_flags(environ) == [
        "--set=images.operator.repository=registry.local:5000/operator",
        "--set=images.operator.tag=dev",
        "--set=images.trainer.repository=registry.local:5000/trainer",
        f"--set=images.trainer.digest={digest}",
    ]


@pytest.mark.parametrize("image", ["operator", "hall/operator", "registry.local:5000/operator"])
def test_an_image_without_a_tag_is_refused(fitting, image):
    with pytest.raises(SystemExit, match=f"DATAHALL_OPERATOR_IMAGE={image}: it needs a tag"):
        fitting.image_flags(IMAGES | {"DATAHALL_OPERATOR_IMAGE": image})


def test_images_that_are_not_set_are_asked_for_before_anything_is_installed(fitting):
    with pytest.raises(SystemExit, match="not set: DATAHALL_OPERATOR_IMAGE, DATAHALL_TRAINER_IMAGE"):
        fitting.image_flags({})


def test_the_page_that_errors_lead_to_is_there_and_names_every_variable(fitting):
    page, _, heading = fitting.PAGE.partition("#")
    text = (ROOT / page).read_text(encoding="utf-8")
    headings = [line.lower().replace(" ", "-") for line in text.splitlines() if line.startswith("## ")]
    assert f"##-{heading}" in headings
    assert all(
        name in text for name in (*fitting.IMAGES.values(), fitting.STORAGE_CLASS, fitting.ACCESS_MODE)
    )


# ---- storage


STANDARD = storage_class("standard", default=True)


def claims(fitting, *, present=(), classes=(STANDARD,), environ=None):
    return fitting.claims_to_make(
        manifests("digits/20-storage.yaml"), present=present, classes=classes, environ=environ or {}
    )


def test_where_there_is_a_default_class_the_claims_are_those_of_the_example(fitting):
    assert claims(fitting) == manifests("digits/20-storage.yaml")


def test_claims_that_are_there_are_left_alone_whatever_their_class(fitting):
    assert claims(fitting, present=["data", "models"], classes=[]) == []
    assert [claim["metadata"]["name"] for claim in claims(fitting, present=["data"])] == ["models"]


def test_without_a_default_class_one_is_asked_for(fitting):
    classes = [storage_class("nfs"), storage_class("disk")]
    with pytest.raises(SystemExit, match=r"set DATAHALL_STORAGE_CLASS .* this cluster has: disk, nfs"):
        claims(fitting, classes=classes)


def test_class_and_access_mode_come_from_the_environment(fitting):
    environ = {"DATAHALL_STORAGE_CLASS": "nfs", "DATAHALL_ACCESS_MODE": "ReadWriteOnce"}
    made = claims(fitting, classes=[storage_class("nfs")], environ=environ)
    assert [claim["spec"]["storageClassName"] for claim in made] == ["nfs", "nfs"]
    assert [claim["spec"]["accessModes"] for claim in made] == [["ReadWriteOnce"], ["ReadWriteOnce"]]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DATAHALL_STORAGE_CLASS": "nsf"}, "DATAHALL_STORAGE_CLASS=nsf: there is no such StorageClass"),
        ({"DATAHALL_ACCESS_MODE": "RWX"}, "DATAHALL_ACCESS_MODE=RWX: it is ReadWriteMany or ReadWriteOnce"),
    ],
)
def test_a_typo_is_refused_before_claims_are_made(fitting, environ, message):
    with pytest.raises(SystemExit, match=message):
        claims(fitting, environ=environ)


# ---- GPUs


@pytest.mark.parametrize("example", ["digits", "reviews"])
def test_with_gpus_the_job_is_applied_as_it_is_written(fitting, example):
    (job,) = manifests(f"{example}/30-trainingjob.yaml")
    for nodes in ([node(8)], [node(1), node(1)]):
        assert fitting.fitted_job(job, nodes) == (job, "")


@pytest.mark.parametrize(
    ("nodes", "fit"),
    [
        ([], 0),
        ([node()], 0),
        ([node(1)], 1),
        ([node(1), node(1, model="A100")], 1),
        ([node(8, unschedulable=True)], 0),
        ([node(8, ready=False)], 0),
        ([node(8, taints=[{"key": "dedicated", "effect": "NoSchedule"}])], 0),
    ],
)
def test_without_enough_gpus_the_job_computes_on_the_cpu_and_says_so(fitting, nodes, fit):
    (job,) = manifests("digits/30-trainingjob.yaml")
    fitted, said = fitting.fitted_job(job, nodes)
    assert fitted["spec"]["resources"]["gpus"] == 0
    assert job["spec"]["resources"]["gpus"] == 1, "the manifest itself stays as it is"
    assert f"asks for 2 x 1 nvidia.com/gpu, and the nodes of this cluster hold {fit} such workers" in said


def test_nodes_with_the_taint_of_gpus_count_and_so_do_soft_taints(fitting):
    taints = [
        {"key": "nvidia.com/gpu", "effect": "NoSchedule"},
        {"key": "spot", "effect": "PreferNoSchedule"},
    ]
    assert fitting.workers_with_gpus([node(4, taints=taints)], gpus=2) == 2


# ---- what the cluster says


def queued(reason: str) -> dict[str, Any]:
    condition = {"type": "Queued", "status": "True", "reason": reason, "message": "needs 2 x 1 GPU"}
    return {"state": "Queued", "conditions": [condition]}


def test_a_job_that_can_never_start_is_not_waited_for(fitting):
    assert fitting.hopeless(queued("NoSuchNodes")) == "NoSuchNodes: needs 2 x 1 GPU"
    assert fitting.hopeless(queued("NoRoom")) == ""
    assert fitting.hopeless({}) == ""


def test_hopeless_reasons_are_words_of_the_catalogue(fitting):
    assert {str(reason) for reason in Reason} >= fitting._HOPELESS


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, ""),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, ""),
        (
            {
                "containerStatuses": [
                    {"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
                ]
            },
            "ErrImagePull: not found",
        ),
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes",
                    }
                ]
            },
            "Unschedulable: 0/3 nodes",
        ),
    ],
)
def test_a_pods_trouble_is_told_in_the_clusters_own_words(fitting, status, said):
    assert fitting.trouble({"status": status}) == said


def test_variables_of_the_demo_are_in_its_documentation(fitting):
    text = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
    used = {
        name
        for file in (ROOT / "examples").rglob("*.py")
        for name in re.findall(r"\bDATAHALL_[A-Z_]+\b", file.read_text(encoding="utf-8"))
    }
    assert used >= {"DATAHALL_HELM_FLAGS", "DATAHALL_CACHE"}
    assert [name for name in sorted(used) if name not in text] == []
