"""`CLUSTER=current`: use the cluster of the kubeconfig's current context instead of one of our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from local_cluster import binaries
from local_cluster.errors import ClusterError
from local_cluster.progress import say

_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def chosen() -> bool:
    """Whether the environment says so."""
    value = os.environ.get("CLUSTER", "")
    if value not in {"", "local", "current"}:
        raise ClusterError(f"CLUSTER={value}: it is `current`, or `local`, which is the default")
    return value == "current"


def check() -> None:
    """Say whether it answers, which version it has, and whether GPUs and default storage are there."""
    context = _kubectl("config", "current-context").strip()
    version = json.loads(_kubectl("version", "--output=json"))["serverVersion"]["gitVersion"]
    say(f"context {context}: Kubernetes {version} answers")
    gpus = sum(
        int(node["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) for node in _items("nodes")
    )
    say(f"GPUs (nvidia.com/gpu): {gpus or 'none; jobs that ask for GPUs will wait'}")
    defaults = [
        item["metadata"]["name"]
        for item in _items("storageclasses")
        if item["metadata"].get("annotations", {}).get(_DEFAULT) == "true"
    ]
    say(f"default StorageClass: {', '.join(defaults) or 'none; claims must name theirs'}")


def _items(kind: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(_kubectl("get", kind, "--output=json"))["items"]
    return items


def _kubectl(*arguments: str) -> str:
    program = shutil.which("kubectl") or str(binaries.ensure("kubectl")["kubectl"])
    result = subprocess.run(
        [program, "--request-timeout=10s", *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise ClusterError(f"kubectl {' '.join(arguments[:2])}: {result.stderr.strip()}")
    return result.stdout
