"""The pod that the operator makes is one that the trainer can read: configuration, place, files, tokens."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from datahall.api.trainingjob import DEFAULT_ARCHITECTURES, Placement, Precision, Strategy, Task, TrainingJob
from datahall.control.settings import Settings
from datahall.control.training import pods
from datahall_trainer import config, termination, uris
from datahall_trainer.models import ARCHITECTURES
from datahall_trainer.place import Place
from tests.contract import document

Json = dict[str, Any]

SETTINGS = Settings.from_environment(
    {"POD_NAME": "operator-0", "DATAHALL_REPORT_URL": "http://operator.datahall-system.svc:8080/"}
)
METADATA = {
    "namespace": "team-a",
    "uid": "6f0c1a1e-8f0e-4a53-9d4e-3b1f6a1c2d3e",
    "creationTimestamp": "2026-11-22T16:00:00Z",
}
EXAMPLES = document.examples("TrainingJob")


def job(body: Json | None = None, /, **spec: Any) -> TrainingJob:
    body = copy.deepcopy(body or EXAMPLES["digits/30-trainingjob.yaml"])
    body["metadata"] |= METADATA
    body["spec"] |= spec
    return TrainingJob.from_json(body)


LEAST: Json = {
    "metadata": {"name": "least"},
    "spec": {
        "queue": "team-a",
        "task": "ImageClassification",
        "model": {"base": "pvc://data/base"},
        "data": {"train": "pvc://data/x", "validationFraction": 0.1},
        "training": {"epochs": 1, "batchSize": 8},
        "output": {"uri": "pvc://models/x"},
    },
}


def least(**spec: Any) -> Json:
    body = copy.deepcopy(LEAST)
    body["spec"] |= spec
    return body


JOBS: dict[str, Json] = EXAMPLES | {
    "least": LEAST,
    "no training at all": least(model={}, training={}),
    "augmented": least(
        data={
            "train": "pvc://data/digits",
            "validationFraction": 0.2,
            "augment": {"rotateDegrees": 10.5, "translatePixels": 2},
        }
    ),
    "text": least(
        task="TextClassification",
        model={"base": "pvc://models/minilm", "freezeBase": True},
        data={"train": "pvc://data/reviews", "validation": "pvc://data/held-out"},
    ),
    "everything": least(
        model={"architecture": "cnn"},
        training={
            "epochs": 5,
            "maxSteps": 100,
            "batchSize": 64,
            "learningRate": "5e-5",
            "weightDecay": "0",
            "warmupFraction": 0.0,
            "maxSequenceLength": 256,
            "precision": "bf16",
            "seed": 4294967295,
        },
        checkpoint={"everySteps": 1, "keep": 1},
        output={"uri": "pvc://models/digits", "formats": ["safetensors"]},
    ),
}
"""The examples, and jobs that say as little, or as much, as can be said."""


def worker(of: TrainingJob, rank: int = 0, generation: int = 3) -> Json:
    place = Placement(rank=rank, node="node-0", gpu_model="H100")
    return pods.worker_pod(
        of, generation=generation, place=place, workers=of.spec.workers.count, settings=SETTINGS
    )


def environment(pod: Json) -> dict[str, str]:
    (container,) = pod["spec"]["containers"]
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names))
    return {entry["name"]: entry["value"] for entry in container["env"]}


@pytest.mark.parametrize("name", JOBS)
def test_the_trainer_reads_the_configuration_of_each_job(name):
    given = job(JOBS[name])
    sent = environment(worker(given))["DATAHALL_JOB_CONFIG"]
    assert json.loads(sent) == pods.trainer_config(given)
    read, spec = config.parse(sent), given.spec
    assert (read.job.name, read.job.namespace, read.job.uid) == (
        given.metadata.name,
        "team-a",
        METADATA["uid"],
    )
    assert read.task == spec.task
    assert read.architecture == DEFAULT_ARCHITECTURES[spec.task]
    assert (read.data.train, read.data.validation) == (spec.data.train, spec.data.validation)
    assert (read.training.epochs, read.training.batch_size, read.training.seed) == (
        spec.training.epochs,
        spec.training.batch_size,
        spec.training.seed,
    )
    assert read.training.learning_rate == json.loads(sent)["training"]["learningRate"]
    assert read.output.uri == spec.output.uri


@pytest.mark.parametrize("task", ["ImageClassification", "TextClassification"])
def test_defaults_alone_make_a_whole_configuration(task):
    read = config.parse(json.dumps(pods.trainer_config(job(least(task=task)))))
    assert read.training.learning_rate_value > 0
    assert read.checkpoint.every_steps >= 1
    assert read.output.formats == ["safetensors"]
    assert read.architecture


def test_every_field_of_the_contract_is_there_even_where_nothing_is_set():
    def shape(value: Any) -> Any:
        return {key: shape(inner) for key, inner in value.items()} if isinstance(value, dict) else None

    contract = document.json_after("`DATAHALL_JOB_CONFIG` (camelCase")
    sent = pods.trainer_config(job())
    assert shape(sent) == shape(contract)
    for body in (LEAST, least(model={}, training={})):
        defaults = pods.trainer_config(job(body))
        assert set(defaults) == set(contract)
        for part, fields in contract.items():
            if isinstance(fields, dict):
                assert set(defaults[part]) == set(fields), part
        assert defaults["data"]["validation"] is None


def test_what_a_model_without_a_word_is():
    sent = pods.trainer_config(job(least(model={})))
    assert sent["model"] == {"base": None, "architecture": "cnn", "freezeBase": False}


def test_the_configuration_that_the_contract_shows_is_one():
    read = config.parse(json.dumps(document.json_after("`DATAHALL_JOB_CONFIG` (camelCase")))
    assert read.job.name == "digits"


@pytest.mark.parametrize(
    "training",
    [
        {"epochs": 1, "batchSize": 8, "learningRate": "1e-5", "weightDecay": "0"},
        {"epochs": 1, "batchSize": 8, "precision": "bf16", "maxSteps": 7},
        {"epochs": 1, "batchSize": 8, "precision": "fp16", "warmupFraction": 0, "seed": 0},
        {"epochs": 1, "batchSize": 8, "warmupFraction": 0.9, "maxSequenceLength": 512},
    ],
)
def test_whatever_the_api_lets_through_the_trainer_takes(training):
    data = LEAST["spec"]["data"] | {"augment": {"rotateDegrees": 15, "translatePixels": 3}}
    model = {"base": "pvc://data/base", "freezeBase": True}
    body = least(training=training, data=data, model=model)
    read = config.parse(json.dumps(pods.trainer_config(job(body))))
    assert read.training.batch_size == 8
    assert read.model.freeze_base


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("task", [task for task in Task if task is not Task.CUSTOM])
def test_every_word_of_the_api_is_one_of_the_trainers(precision, strategy, task):
    training = LEAST["spec"]["training"] | {"precision": precision}
    body = least(task=task, strategy=strategy, training=training)
    read = config.parse(json.dumps(pods.trainer_config(job(body))))
    assert (read.task, read.strategy, read.training.precision) == (task, strategy, precision)


def test_both_know_the_same_tasks_and_defaults():
    assert set(ARCHITECTURES) == {str(task) for task in DEFAULT_ARCHITECTURES}
    assert {task: names[0] for task, names in ARCHITECTURES.items()} == DEFAULT_ARCHITECTURES


def test_every_variable_of_the_contract_is_in_the_pod_and_no_other_of_ours():
    wanted = {row[0] for row in document.table("variable")}
    names = {name.strip(" `") for cell in wanted for name in cell.split(",")}
    assert len(names) == 10
    sent = environment(worker(job(workers={"count": 2}, resources={"gpus": 1})))
    assert names == {name for name in sent if name.startswith(("DATAHALL_", "PET_"))}


@pytest.mark.parametrize(("workers", "gpus", "rank"), [(1, 0, 0), (1, 4, 0), (2, 1, 1), (3, 2, 2)])
def test_the_trainer_finds_its_place(workers, gpus, rank):
    given = job(workers={"count": workers}, resources={"gpus": gpus})
    pod = worker(given, rank=rank, generation=5)
    sent = environment(pod)
    place = Place.from_environment(sent)
    assert place.world_size == workers * max(1, gpus)
    assert place.rank == rank * max(1, gpus)
    assert place.generation == 5
    assert sent["DATAHALL_GENERATION"] == "5"
    assert sent["PET_NNODES"] == str(workers)
    assert sent["PET_NODE_RANK"] == str(rank)
    assert sent["PET_NPROC_PER_NODE"] == str(max(1, gpus))
    if workers == 1:
        assert not {"PET_MASTER_ADDR", "PET_MASTER_PORT"} & set(sent)
        assert place.master_address == "127.0.0.1"
    else:
        first = worker(given, rank=0, generation=5)
        spec, metadata = first["spec"], first["metadata"]
        name = f"{spec['hostname']}.{spec['subdomain']}.{metadata['namespace']}.svc"
        assert name == "digits-g5-0.digits-workers.team-a.svc"
        assert place.master_address == name, "the DNS name of worker 0 of this generation"
        assert sent["PET_MASTER_PORT"] == "29500"
        service = pods.workers_service(given)
        assert service["metadata"]["name"] == spec["subdomain"]
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"]
        assert service["spec"]["selector"].items() <= metadata["labels"].items()
        assert service["spec"]["ports"][0]["port"] == place.master_port == 29500


def test_a_worker_is_named_as_the_contract_says():
    pod = worker(job(), rank=1, generation=7)
    assert pod["metadata"]["name"] == pod["spec"]["hostname"] == "digits-g7-1"
    assert environment(pod)["DATAHALL_POD_NAME"] == "digits-g7-1"
    container = pod["spec"]["containers"][0]
    assert (container["name"], container["command"]) == ("trainer", ["python", "-m", "datahall_trainer"])


def mounts(pod: Json) -> dict[str, Json]:
    return {mount["mountPath"]: mount for mount in pod["spec"]["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_claim_is_mounted_where_the_trainer_looks(name, monkeypatch):
    monkeypatch.delenv("DATAHALL_PVC_ROOT", raising=False)
    given = job(EXAMPLES[name])
    pod = worker(given)
    spec, mounted = given.spec, mounts(pod)
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    used = [spec.data.train, spec.data.validation, spec.model.base if spec.model else None, spec.output.uri]
    for uri in filter(None, used):
        path = uris.resolve(uri)
        root = str(path.parents[len(path.parts) - len(("/", "mnt", "pvc", "claim")) - 1])
        claim = uri.removeprefix("pvc://").split("/")[0]
        assert root == f"/mnt/pvc/{claim}"
        assert volumes[mounted[root]["name"]]["persistentVolumeClaim"]["claimName"] == claim
        assert mounted[root]["readOnly"] == (claim != spec.output.uri.removeprefix("pvc://").split("/")[0])


def test_a_claim_that_is_read_and_written_is_mounted_once_and_writable():
    pod = worker(job(output={"uri": "pvc://data/models"}))
    assert [path for path in mounts(pod) if path.startswith("/mnt/pvc")] == ["/mnt/pvc/data"]
    assert mounts(pod)["/mnt/pvc/data"]["readOnly"] is False


def test_the_token_is_where_the_variable_says_and_for_our_audience():
    pod = worker(job())
    path = environment(pod)["DATAHALL_TOKEN_FILE"]
    directory, _, file = path.rpartition("/")
    volume = next(v for v in pod["spec"]["volumes"] if v["name"] == mounts(pod)[directory]["name"])
    token = volume["projected"]["sources"][0]["serviceAccountToken"]
    assert (token["path"], token["audience"]) == (file, "datahall.dev")
    assert "audience `datahall.dev`" in document.TEXT


def test_the_termination_message_is_where_the_kubelet_reads_it(monkeypatch):
    monkeypatch.delenv("DATAHALL_TERMINATION_LOG", raising=False)
    container = worker(job())["spec"]["containers"][0]
    assert container["terminationMessagePath"] == str(termination.path())
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_reports_go_to_the_path_that_the_operator_serves():
    url = environment(worker(job()))["DATAHALL_REPORT_URL"]
    assert url == "http://operator.datahall-system.svc:8080/v1/namespaces/team-a/trainingjobs/digits/reports"


def test_without_an_address_the_trainer_is_not_asked_to_report():
    silent = Settings.from_environment({"POD_NAME": "operator-0"})
    place = Placement(rank=0, node="n")
    pod = pods.worker_pod(job(), generation=1, place=place, workers=1, settings=silent)
    assert "DATAHALL_REPORT_URL" not in environment(pod)


def test_a_custom_program_gets_its_place_and_no_configuration():
    body = {
        "metadata": {"name": "own"},
        "spec": {
            "queue": "team-a",
            "task": "Custom",
            "workers": {"count": 2},
            "container": {
                "image": "team-a/train:1",
                "command": ["train"],
                "args": ["--fast"],
                "env": [{"name": "MINE", "value": "1"}, {"name": "HOME", "value": "/elsewhere"}],
            },
        },
    }
    pod = worker(job(body), rank=1)
    sent = environment(pod)
    assert (sent["MINE"], sent["PET_NNODES"], sent["PET_NODE_RANK"]) == ("1", "2", "1")
    assert "DATAHALL_JOB_CONFIG" not in sent
    container = pod["spec"]["containers"][0]
    assert (container["image"], container["command"], container["args"]) == (
        "team-a/train:1",
        ["train"],
        ["--fast"],
    )
