"""The full cluster's addresses and folders, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from local_cluster.paths import cache_home

NODE = "hall-node-0"
GPUS = 8
NODE_LABELS = {
    "nvidia.com/gpu.product": "Simulated-H100",
    "nvidia.com/gpu.count": str(GPUS),
    "datahall.dev/rack": "rack-000",
    "datahall.dev/block": "block-00",
}
DOMAIN = "cluster.local"
CGROUP = "datahall"
HOST_LINK, NODE_LINK = "datahall0", "datahall1"


@dataclass(frozen=True, slots=True)
class Addresses:
    """A /16 cut into: a link between machine and node, pods, Services."""

    prefix: str
    """First two numbers; `$DATAHALL_NETWORK` where 10.213 is taken."""

    @property
    def whole(self) -> str:
        """All of it, for finding collisions."""
        return f"{self.prefix}.0.0/16"

    @property
    def host(self) -> str:
        """The machine's end of the link."""
        return f"{self.prefix}.0.1"

    @property
    def node(self) -> str:
        """The node's end: API server, kubelet and cluster DNS listen here."""
        return f"{self.prefix}.0.2"

    @property
    def pods(self) -> str:
        """Range of pod addresses."""
        return f"{self.prefix}.64.0/18"

    @property
    def services(self) -> str:
        """Range of Service addresses."""
        return f"{self.prefix}.128.0/18"


class Site:
    """Where everything of the one full cluster of this machine lies."""

    def __init__(self) -> None:
        """Reads the environment; touches nothing."""
        self.addresses = Addresses(os.environ.get("DATAHALL_NETWORK", "10.213"))
        self.state = cache_home() / "cluster"
        """Goes with `down`."""
        self.containerd_root = cache_home() / "containerd"
        """Images; stays."""
        # Sockets have a limit of 108 characters, so they cannot lie under a cache folder of any depth.
        self.run = Path("/run/datahall")
        # Fixed in the device-plugin API and in every tool that reads pod resources: another path would be a trap.
        self.kubelet_root = Path("/var/lib/kubelet")
        self.kubelet_own = self.state / "kubelet"
        """What is mounted there, so that nothing is ever written to, or removed from, the machine's own folder."""
        self.kubelet_mark = self.kubelet_root / ".datahall-local-cluster"
        """Names the state of the cluster that it belongs to."""

    @property
    def other_state(self) -> Path | None:
        """The state of a cluster under another DATAHALL_CACHE, which has this machine's kubelet folder; or None."""
        owner = self.kubelet_mark.read_text().strip() if self.kubelet_mark.exists() else ""
        state = Path(owner) if owner else self.state
        return state if state != self.state and state.exists() else None

    @cached_property
    def namespace(self) -> Path:
        """The network namespace, held open by a mount."""
        return self.run / "netns"

    @property
    def socket(self) -> Path:
        """Containerd's socket."""
        return self.run / "containerd.sock"

    @property
    def pki(self) -> Path:
        """Certificates."""
        return self.state / "pki"

    @property
    def logins(self) -> Path:
        """Kubeconfigs."""
        return self.state / "kubeconfig"

    @property
    def kubeconfig(self) -> Path:
        """The one for people and tests."""
        return self.logins / "admin.conf"

    @property
    def logs(self) -> Path:
        """A log for each component."""
        return self.state / "logs"

    @property
    def volumes(self) -> Path:
        """What PersistentVolumeClaims hold."""
        return self.state / "volumes"

    @property
    def url(self) -> str:
        """The API server."""
        return f"https://{self.addresses.node}:6443"
