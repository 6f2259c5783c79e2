"""Fits the demo to the cluster that it meets, and says at once what would fail late. No I/O here: facts come in.

Three things differ from cluster to cluster: where images come from, which StorageClass can be mounted by several nodes,
and whether there are GPUs. The local cluster needs none of this.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]

PAGE = "docs/getting-started.md#on-your-own-cluster"
IMAGES = {"operator": "DATAHALL_OPERATOR_IMAGE", "trainer": "DATAHALL_TRAINER_IMAGE"}
STORAGE_CLASS = "DATAHALL_STORAGE_CLASS"
ACCESS_MODE = "DATAHALL_ACCESS_MODE"
_MODES = ("ReadWriteMany", "ReadWriteOnce")
_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_GPU = "nvidia.com/gpu"
_MODEL = "nvidia.com/gpu.product"


def missing_programs(names: Sequence[str], which: Callable[[str], object]) -> str | None:
    """What to say about programs that are not on PATH."""
    missing = [name for name in names if which(name) is None]
    if not missing:
        return None
    return (
        f"not on PATH: {', '.join(missing)}. `make demo` puts them there; to run this by hand, first "
        'eval "$(.venv/bin/python -m local_cluster env)" and export PATH="$PWD/.venv/bin:$PATH"'
    )


def image_flags(environ: Mapping[str, str]) -> list[str]:
    """Flags for Helm that name both images.

    The chart's own names exist in no registry: without images of the team's, Helm would wait for pods that cannot
    start, and an upgrade would take a working operator's image away.
    """
    unset = [variable for variable in IMAGES.values() if not environ.get(variable)]
    if unset:
        raise SystemExit(
            f"not set: {', '.join(unset)}. Build both images, push them where the cluster can pull them, "
            f"and set both variables to REPOSITORY:TAG ({PAGE})"
        )
    flags = []
    for kind, variable in IMAGES.items():
        for field, value in _image(variable, environ[variable]).items():
            flags.append(f"--set=images.{kind}.{field}={value}")
    return flags


def _image(variable: str, image: str) -> dict[str, str]:
    repository, _, digest = image.partition("@")
    if digest:
        return {"repository": repository, "digest": digest}
    repository, _, tag = image.rpartition(":")
    # In REGISTRY:5000/NAME the colon is that of a port.
    if not repository or "/" in tag:
        raise SystemExit(f"{variable}={image}: it needs a tag, as in {image}:0.1.0, or a digest")
    return {"repository": repository, "tag": tag}


def claims_to_make(
    manifests: Sequence[Json], *, present: Sequence[str], classes: Sequence[Json], environ: Mapping[str, str]
) -> list[Json]:
    """The claims that are not there yet, of the StorageClass and access mode that the environment names.

    Args:
        manifests: The example's claims.
        present: Names of claims that exist; those stay as they are.
        classes: The cluster's StorageClasses.
        environ: The environment.
    """
    wanted, mode = environ.get(STORAGE_CLASS, ""), environ.get(ACCESS_MODE, "")
    names = sorted(item["metadata"]["name"] for item in classes)
    there = f"this cluster has: {', '.join(names) or 'none'}"
    if mode and mode not in _MODES:
        raise SystemExit(f"{ACCESS_MODE}={mode}: it is {' or '.join(_MODES)}")
    if wanted and wanted not in names:
        raise SystemExit(f"{STORAGE_CLASS}={wanted}: there is no such StorageClass; {there}")
    missing = [copy.deepcopy(item) for item in manifests if item["metadata"]["name"] not in present]
    annotations = [item["metadata"].get("annotations") or {} for item in classes]
    if missing and not wanted and not any(each.get(_DEFAULT) == "true" for each in annotations):
        raise SystemExit(
            f"there is no default StorageClass: set {STORAGE_CLASS} to one that can do ReadWriteMany; {there}"
        )
    for claim in missing:
        if wanted:
            claim["spec"]["storageClassName"] = wanted
        if mode:
            claim["spec"]["accessModes"] = [mode]
    return missing


def usable(node: Json) -> bool:
    """Whether the operator places workers there: ready, not cordoned, no taint but that of GPUs."""
    spec, status = node.get("spec", {}), node.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    foreign = any(
        t["effect"] in ("NoSchedule", "NoExecute") and t["key"] != _GPU for t in spec.get("taints") or ()
    )
    return ready and not spec.get("unschedulable") and not foreign


def workers_with_gpus(nodes: Sequence[Json], *, gpus: int) -> int:
    """How many workers of so many GPUs the cluster could hold if nothing else ran; all of one GPU model."""
    by_model: dict[str, int] = {}
    for node in filter(usable, nodes):
        model = node["metadata"].get("labels", {}).get(_MODEL, "")
        there = int(node["status"].get("allocatable", {}).get(_GPU, 0))
        by_model[model] = by_model.get(model, 0) + there // gpus
    return max(by_model.values(), default=0)


def fitted_job(manifest: Json, nodes: Sequence[Json]) -> tuple[Json, str]:
    """The TrainingJob, on the CPU where the cluster can never give it its GPUs; and what to say about that, or ""."""
    gpus, workers = manifest["spec"]["resources"]["gpus"], manifest["spec"]["workers"]["count"]
    if not gpus or (fit := workers_with_gpus(nodes, gpus=gpus)) >= workers:
        return manifest, ""
    fitted = copy.deepcopy(manifest)
    fitted["spec"]["resources"]["gpus"] = 0
    return fitted, (
        f"the job asks for {workers} x {gpus} {_GPU}, and the nodes of this cluster hold {fit} such workers: "
        "it is applied with resources.gpus: 0 and computes on the CPU"
    )


# Why a job waits that will wait for ever. A refusal by the API server is not among them: some pass within seconds.
_HOPELESS = {"NoSuchNodes", "QuotaTooSmall", "QueueNotFound", "QueueForbidden", "ClaimNotFound"}


def hopeless(status: Json) -> str:
    """Why a TrainingJob will never start as things are, or ""."""
    for condition in status.get("conditions") or ():
        if (condition["type"], condition["status"]) == ("Queued", "True") and condition[
            "reason"
        ] in _HOPELESS:
            return f"{condition['reason']}: {condition['message']}"
    return ""


def trouble(pod: Json) -> str:
    """What keeps a pod from running, in the cluster's own words; "" if nothing is said."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition["status"] == "False" and condition.get("message"):
            return f"{condition.get('reason', condition['type'])}: {condition['message']}"
    return ""
