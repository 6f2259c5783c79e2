"""The objects that the bench sends: valid ones, and as the operator and a kubelet would make them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.admission_hall import per_job
from bench.admission_objects import gang_of, job, knows, loose_pods, nodes, queue, running, succeeded
from bench.admission_sets import QUEUE_SETS, Nodes
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.control.views import node_view, pod_view

CRDS = Path(__file__).parents[3] / "crds"
STORED = {"uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-11-22T15:00:00Z"}


@pytest.mark.parametrize("of", QUEUE_SETS.values(), ids=lambda of: of.name)
def test_jobs_and_queues_of_every_set_are_valid(of) -> None:
    for one in of.classes:
        body = job("a", queue="team", of=one)
        parsed = TrainingJob.from_json(body | {"metadata": body["metadata"] | STORED})
        assert parsed.spec.workers.count * parsed.spec.resources.gpus == one.units
    body = queue("team", nominal=of.nominal, parent="cohort", borrowing=of.borrowing)
    Queue.from_json(body | {"metadata": body["metadata"] | STORED})


def test_the_definition_tells_which_fields_the_cluster_knows() -> None:
    found = yaml.safe_load((CRDS / "queues.yaml").read_text())
    assert knows(found, "spec", "gpus", "nominal")
    assert not knows(found, "spec", "gpus", "colour")
    assert not knows(found, "spec", "gpus", "nominal", "deeper")


def test_nodes_are_ready_and_stand_in_racks_and_blocks() -> None:
    views = [
        node_view(body | {"metadata": body["metadata"] | STORED})
        for body in nodes(Nodes(count=130, gpus=16, per_rack=64, racks_per_block=2))
    ]
    assert all(view.schedulable and view.gpus == 16 for view in views)
    assert len({view.rack for view in views}) == 3
    assert len({view.block for view in views}) == 2


def test_bare_pods_of_a_job_can_run_anywhere_and_belong_to_nobody() -> None:
    large = next(one for one in QUEUE_SETS["kueue-baseline"].classes if one.name == "large")
    pods = loose_pods("large-7", queue="team", of=large)
    assert len(pods) == large.workers
    for pod in pods:
        assert "ownerReferences" not in pod["metadata"]
        assert "affinity" not in pod["spec"]
        assert gang_of(pod) == ("team", "large-7", "1")
        assert pod_view(pod | {"metadata": pod["metadata"] | STORED}).gpus == large.gpus


def test_reports_read_as_a_kubelets() -> None:
    small = QUEUE_SETS["kueue-baseline"].classes[0]
    (pod,) = loose_pods("small-1", queue="team", of=small)
    stored = pod | {"metadata": pod["metadata"] | STORED}
    runs = pod_view(stored | running("2026-11-22T15:00:00Z"))
    assert runs.running
    assert runs.ready
    assert not runs.finished
    done = pod_view(stored | succeeded("2026-11-22T15:00:00Z"))
    assert done.finished
    assert done.ended is not None
    assert done.ended.exit_code == 0
    assert not done.ready


def test_a_pod_of_nobody_is_of_no_gang() -> None:
    assert gang_of({"metadata": {"namespace": "team", "name": "p"}}) is None


def test_counters_are_shared_among_jobs_and_their_codes_are_summed() -> None:
    def line(verb: str, code: str) -> str:
        return f'requests_total{{code="{code}",resource="pods",verb="{verb}"}}'

    before = {line("create", "201"): 10.0}
    after = {
        line("create", "201"): 30.0,
        line("create", "409"): 5.0,
        line("list", "200"): 0.0,
        'other_total{code="200"}': 9.0,
    }
    assert per_job(before, after, "requests_total", jobs=10) == {"create pods": 2.5}
