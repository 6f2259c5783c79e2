"""The finer points of the projections: requests as the scheduler counts them, pins, taints, whose status it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from datahall.control.child_views import child_view, deployment_view
from datahall.control.storage_views import claim_view
from datahall.control.views import job_view, node_view, pod_view, queue_view, service_view
from tests.unit.control.world import merged, worker

Json = dict[str, Any]
GI = 1 << 30


def meta(**more: Any) -> Json:
    return {
        "name": "x",
        "namespace": "team-a",
        "uid": "u",
        "resourceVersion": "42",
        "creationTimestamp": "2026-11-22T16:00:00Z",
        **more,
    }


def pod(spec: Json | None = None, **status: Any) -> Any:
    return pod_view({"metadata": meta(), "spec": spec or {}, "status": status})


def container(cpu: str = "0", memory: str = "0", gpus: int = 0, **more: Any) -> Json:
    requests: Json = {"cpu": cpu, "memory": memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {"name": "c", "resources": {"requests": requests}, **more}


def ends(**terminated: Any) -> Json:
    return {"containerStatuses": [{"state": {"terminated": terminated}}]}


# ---- pods


def test_our_worker_knows_its_place_before_it_is_bound():
    view = worker()
    assert (view.node, view.bound, view.generation, view.rank) == ("node-0", False, 1, 0)
    assert (view.gpus, view.cpu_milli, view.memory_bytes) == (1, 4000, 16 * GI)
    bound = worker(spec={"nodeName": "node-0"})
    assert (bound.node, bound.bound) == ("node-0", True)


@pytest.mark.parametrize(
    "affinity",
    [
        {},
        {"nodeAffinity": {}},
        {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                    ]
                }
            }
        },
        {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"preference": {"matchFields": [{"key": "metadata.name", "values": ["a"]}]}}
                ]
            }
        },
    ],
)
def test_other_affinities_pin_to_no_node(affinity):
    assert pod({"affinity": affinity}).node == ""


@pytest.mark.parametrize(
    ("containers", "first", "expected"),
    [
        ([container("1", "1Gi", 2), container("500m", "1Gi")], [], (2, 1500, 2 * GI)),
        ([container("1")], [container("4")], (0, 4000, 0)),
        ([container("1"), container("1")], [container("1"), container("1500m")], (0, 2000, 0)),
        ([container("1", gpus=1)], [container("2", gpus=4)], (4, 2000, 0)),
        ([container("1")], [container("1", restartPolicy="Always")], (0, 2000, 0)),
        # A sidecar runs beside the init containers that come after it, and not beside those before it.
        ([container("1")], [container("1", restartPolicy="Always"), container("4")], (0, 5000, 0)),
        ([container("1")], [container("4"), container("1", restartPolicy="Always")], (0, 4000, 0)),
    ],
    ids=["sum", "init", "inits do not add up", "init GPUs", "sidecar", "sidecar first", "init first"],
)
def test_a_pod_asks_for_what_the_scheduler_counts(containers, first, expected):
    view = pod({"containers": containers, "initContainers": first})
    assert (view.gpus, view.cpu_milli, view.memory_bytes) == expected


def test_overhead_counts_and_limits_stand_in_for_requests():
    spec = {
        "containers": [
            {"resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "2"}, "requests": {"cpu": "1"}}}
        ],
        "overhead": {"cpu": "250m", "memory": "1Gi"},
    }
    view = pod(spec)
    assert (view.gpus, view.cpu_milli, view.memory_bytes) == (2, 1250, GI)


def test_what_a_pod_asks_for_as_a_whole_replaces_the_sum():
    spec = {"containers": [container("1", gpus=2)], "resources": {"requests": {"cpu": "3", "memory": "2Gi"}}}
    view = pod(spec)
    assert (view.gpus, view.cpu_milli, view.memory_bytes) == (2, 3000, 2 * GI)


def test_a_container_that_was_killed_for_memory():
    view = pod(phase="Failed", **ends(exitCode=137, reason="OOMKilled", finishedAt="2026-11-22T16:01:00Z"))
    assert view.ended is not None
    assert (view.ended.exit_code, view.ended.reason, view.ended.finished_at) == (
        137,
        "OOMKilled",
        "2026-11-22T16:01:00Z",
    )
    assert view.finished
    assert view.started


def test_our_container_is_found_beside_one_that_was_injected():
    ours = {"name": "trainer", "state": {"terminated": {"exitCode": 65}}}
    injected = {"name": "istio-proxy", "state": {"running": {}}}  # the kubelet sorts by name
    spec = {"containers": [{"name": "trainer"}, {"name": "istio-proxy"}]}
    view = pod(spec, containerStatuses=[injected, ours])
    assert view.ended is not None
    assert view.ended.exit_code == 65


@pytest.mark.parametrize(("status", "expected"), [("True", "EvictionByEvictionAPI"), ("False", "")])
def test_a_disruption_counts_when_it_is_true(status, expected):
    condition = {"type": "DisruptionTarget", "status": status, "reason": "EvictionByEvictionAPI"}
    assert pod(conditions=[condition]).disruption == expected


def test_the_schedulers_sentence():
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/8 nodes"}
    assert pod(conditions=[condition]).unschedulable == "0/8 nodes"
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"}
    assert pod(conditions=[gated]).unschedulable == ""


def test_ready_deletion_and_reasons():
    raw = {
        "metadata": meta(deletionTimestamp="2026-11-22T16:05:00Z"),
        "status": {
            "phase": "Failed",
            "reason": "Evicted",
            "message": "low on memory",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    view = pod_view(raw)
    assert (view.reason, view.message, view.deleted_at) == (
        "Evicted",
        "low on memory",
        "2026-11-22T16:05:00Z",
    )
    assert view.ready


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5"])
def test_labels_that_are_no_numbers_make_no_worker(text):
    view = pod_view({"metadata": meta(labels={"datahall.dev/rank": text, "datahall.dev/generation": text})})
    assert (view.rank, view.generation) == (-1, 0)


# ---- nodes

NODE: Json = {
    "metadata": {
        **meta(
            labels={"nvidia.com/gpu.product": "H100", "datahall.dev/rack": "r1", "datahall.dev/block": "b1"}
        ),
        "namespace": None,
    },
    "spec": {},
    "status": {
        "allocatable": {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"},
        "conditions": [
            {"type": "MemoryPressure", "status": "False"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T15:00:00Z"},
        ],
    },
}


def node(spec: Json | None = None, status: Json | None = None, **metadata: Any) -> Any:
    return node_view(
        merged(copy.deepcopy(NODE), {"spec": spec or {}, "status": status or {}, "metadata": metadata})
    )


def test_a_node_gives_what_is_allocatable():
    view = node()
    assert (view.namespace, view.gpu_model, view.gpus, view.cpu_milli, view.memory_bytes) == (
        "",
        "H100",
        8,
        64_000,
        512 * GI,
    )
    assert (view.rack, view.block) == ("r1", "b1")
    assert view.ready
    assert view.schedulable
    assert view.ready_changed_at == "2026-11-22T15:00:00Z"


def test_a_node_without_gpus_has_no_model_and_one_without_a_label_an_unknown_one():
    assert node(status={"allocatable": {"nvidia.com/gpu": None}}).gpu_model == ""
    assert node(labels=None).gpu_model == "Unknown"
    assert node(labels=None).rack is None


@pytest.mark.parametrize(
    ("spec", "schedulable"),
    [
        ({"unschedulable": True}, False),
        ({"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]}, True),
        ({"taints": [{"key": "dedicated", "effect": "NoSchedule"}]}, False),
        ({"taints": [{"key": "dedicated", "effect": "NoExecute"}]}, False),
        ({"taints": [{"key": "dedicated", "effect": "PreferNoSchedule"}]}, True),
        (
            {
                "taints": [
                    {"key": "nvidia.com/gpu", "effect": "NoSchedule"},
                    {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
                ]
            },
            False,
        ),
        ({}, True),
    ],
)
def test_nothing_new_goes_to_a_cordoned_or_tainted_node(spec, schedulable):
    view = node(spec)
    assert view.schedulable is schedulable
    assert view.ready


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_node_that_is_not_ready(status):
    ready = {"type": "Ready", "status": status, "lastTransitionTime": "2026-11-22T16:30:00Z"}
    view = node(status={"conditions": [ready]})
    assert (view.ready, view.schedulable, view.ready_changed_at) == (False, False, "2026-11-22T16:30:00Z")


def test_a_node_whose_kubelet_has_said_nothing_yet():
    raw = copy.deepcopy(NODE)
    raw["status"] = {}
    view = node_view(raw)
    assert (view.ready, view.gpus, view.cpu_milli, view.ready_changed_at) == (False, 0, 0, None)


# ---- our own kinds, and children


@pytest.mark.parametrize("view", [service_view, queue_view, job_view])
def test_an_object_without_a_spec_is_no_crash(view):
    assert view({"metadata": meta()}).error


def test_children_are_known_by_their_hash():
    raw = {"metadata": meta(annotations={"datahall.dev/applied": "h"}, labels={"a": "b"})}
    assert (child_view(raw).spec_hash, child_view(raw).labels) == ("h", {"a": "b"})
    assert child_view({"metadata": meta()}).spec_hash == ""
    assert claim_view({"metadata": meta()}).name == "x"
    status = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "readyReplicas": 1}
    raw |= {"spec": {"replicas": 4}, "status": status}
    raw["metadata"]["generation"] = 5
    view = deployment_view(raw)
    assert (view.generation, view.observed_generation, view.spec_hash) == (5, 2, "h")
    assert (view.replicas, view.updated, view.ready, view.available, view.wanted) == (3, 2, 1, 0, 4)
