import pytest
from pydantic import ValidationError

from datahall.api.inferenceservice import InferenceService
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from tests.unit.api import tables


@pytest.mark.parametrize("case", tables.good(), ids=lambda case: case.id)
def test_good_objects_are_accepted(case):
    case.model.model_validate(case.body)


@pytest.mark.parametrize("case", tables.bad(), ids=lambda case: case.id)
def test_bad_objects_are_refused_with_the_message(case):
    with pytest.raises(ValidationError) as caught:
        case.model.model_validate(case.body)
    assert case.model_says in str(caught.value)


@pytest.mark.parametrize("case", tables.good(), ids=lambda case: case.id)
def test_what_is_written_reads_back_as_the_same(case):
    parsed = case.model.model_validate(case.body)
    assert case.model.model_validate(parsed.to_json()) == parsed


def test_objects_cannot_be_changed():
    job = TrainingJob.from_json(tables.base("ImageJob"))
    with pytest.raises(ValidationError):
        job.spec.priority = 5


def test_python_names_work_too():
    job = TrainingJob.from_json(tables.base("ImageJob"))
    again = job.spec.model_copy(update={"ttl_seconds_after_finished": 5})
    assert again.to_json()["ttlSecondsAfterFinished"] == 5


def test_effective_has_every_field_and_every_default():
    body = tables.base("ImageJob")
    del body["spec"]["model"]["architecture"]
    assert TrainingJob.from_json(body).spec.effective() == {
        "queue": "team-a",
        "priority": 0,
        "workers": {"count": 1, "min": 1},
        "resources": {"gpus": 0, "gpuModels": [], "cpu": "1", "memory": "2Gi"},
        "topology": None,
        "task": "ImageClassification",
        "model": {"base": None, "architecture": "cnn", "freezeBase": False},
        "data": {
            "train": "pvc://data/digits/train",
            "validation": None,
            "validationFraction": 0.2,
            "augment": {"rotateDegrees": 0.0, "translatePixels": 0},
        },
        "training": {
            "epochs": 5,
            "maxSteps": None,
            "batchSize": 64,
            "learningRate": "1e-3",
            "weightDecay": "0.01",
            "warmupFraction": 0.1,
            "maxSequenceLength": 128,
            "precision": "fp32",
            "seed": 0,
        },
        "strategy": "AllReduce",
        "checkpoint": {"everySteps": 100, "keep": 3},
        "output": {"uri": "pvc://models/digits", "formats": ["safetensors"]},
        "container": None,
        "failurePolicy": {"maxRestarts": 3},
        "activeDeadlineSeconds": None,
        "ttlSecondsAfterFinished": None,
        "suspend": False,
    }


@pytest.mark.parametrize(
    ("workers", "fewest"), [({}, 1), ({"count": 8}, 8), ({"count": 8, "min": 2}, 2), ({"min": 1}, 1)]
)
def test_a_gang_starts_whole_unless_min_says_less(workers, fewest):
    body = tables.base("ImageJob")
    body["spec"]["workers"] = workers
    spec = TrainingJob.from_json(body).spec
    assert spec.workers.fewest == fewest
    assert spec.effective()["workers"] == {"count": workers.get("count", 1), "min": fewest}


def test_a_topology_is_preferred_unless_it_says_required():
    body = tables.base("ImageJob")
    body["spec"]["topology"] = {"level": "rack"}
    assert TrainingJob.from_json(body).spec.effective()["topology"] == {"level": "rack", "mode": "Preferred"}


@pytest.mark.parametrize(("base", "architecture"), [("ImageJob", "cnn"), ("TextJob", "bert")])
def test_the_default_architecture_is_the_tasks(base, architecture):
    body = tables.base(base)
    body["spec"]["model"].pop("architecture", None)
    assert TrainingJob.from_json(body).spec.effective()["model"]["architecture"] == architecture


def test_what_is_effective_is_a_valid_spec_itself():
    for case in tables.good():
        if case.body["kind"] == "TrainingJob":
            spec = TrainingJob.from_json(case.body).spec
            assert type(spec).model_validate(spec.effective()).effective() == spec.effective()


@pytest.mark.parametrize(("workers", "gpus", "processes"), [(1, 0, 1), (4, 0, 4), (2, 1, 2), (2, 8, 16)])
def test_world_size_is_one_process_per_gpu_or_per_worker(workers, gpus, processes):
    body = tables.base("ImageJob")
    body["spec"] |= {"workers": {"count": workers}, "resources": {"gpus": gpus}}
    assert TrainingJob.from_json(body).spec.world_size == processes


def test_resources_are_numbers():
    body = tables.base("Service")
    body["spec"]["resources"] = {"cpu": "1500m", "memory": "0.5Gi"}
    resources = InferenceService.from_json(body).spec.resources
    assert (resources.cpu_milli, resources.memory_bytes) == (1500, 512 * 1024**2)


