"""Objects that a cluster needs before anything else: kubeadm's bindings, the rights of CoreDNS, the storage class."""

from __future__ import annotations

from local_cluster import provisioner
from local_cluster.rest import Object, Rest, RestError

_RBAC = "/apis/rbac.authorization.k8s.io/v1"


def create(rest: Rest) -> None:
    """Create each of them; what is there already stays as it is."""
    for path, item in _objects():
        try:
            rest.call("POST", path, item)
        except RestError as error:
            if error.status != 409:
                raise


def _objects() -> list[tuple[str, Object]]:
    return [
        # The first two before the first `kubectl logs`: the kubelet remembers a refusal for 30 seconds.
        _binding("kubeadm:cluster-admins", role="cluster-admin", kind="Group", name="kubeadm:cluster-admins"),
        _binding(
            "kubeadm:apiserver-kubelet-client",
            role="system:kubelet-api-admin",
            kind="User",
            name="kube-apiserver-kubelet-client",
        ),
        (
            f"{_RBAC}/clusterroles",
            {
                "metadata": {"name": "system:coredns"},
                "rules": [
                    {
                        "apiGroups": [""],
                        "resources": ["services", "pods", "namespaces"],
                        "verbs": ["list", "watch"],
                    },
                    {
                        "apiGroups": ["discovery.k8s.io"],
                        "resources": ["endpointslices"],
                        "verbs": ["list", "watch"],
                    },
                ],
            },
        ),
        _binding("system:coredns", role="system:coredns", kind="User", name="system:coredns"),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            {
                "metadata": {
                    "name": provisioner.CLASS,
                    "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                },
                "provisioner": provisioner.NAME,
                "reclaimPolicy": "Delete",
                "volumeBindingMode": "Immediate",
            },
        ),
    ]


def _binding(binding: str, *, role: str, kind: str, name: str) -> tuple[str, Object]:
    return (
        f"{_RBAC}/clusterrolebindings",
        {
            "metadata": {"name": binding},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}],
        },
    )
