"""What each component of the full cluster is started with: pure functions from `Site` to files and command lines.

Comments stand at the settings that are there because something failed without them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_cluster.api import etcd_flags, scheduler_config
from local_cluster.binaries import KUBERNETES_VERSION
from local_cluster.paths import REPOSITORY
from local_cluster.site import CGROUP, DOMAIN, GPUS, NODE, NODE_LABELS, Site

PAUSE_IMAGE = "datahall.dev/pause:local"
_QPS = ("--kube-api-qps=1000", "--kube-api-burst=2000")


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """A program of the node, and how to tell that it is well."""

    name: str
    command: tuple[str, ...]
    health: str | None = None
    """URL that answers 200; None where being alive has to do."""
    environment: Mapping[str, str] = field(default_factory=dict)
    trusts_itself: bool = True
    """The certificate at `health` is self-made, so it is not verified."""


def files(site: Site, *, cni: Path) -> dict[Path, str]:
    """Every configuration file, with its content."""
    state = site.state
    return {
        state / "kubeadm.json": _kubeadm(site),
        state / "scheduler.json": scheduler_config(site.logins / "scheduler.conf"),
        state / "kubelet.json": json.dumps(_kubelet(site), indent=1),
        state / "kube-proxy.json": json.dumps(_kube_proxy(site), indent=1),
        state / "Corefile": corefile(site),
        state / "containerd.toml": _containerd(site, cni=cni),
        state / "cni" / "10-datahall.conflist": json.dumps(_cni(site), indent=1),
        # Empty on purpose: a pod's search list is the cluster's alone, not also that of the machine.
        state / "resolv.conf": "",
    }


def components(site: Site, programs: Mapping[str, Path]) -> list[Component]:
    """All components, each after those it needs."""
    node, state, pki, logins = site.addresses.node, site.state, site.pki, site.logins
    return [
        Component(
            name="etcd",
            command=(
                str(programs["etcd"]),
                *etcd_flags(state / "etcd", client_port=2379, peer_port=2380),
                f"--listen-metrics-urls=http://{node}:2381",
            ),
            health=f"http://{node}:2381/health",
        ),
        Component(name="kube-apiserver", command=_api_server(site, programs), health=f"{site.url}/readyz"),
        Component(
            name="kube-controller-manager",
            command=(
                str(programs["kube-controller-manager"]),
                f"--kubeconfig={logins / 'controller-manager.conf'}",
                f"--bind-address={node}",
                "--leader-elect=false",
                "--use-service-account-credentials=true",
                f"--root-ca-file={pki / 'ca.crt'}",
                f"--client-ca-file={pki / 'ca.crt'}",
                f"--cluster-signing-cert-file={pki / 'ca.crt'}",
                f"--cluster-signing-key-file={pki / 'ca.key'}",
                f"--service-account-private-key-file={pki / 'sa.key'}",
                # Else it makes a folder under /usr/libexec that nothing removes.
                f"--flex-volume-plugin-dir={state / 'volume-plugins'}",
                *_QPS,
            ),
            health=f"https://{node}:10257/healthz",
        ),
        Component(
            name="kube-scheduler",
            command=(
                str(programs["kube-scheduler"]),
                f"--config={state / 'scheduler.json'}",
                f"--bind-address={node}",
            ),
            health=f"https://{node}:10259/healthz",
        ),
        Component(name="containerd", command=("containerd", f"--config={state / 'containerd.toml'}")),
        Component(
            name="kubelet",
            command=(
                str(programs["kubelet"]),
                f"--config={state / 'kubelet.json'}",
                f"--kubeconfig={logins / 'kubelet.conf'}",
                f"--root-dir={site.kubelet_root}",
                f"--cert-dir={state / 'kubelet-pki'}",
                f"--hostname-override={NODE}",
                f"--node-ip={node}",
                "--node-labels=" + ",".join(f"{key}={value}" for key, value in NODE_LABELS.items()),
            ),
            health=f"http://{node}:10248/healthz",
        ),
        Component(
            name="kube-proxy",
            command=(str(programs["kube-proxy"]), f"--config={state / 'kube-proxy.json'}"),
            health=f"http://{node}:10256/healthz",
        ),
        Component(
            name="coredns",
            command=(str(programs["coredns"]), "-conf", str(state / "Corefile")),
            health=f"http://{node}:8181/ready",
        ),
        Component(name="gpusim", command=(str(programs["gpusim"]), f"--count={GPUS}", f"--node={NODE}")),
        Component(
            name="provisioner",
            command=(
                sys.executable,
                "-m",
                "local_cluster.provisioner",
                str(logins / "super-admin.conf"),
                str(site.volumes),
            ),
            environment={"PYTHONPATH": str(REPOSITORY)},
        ),
    ]


def _api_server(site: Site, programs: Mapping[str, Path]) -> tuple[str, ...]:
    pki = site.pki
    return (
        str(programs["kube-apiserver"]),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={site.addresses.node}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={site.addresses.services}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        "--max-requests-inflight=1000",
        "--max-mutating-requests-inflight=500",
        "--profiling=false",
    )


def _kubeadm(site: Site) -> str:
    """Only its PKI phases are run; they read these two documents."""
    addresses = site.addresses
    init = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": addresses.node, "bindPort": 6443},
        "nodeRegistration": {"name": NODE, "criSocket": f"unix://{site.socket}"},
    }
    cluster = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "kubernetesVersion": KUBERNETES_VERSION,
        "clusterName": "datahall",
        "certificatesDir": str(site.pki),
        "encryptionAlgorithm": "ECDSA-P256",  # a dozen RSA keys would take longer than the API server's start
        "networking": {
            "serviceSubnet": addresses.services,
            "podSubnet": addresses.pods,
            "dnsDomain": DOMAIN,
        },
    }
    return f"{json.dumps(init, indent=1)}\n---\n{json.dumps(cluster, indent=1)}\n"


def _kubelet(site: Site) -> dict[str, object]:
    node = site.addresses.node
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node,
        "healthzBindAddress": node,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(site.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [node],
        "clusterDomain": DOMAIN,
        "resolvConf": str(site.state / "resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{site.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,  # lowering it takes CAP_SYS_RESOURCE
        "makeIPTablesUtilChains": False,
        "serializeImagePulls": False,
        "podLogsDir": str(site.state / "pod-logs"),
        "volumePluginDir": str(site.state / "volume-plugins"),
        "maxPods": 200,
        # The images exist nowhere else: a kubelet that tidies up a full disk would make every pod unstartable.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # The defaults are shares of the disk; on a developer's half-full one they evict pods for nothing.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
    }


def _kube_proxy(site: Site) -> dict[str, object]:
    node = site.addresses.node
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": site.addresses.pods,
        "hostnameOverride": NODE,
        "bindAddress": node,
        "healthzBindAddress": f"{node}:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clientConnection": {"kubeconfig": str(site.logins / "kube-proxy.conf")},
        "oomScoreAdj": 0,
        # Limits of the whole kernel, not of this namespace, and read-only in it: 0 leaves them alone.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }


def corefile(site: Site) -> str:
    """Cluster names only: pods cannot reach other name servers, and an unknown name is refused at once.

    Answers are kept for seconds: a worker looks for its gang's first member before that one exists, and must not
    be told for half a minute that it does not.
    """
    return f""".:53 {{
    bind {site.addresses.node}
    errors
    health {site.addresses.node}:8180
    ready {site.addresses.node}:8181
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {site.logins / "coredns.conf"}
        pods insecure
        ttl 2
    }}
    cache 2 {{
        denial 9984 1
    }}
    loadbalance
}}
"""


def _containerd(site: Site, *, cni: Path) -> str:
    """Version 1.6's configuration (version = 2); `json.dumps` because a TOML string is quoted the same way."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    unused = [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")]
    return f"""version = 2
root = {json.dumps(str(site.containerd_root))}
state = {json.dumps(str(site.run / "containerd"))}
disabled_plugins = {json.dumps([*unused, "io.containerd.internal.v1.opt"])}

[grpc]
address = {json.dumps(str(site.socket))}

[{cri}]
sandbox_image = {json.dumps(PAUSE_IMAGE)}
# Without CAP_SYS_RESOURCE runc cannot lower a score: "can't get final child's PID from pipe".
restrict_oom_score_adj = true
# Pods' network namespaces are mounts; here they lie where `down` looks for them.
netns_mounts_under_state_dir = true
disable_apparmor = true
enable_unprivileged_ports = true
enable_unprivileged_icmp = true

[{cri}.cni]
bin_dir = {json.dumps(str(cni))}
conf_dir = {json.dumps(str(site.state / "cni"))}

[{cri}.containerd]
snapshotter = "overlayfs"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
Root = {json.dumps(str(site.run / "runc"))}
"""


def _cni(site: Site) -> dict[str, object]:
    """Point-to-point links and not a bridge.

    On a bridge, the answer of a pod on the same node bypasses the rules that turned the Service's address into
    the pod's, unless br_netfilter is loaded. Routed links need no such help.
    """
    return {
        "cniVersion": "0.4.0",
        "name": "datahall",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": site.addresses.pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(site.run / "ipam"),
                },
            }
        ],
    }
