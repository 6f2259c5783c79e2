"""GPU nodes that exist only as API objects, laid out like a data hall: node, rack, block.

Defaults follow common practice for eight-GPU machines: four to a rack, and thirty-two (eight racks) to a block that
shares one non-blocking network.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from local_cluster.rest import Object, Rest

H100 = "NVIDIA-H100-80GB-HBM3"
KWOK_ANNOTATION = "kwok.x-k8s.io/node"
_CONNECTIONS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How many nodes there are and how they stand in the hall."""

    nodes: int
    products: tuple[str, ...] = (H100,)
    """Values of the label nvidia.com/gpu.product; racks take them in turn, so that a rack holds one model."""
    gpus_per_node: int = 8
    nodes_per_rack: int = 4
    racks_per_block: int = 8
    cpu: str = "128"
    memory: str = "1Ti"


def render(index: int, layout: Layout) -> Object:
    """The Node object of one machine, Ready-to-be: KWOK sets its conditions."""
    rack = index // layout.nodes_per_rack
    block = rack // layout.racks_per_block
    name = f"gpu-{index:04}"
    resources = {"cpu": layout.cpu, "memory": layout.memory, "pods": "110", "ephemeral-storage": "1Ti"}
    if layout.gpus_per_node:
        resources["nvidia.com/gpu"] = str(layout.gpus_per_node)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {KWOK_ANNOTATION: "fake"},
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "nvidia.com/gpu.product": layout.products[rack % len(layout.products)],
                "nvidia.com/gpu.count": str(layout.gpus_per_node),
                "datahall.dev/rack": f"rack-{rack:03}",
                "datahall.dev/block": f"block-{block:02}",
            },
        },
        # The API server keeps the status of a node that is created with one, as a kubelet does.
        "status": {"allocatable": resources, "capacity": resources},
    }


def create(layout: Layout, connect: Callable[[], Rest]) -> list[str]:
    """Create all nodes over several connections and return their names."""
    objects = [render(index, layout) for index in range(layout.nodes)]

    def send(share: list[Object]) -> None:
        rest = connect()
        try:
            for item in share:
                rest.call("POST", "/api/v1/nodes", item)
        finally:
            rest.close()

    shares = [objects[start::_CONNECTIONS] for start in range(_CONNECTIONS)]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(send, [share for share in shares if share]))
    return [item["metadata"]["name"] for item in objects]
