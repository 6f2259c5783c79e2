"""Copies a folder into a PersistentVolumeClaim through a pod that mounts it; says what is in the way while it waits."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
from pathlib import Path

import fitting
from commands import found, objects, run, say

CLAIM = "data"
# A claim that can be bound is bound within seconds; an image of several gigabytes may take minutes to arrive.
_CLAIM_SECONDS = 120
_POD_SECONDS = 900
_QUIET_SECONDS = 15


def load(source: Path, *, name: str, namespace: str, image: str) -> None:
    """Copy `source` to `pvc://data/NAME`.

    Args:
        source: A folder of this machine.
        name: Folder in the claim.
        namespace: The claim's.
        image: One with Python, which the cluster needs anyway.
    """
    pod = f"load-{name}"
    # Its grace period is 0, so that it goes at once; by force kubectl would warn of what cannot happen here.
    delete = ("kubectl", "-n", namespace, "delete", "pod", pod)
    run(*delete, "--ignore-not-found", "--timeout=60s", quiet=True)
    run("kubectl", "apply", "-f", "-", stdin=json.dumps(_pod(pod, namespace, image)), quiet=True)
    _await_pod(pod, namespace)
    say(f"copying {source.name} into pvc://{CLAIM}/{name}")
    unpack = (
        "import sys, tarfile; "
        f"tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/mnt/pvc/{CLAIM}/{name}')"
    )
    command = ["kubectl", "-n", namespace, "exec", "-i", pod, "--", "python", "-c", unpack]
    copying = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert copying.stdin is not None
    try:
        with tarfile.open(fileobj=copying.stdin, mode="w|") as archive:
            archive.add(source, arcname=".", filter=_plain)
        copying.stdin.close()
    except BrokenPipeError:
        pass  # it ended early, and its exit code and its words say more than the pipe
    if copying.wait() != 0:
        raise SystemExit(f"copying into the claim {CLAIM} failed: is its volume writable for user 1000?")
    run(*delete, "--wait=false", quiet=True)


def _pod(name: str, namespace: str, image: str) -> fitting.Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "load",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "3600"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": CLAIM, "mountPath": f"/mnt/pvc/{CLAIM}"}],
                }
            ],
            "volumes": [{"name": CLAIM, "persistentVolumeClaim": {"claimName": CLAIM}}],
        },
    }


def _await_pod(name: str, namespace: str) -> None:
    """Wait until the pod runs; after a while, pass on what the cluster says about it, each thing once."""
    started, said = time.monotonic(), ""
    while True:
        pod = found("pod", name, namespace=namespace)
        conditions = pod.get("status", {}).get("conditions") or ()
        if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            return
        claim = found("pvc", CLAIM, namespace=namespace)
        bound = claim.get("status", {}).get("phase") == "Bound"
        why = fitting.trouble(pod) if bound else (_newest_warning(claim) or fitting.trouble(pod))
        waited = time.monotonic() - started
        if waited > _QUIET_SECONDS and why and why != said:
            say(f"pod {name} waits: {why}")
            said = why
        if waited > (_POD_SECONDS if bound else _CLAIM_SECONDS):
            raise SystemExit(_gave_up(name, claim, bound=bound, why=why))
        time.sleep(1)


def _newest_warning(claim: fitting.Json) -> str:
    if not claim:
        return ""
    where = claim["metadata"]
    about = f"involvedObject.uid={where['uid']},type=Warning"
    events = objects("events", "-n", where["namespace"], "--field-selector", about)
    newest = max(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime")), default=None)
    return f"{newest['reason']}: {newest['message']}" if newest else ""


def _gave_up(pod: str, claim: fitting.Json, *, bound: bool, why: str) -> str:
    if bound:
        return f"pod {pod} does not run after {_POD_SECONDS} s: {why or 'the cluster does not say why'}"
    asked = claim.get("spec", {})
    modes = ", ".join(asked.get("accessModes") or ())
    kind = asked.get("storageClassName") or "none, and there is no default"
    return (
        f"claim {CLAIM} is not bound after {_CLAIM_SECONDS} s (StorageClass {kind}, {modes}): "
        f"{why or 'no provisioner answers'}.\n"
        f"Delete the claims and set {fitting.STORAGE_CLASS} to a StorageClass that can do ReadWriteMany, or, on a "
        f"cluster of one node, {fitting.ACCESS_MODE}=ReadWriteOnce ({fitting.PAGE})"
    )


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 1000
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member
