"""`CLUSTER=current`: use the cluster of the kubeconfig's current context instead of one of our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from local_cluster import binaries, images
from local_cluster.errors import ClusterError
from local_cluster.progress import say

_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_OLDEST = (1, 32)  # the chart's kubeVersion
_PROGRAMS = {"kubectl": "kubectl (of about the cluster's version)", "helm": "Helm 4"}
_PAGE = "docs/getting-started.md#on-your-own-cluster"


def chosen() -> bool:
    """Whether the environment says so."""
    value = os.environ.get("CLUSTER", "")
    if value not in {"", "local", "current"}:
        raise ClusterError(f"CLUSTER={value}: it is `current`, or `local`, which is the default")
    return value == "current"


def check(*, with_images: bool) -> None:
    """Refuse what would fail late; say what is there: version, GPUs, default storage.

    Args:
        with_images: Whether Datahall is to be installed there, which needs images that the cluster can pull.
    """
    unbuilt = [name for name in _programs_to_find() if not binaries.location(name).exists()]
    problems = _of_programs(unbuilt) + (_of_images() if with_images else [])
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ClusterError(
            f"CLUSTER=current cannot work yet:\n{listed}\n{_PAGE} goes through it step by step"
        )
    binaries.ensure(*unbuilt)
    context = _context()
    server = json.loads(_kubectl("version", "--output=json"))["serverVersion"]
    version = (int(server["major"]), int(server["minor"].rstrip("+")))
    if version < _OLDEST:
        raise ClusterError(
            f"context {context}: Kubernetes {server['gitVersion']} is too old: Datahall needs 1.32 or newer"
        )
    say(f"context {context}: Kubernetes {server['gitVersion']} answers")
    gpus = sum(
        int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) for node in _items("nodes")
    )
    say(
        f"GPUs (nvidia.com/gpu): {gpus or 'none; the demo computes on the CPU, other jobs that ask for GPUs wait'}"
    )
    defaults = [
        item["metadata"]["name"]
        for item in _items("storageclasses")
        if item["metadata"].get("annotations", {}).get(_DEFAULT) == "true"
    ]
    say(
        f"default StorageClass: {', '.join(defaults) or 'none; claims must name theirs (DATAHALL_STORAGE_CLASS)'}"
    )


def _programs_to_find() -> list[str]:
    return [name for name in _PROGRAMS if shutil.which(name) is None]


def _of_programs(unbuilt: list[str]) -> list[str]:
    """Said before anything is done: helm would be missed only when the demo comes to it."""
    if not unbuilt or shutil.which("go") is not None:
        return []
    return [
        f"not on PATH: {', '.join(unbuilt)}. Install {' and '.join(_PROGRAMS[name] for name in unbuilt)}; "
        "or install Go 1.26 or newer, and they are compiled here"
    ]


def _of_images() -> list[str]:
    variables = [f"DATAHALL_{image.name.upper()}_IMAGE" for image in images.IMAGES]
    unset = [name for name in variables if not os.environ.get(name)]
    if not unset:
        return []
    return [
        f"not set: {', '.join(unset)}. Build both images, push them where your cluster can pull them, and set both "
        "variables to REPOSITORY:TAG"
    ]


def _context() -> str:
    try:
        return _kubectl("config", "current-context").strip()
    except ClusterError as error:
        raise ClusterError(
            "CLUSTER=current: the kubeconfig has no current context: choose one by "
            f"`kubectl config use-context NAME` ({error})"
        ) from error


def _items(kind: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(_kubectl("get", kind, "--output=json"))["items"]
    return items


def _kubectl(*arguments: str) -> str:
    program = shutil.which("kubectl") or str(binaries.location("kubectl"))
    result = subprocess.run(
        [program, "--request-timeout=10s", *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise ClusterError(f"kubectl {' '.join(arguments[:2])}: {result.stderr.strip()}")
    return result.stdout
