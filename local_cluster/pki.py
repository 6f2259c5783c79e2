"""Certificates and kubeconfigs of the full cluster, made by kubeadm's own phases."""

from __future__ import annotations

import subprocess
from pathlib import Path

from local_cluster.errors import ClusterError
from local_cluster.kubeconfig import write
from local_cluster.site import Site

_LAST = "coredns.conf"
# Components that kubeadm would run in pods, with service accounts: here they are users with certificates.
_USERS = {"kube-proxy.conf": "system:kube-proxy", _LAST: "system:coredns"}


def make(site: Site, kubeadm: Path) -> None:
    """Make all of them, unless they are there."""
    if (site.logins / _LAST).exists():
        return
    config = f"--config={site.state / 'kubeadm.json'}"
    site.logins.mkdir(parents=True, exist_ok=True, mode=0o700)
    _run(kubeadm, "init", "phase", "certs", "all", config)
    _run(kubeadm, "init", "phase", "kubeconfig", "all", config, f"--kubeconfig-dir={site.logins}")
    for name, user in _USERS.items():
        write(site.logins / name, _run(kubeadm, "kubeconfig", "user", f"--client-name={user}", config))


def _run(program: Path, *arguments: str) -> str:
    result = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ClusterError(f"kubeadm {' '.join(arguments[:4])}: {result.stderr.strip()}")
    return result.stdout