def test_any_covers_the_models_without_an_entry():
    body = tables.base("Queue")
    body["spec"] = {"gpus": [{"model": "Any", "nominal": 8}, {"model": "H100", "nominal": 2}]}
    spec = Queue.from_json(body).spec
    assert (spec.nominal("H100"), spec.nominal("A100")) == (2, 8)


def test_a_model_without_entry_or_any_has_no_quota():
    body = tables.base("Queue")
    body["spec"] = {"gpus": [{"model": "H100", "nominal": 2}]}
    assert Queue.from_json(body).spec.nominal("A100") == 0


def test_a_queue_that_says_nothing_more_borrows_and_lends_what_there_is():
    spec = Queue.from_json(tables.base("Queue")).spec
    assert (spec.parent, spec.weight, spec.minimum_run_seconds) == (None, 1, 60)
    assert (spec.gpus[0].borrowing_limit, spec.gpus[0].lending_limit) == (None, None)
    assert (spec.watts, spec.joules_per_day) == (None, None)


def test_a_limit_of_zero_is_a_limit():
    body = tables.base("Queue")
    body["spec"]["watts"] = {"nominal": 0, "borrowingLimit": 0, "lendingLimit": 0}
    assert Queue.from_json(body).to_json()["spec"]["watts"] == body["spec"]["watts"]


def test_a_queue_is_summed_up_in_a_line():
    body = tables.base("Queue")
    body["spec"] = {"gpus": [{"model": "H100", "nominal": 16}, {"model": "Any", "nominal": 8}]}
    assert Queue.from_json(body).spec.summary({"H100": 12}) == "H100 12/16, Any 0/8"
    assert Queue.from_json(body).spec.summary({"H100": 20}) == "H100 20/16, Any 0/8"


@pytest.mark.parametrize(("namespaces", "allowed"), [([], True), (["team-a"], True), (["team-b"], False)])
def test_a_queue_is_for_the_namespaces_that_it_lists_or_all(namespaces, allowed):
    body = tables.base("Queue")
    body["spec"]["namespaces"] = namespaces
    assert Queue.from_json(body).spec.allows("team-a") is allowed


def test_a_status_of_a_later_version_is_read():
    body = tables.base("ImageJob")
    body["status"] = {"observedGeneration": 3, "energy": {"joules": 5}}
    assert TrainingJob.from_json(body).status.observed_generation == 3


def test_a_queues_status_of_an_earlier_version_is_read():
    body = tables.base("Queue")
    body["status"] = {"used": [{"model": "Any", "used": 6}], "summary": "Any 6/8", "admitted": 3}
    status = Queue.from_json(body).status
    assert (status.used[0].used, status.used[0].borrowed, status.watts, status.share) == (6, None, None, None)
    assert status.to_json()["used"] == body["status"]["used"]


STATUSES = {
    "TrainingJob": {
        "workers": 6,
        "spread": "on 2 racks of 1 block; one rack was preferred",
        "waiting": {
            "position": 3,
            "reason": "BorrowedAway",
            "startsAt": "2026-11-22T15:20:00Z",
            "blockers": [{"reason": "BorrowedAway", "message": "8 H100 GPUs are lent to queue team-b"}],
            "sinceTime": "2026-11-22T15:00:00Z",
        },
        "preemptions": 2,
        "preemptedBy": {
            "job": "team-b/pretraining",
            "priority": -5,
            "time": "2026-11-22T14:00:00Z",
            "message": "queue team-b takes back 8 H100 GPUs",
        },
    },
    "Queue": {
        "used": [{"model": "H100", "used": 20, "nominal": 16, "borrowed": 4, "available": 0}],
        "watts": {"reserved": 14000, "available": 0},
        "joules": {"lastDay": 900_000_000_000_001, "available": 5},
        "share": "0.125",
        "summary": "H100 20/16",
    },
}


@pytest.mark.parametrize(("kind", "status"), STATUSES.items(), ids=STATUSES)
def test_a_status_is_written_as_it_was_read(kind, status):
    body = tables.base({"TrainingJob": "ImageJob", "Queue": "Queue"}[kind]) | {"status": status}
    written = tables.MODELS[kind].model_validate(body).status.to_json()
    assert {field: written[field] for field in status} == status


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("TrainingJob", "waiting", {"position": 0, "reason": "NoRoom"}),
        ("TrainingJob", "waiting", {"reason": "NoRoom", "blockers": [{"reason": "NoRoom"}] * 9}),
        ("TrainingJob", "preemptions", -1),
        ("Queue", "share", "-0.1"),
        ("Queue", "share", 0.1),
        ("Queue", "watts", {"reserved": -1}),
        ("Queue", "used", [{"model": "H100", "used": 1, "available": -1}]),
    ],
)
def test_a_status_out_of_bounds_is_refused(kind, field, value):
    body = tables.base({"TrainingJob": "ImageJob", "Queue": "Queue"}[kind]) | {"status": {field: value}}
    with pytest.raises(ValidationError, match=f"status.{field}"):
        tables.MODELS[kind].model_validate(body)
