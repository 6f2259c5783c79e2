"""Configuration and objects as they are rendered: the settings that something fails without."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from local_cluster import binaries, components, containerd, current, gpu_nodes, kubeconfig, provisioner
from local_cluster.errors import ClusterError
from local_cluster.gpu_nodes import Layout
from local_cluster.site import Site


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    monkeypatch.setenv("DATAHALL_CACHE", str(tmp_path))
    monkeypatch.setenv("DATAHALL_NETWORK", "10.99")
    return Site()


@pytest.fixture
def files(site: Site) -> dict[str, str]:
    rendered = components.files(site, cni=Path("/usr/lib/cni"))
    return {path.name: content for path, content in rendered.items()}


def test_containerd_config_is_toml_with_the_traps_covered(files: dict[str, str], site: Site) -> None:
    config = tomllib.loads(files["containerd.toml"])
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["netns_mounts_under_state_dir"] is True
    assert cri["sandbox_image"] == components.PAUSE_IMAGE
    assert config["grpc"]["address"] == str(site.socket)
    assert len(str(site.socket)) < 100


def test_kubelet_config(files: dict[str, str]) -> None:
    config = json.loads(files["kubelet.json"])
    assert config["failCgroupV1"] is False
    assert config["cgroupDriver"] == "cgroupfs"
    assert config["clusterDNS"] == ["10.99.0.2"]
    assert config["imageGCHighThresholdPercent"] == 100


def test_kube_proxy_leaves_the_kernels_limits_alone(files: dict[str, str]) -> None:
    config = json.loads(files["kube-proxy.json"])
    assert config["mode"] == "nftables"
    assert config["conntrack"] == {
        "maxPerCore": 0,
        "min": 0,
        "tcpEstablishedTimeout": "0s",
        "tcpCloseWaitTimeout": "0s",
    }


def test_names_that_do_not_exist_yet_are_asked_for_again_after_a_second(files: dict[str, str]) -> None:
    assert re.search(r"denial \d+ 1\n", files["Corefile"])


def test_kubeadm_reads_two_documents(files: dict[str, str]) -> None:
    init, cluster = (json.loads(part) for part in files["kubeadm.json"].split("\n---\n"))
    assert init["localAPIEndpoint"]["advertiseAddress"] == "10.99.0.2"
    assert cluster["networking"]["serviceSubnet"] == "10.99.128.0/18"


def test_components_come_after_what_they_need(site: Site) -> None:
    programs = {name: Path("/bin") / name for name in binaries.PROGRAMS}
    names = [component.name for component in components.components(site, programs)]
    assert (
        names.index("etcd") < names.index("kube-apiserver") < names.index("kubelet") < names.index("gpusim")
    )
    assert names.index("containerd") < names.index("kubelet")


@pytest.mark.parametrize(
    ("index", "rack", "block", "product"),
    [(0, "rack-000", "block-00", "A"), (4, "rack-001", "block-00", "B"), (32, "rack-008", "block-01", "A")],
    ids=["first", "next-rack", "next-block"],
)
def test_nodes_stand_in_racks_and_blocks(index: int, rack: str, block: str, product: str) -> None:
    node = gpu_nodes.render(index, Layout(nodes=64, products=("A", "B")))
    labels = node["metadata"]["labels"]
    assert labels["datahall.dev/rack"] == rack
    assert labels["datahall.dev/block"] == block
    assert labels["nvidia.com/gpu.product"] == product
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"


def test_a_node_without_gpus_offers_none() -> None:
    node = gpu_nodes.render(0, Layout(nodes=1, gpus_per_node=0))
    assert "nvidia.com/gpu" not in node["status"]["allocatable"]


def test_kubeconfig_is_complete() -> None:
    config = json.loads(kubeconfig.render(url="https://x:1", ca=b"CA", token="t"))
    assert config["current-context"] == config["contexts"][0]["name"]
    assert base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]) == b"CA"


def claim(**changes: Any) -> dict[str, Any]:
    spec = {
        "storageClassName": "standard",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
        **changes,
    }
    return {"metadata": {"name": "data", "namespace": "n", "uid": "u"}, "spec": spec}


def test_a_claim_gets_one_volume() -> None:
    volume = provisioner.volume_for(claim(), Path("/v"))
    assert volume["spec"]["hostPath"]["path"] == "/v/n_data_u"
    assert volume["spec"]["claimRef"]["uid"] == "u"
    assert list(provisioner.wanted([claim()], [])) == [claim()]
    assert list(provisioner.wanted([claim()], [volume])) == []


@pytest.mark.parametrize(
    "changes",
    [{"storageClassName": "other"}, {"storageClassName": ""}, {"volumeName": "v"}],
    ids=["other-class", "no-class", "bound"],
)
def test_claims_that_are_not_ours_are_left_alone(changes: dict[str, Any]) -> None:
    assert list(provisioner.wanted([claim(**changes)], [])) == []


def test_only_our_released_volumes_are_removed() -> None:
    ours = {**provisioner.volume_for(claim(), Path("/v")), "status": {"phase": "Released"}}
    bound = {**ours, "status": {"phase": "Bound"}}
    foreign = {"metadata": {"name": "x"}, "status": {"phase": "Released"}}
    assert list(provisioner.released([ours, bound, foreign])) == [ours]


def test_an_archive_names_one_manifest_twice_and_holds_the_blobs(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"blob")
    file = io.BytesIO()
    descriptor = {"mediaType": "m", "digest": "sha256:aa", "size": 4}
    containerd.write_archive(
        file, names=["r:dev", "r:1"], descriptor=descriptor, blobs=[("sha256:aa", tmp_path / "b")]
    )
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        assert archive.getnames() == ["oci-layout", "index.json", "blobs/sha256/aa"]
        member = archive.extractfile("index.json")
        assert member is not None
        manifests = json.loads(member.read())["manifests"]
    assert [item["annotations"]["io.containerd.image.name"] for item in manifests] == ["r:dev", "r:1"]


def test_an_unknown_choice_of_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "currant")
    with pytest.raises(ClusterError, match="currant"):
        current.chosen()
