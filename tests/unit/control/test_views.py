"""What is kept of each object, and that no odd object of somebody else's can stop the operator."""

from __future__ import annotations

import pytest

from datahall.control.child_views import deployment_view
from datahall.control.settings import Settings, SettingsError
from datahall.control.views import job_view, node_view, pod_view, queue_view, service_view
from tests.unit.control.world import job_body

META = {"name": "x", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-11-22T15:00:00Z"}


def pod(spec=None, **status):
    return pod_view({"metadata": META, "spec": spec or {}, "status": status})


def test_a_pod_of_which_almost_nothing_is_known():
    view = pod_view({"metadata": META})
    assert (view.phase, view.node, view.bound, view.ready, view.ended) == ("Pending", "", False, False, None)
    assert (view.rank, view.generation) == (-1, 0)
    assert not view.finished
    assert not view.started


@pytest.mark.parametrize(
    ("spec", "amounts"),
    [
        ({"containers": [{}]}, (0, 0, 0)),
        ({"containers": [{"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]}, (0, 500, 1 << 30)),
        ({"containers": [{"resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "1"}}}] * 2}, (4, 2000, 0)),
        (
            {
                "containers": [{"resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [{"resources": {"requests": {"cpu": "3", "memory": "5M"}}}],
            },
            (0, 3000, 5_000_000),
        ),
        (
            {
                "containers": [{"resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "3"}}}],
            },
            (0, 4000, 0),
        ),
        ({"containers": [{"resources": {"requests": {"cpu": "100u", "memory": "1500m"}}}]}, (0, 1, 2)),
        ({"containers": [{"resources": {"requests": {"memory": "1e9"}}}]}, (0, 0, 1_000_000_000)),
    ],
)
def test_what_a_pod_asks_for(spec, amounts):
    view = pod(spec)
    assert (view.gpus, view.cpu_milli, view.memory_bytes) == amounts


def test_the_last_end_of_a_container_that_was_started_again():
    ended = {"exitCode": 65, "message": "m", "finishedAt": "2026-11-22T15:00:00Z"}
    view = pod(
        containerStatuses=[{"state": {"running": {}}, "lastState": {"terminated": ended}, "restartCount": 2}]
    )
    assert view.running
    assert (view.ended.exit_code, view.ended.message, view.restarts) == (65, "m", 2)


def test_conditions_of_a_pod():
    view = pod(
        conditions=[
            {"type": "Ready", "status": "True"},
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/8 nodes"},
        ]
    )
    assert (view.ready, view.disruption, view.unschedulable) == (True, "EvictionByEvictionAPI", "0/8 nodes")
    view = pod(
        conditions=[
            {"type": "Ready", "status": "Unknown"},
            {"type": "DisruptionTarget", "status": "False", "reason": "x"},
            {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"},
        ]
    )
    assert (view.ready, view.disruption, view.unschedulable) == (False, "", "")


def node(ready="True", labels=None, **spec):
    allocatable = {"nvidia.com/gpu": "8", "cpu": "127500m", "memory": "1Ti"}
    return node_view(
        {
            "metadata": META | {"labels": labels or {}},
            "spec": spec,
            "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": ready}]},
        }
    )


@pytest.mark.parametrize(
    ("options", "schedulable"),
    [
        ({}, True),
        ({"ready": "False"}, False),
        ({"ready": "Unknown"}, False),
        ({"unschedulable": True}, False),
        ({"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}, True),
        ({"taints": [{"key": "other", "effect": "NoSchedule"}]}, False),
        ({"taints": [{"key": "other", "effect": "NoExecute"}]}, False),
        ({"taints": [{"key": "other", "effect": "PreferNoSchedule"}]}, True),
    ],
)
def test_where_new_pods_may_go(options, schedulable):
    assert node(**options).schedulable is schedulable


def test_a_nodes_resources_and_place():
    view = node(
        labels={"nvidia.com/gpu.product": "H100", "datahall.dev/rack": "r1", "datahall.dev/block": "b1"}
    )
    assert (view.gpus, view.cpu_milli, view.memory_bytes) == (8, 127_500, 1 << 40)
    assert (view.gpu_model, view.rack, view.block) == ("H100", "r1", "b1")
    assert node().gpu_model == "Unknown"
    assert node_view({"metadata": META}).gpu_model == ""


def test_a_stored_object_that_breaks_a_rule_is_kept_with_its_complaint():
    body = job_body()
    body["spec"]["workers"]["count"] = 0
    view = job_view(body)
    assert view.job is None
    assert view.error.startswith("spec.workers.count: ")
    assert (view.generation, view.deleting) == (1, False)
    assert service_view({"metadata": META, "spec": {}}).error
    assert queue_view({"metadata": META | {"deletionTimestamp": "x"}, "spec": {"gpus": 5}}).deleting


def test_a_good_job_has_no_complaint():
    view = job_view(job_body())
    assert (view.error, view.job.metadata.name) == (None, "digits")


def test_a_deployment_without_status():
    view = deployment_view({"metadata": META, "spec": {"replicas": 2}})
    assert (view.wanted, view.replicas, view.ready, view.observed_generation) == (2, 0, 0, 0)


def test_settings_have_defaults():
    settings = Settings.from_environment({"POD_NAME": "p"})
    assert (settings.namespace, settings.address, settings.workers) == (
        "datahall-system",
        "127.0.0.1:8080",
        32,
    )
    assert settings.identity == "p/127.0.0.1:8080"
    assert settings.report_url is None


def test_settings_are_read():
    settings = Settings.from_environment(
        {"POD_NAME": "p", "POD_IP": "10.0.0.7", "DATAHALL_REPORT_PORT": "81", "DATAHALL_LEASE_SECONDS": "3"}
    )
    assert (settings.address, settings.lease_seconds) == ("10.0.0.7:81", 3.0)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("DATAHALL_WORKERS", "many", "DATAHALL_WORKERS: 'many' is not a whole number"),
        ("DATAHALL_WORKERS", "0", "DATAHALL_WORKERS: 0 is not between 1 and 1024"),
        ("DATAHALL_LEASE_SECONDS", "1", "between 3 and 3600"),
        ("DATAHALL_PROBE_PORT", "70000", "between 0 and 65535"),
    ],
)
def test_a_bad_setting_is_named(name, value, text):
    with pytest.raises(SettingsError, match=text):
        Settings.from_environment({"POD_NAME": "p", name: value})
