"""What the operator sends and what the trainer takes, and the other way round (docs/contracts.md)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from datahall.api.reasons import Cause
from datahall.api.trainingjob import DEFAULT_ARCHITECTURES, Placement, Precision, Strategy, Task, TrainingJob
from datahall.control.reports import Reports
from datahall.control.store import Table
from datahall.control.training import causes
from datahall.control.training.pods import trainer_config, worker_pod
from datahall.control.views import job_view, pod_view
from datahall_trainer import config, errors, termination
from datahall_trainer.models import ARCHITECTURES
from datahall_trainer.report import Reporter
from tests.unit.control.world import DIGEST, PROGRESS, SETTINGS, UID, World, job_body, running

TEXT = {
    "task": "TextClassification",
    "model": {"base": "pvc://models/minilm", "freezeBase": True},
    "data": {"train": "pvc://data/reviews", "validation": "pvc://data/held-out"},
}
SPECS: dict[str, dict[str, Any]] = {
    "least": {"model": {}, "training": {}},
    "images": {},
    "augmented": {
        "data": {
            "train": "pvc://data/digits",
            "validationFraction": 0.2,
            "augment": {"rotateDegrees": 10.5, "translatePixels": 2},
        }
    },
    "text": TEXT,
    "everything": {
        "training": {
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
        "checkpoint": {"everySteps": 1, "keep": 1},
        "output": {"uri": "pvc://models/digits", "formats": ["safetensors"]},
    },
}


def job(**spec: Any) -> TrainingJob:
    return TrainingJob.from_json(job_body(**spec))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_trainer_takes_the_operators_configuration(spec):
    sent = trainer_config(job(**spec))
    taken = config.parse(json.dumps(sent))
    assert taken.job.uid == UID
    assert taken.task == sent["task"]
    assert taken.architecture == DEFAULT_ARCHITECTURES[Task(sent["task"])]
    assert taken.training.batch_size == sent["training"]["batchSize"]
    assert taken.training.learning_rate == sent["training"]["learningRate"]
    assert taken.data.validation == sent["data"]["validation"]
    assert taken.output.uri == "pvc://models/digits"


def test_the_configuration_has_every_field():
    sent = trainer_config(job(**SPECS["least"]))
    assert sent["model"] == {"base": None, "architecture": "cnn", "freezeBase": False}
    assert sent["data"]["validation"] is None
    assert set(sent) == {"job", "task", "model", "data", "training", "strategy", "checkpoint", "output"}
    assert set(sent["training"]) == {
        "epochs",
        "maxSteps",
        "batchSize",
        "learningRate",
        "weightDecay",
        "warmupFraction",
        "maxSequenceLength",
        "precision",
        "seed",
    }


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("strategy", Strategy)
def test_every_word_of_the_api_is_known_to_the_trainer(precision, strategy):
    sent = trainer_config(job(training={"precision": str(precision)}, strategy=str(strategy)))
    assert config.parse(json.dumps(sent)).training.precision == precision


def test_both_know_the_same_tasks_and_defaults():
    assert set(ARCHITECTURES) == {str(task) for task in DEFAULT_ARCHITECTURES}
    assert {task: names[0] for task, names in ARCHITECTURES.items()} == DEFAULT_ARCHITECTURES


def test_the_environment_of_a_worker():
    pod = worker_pod(job(), generation=3, place=Placement(rank=1, node="n"), settings=SETTINGS)
    (container,) = pod["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    config.parse(environment["DATAHALL_JOB_CONFIG"])
    assert environment["DATAHALL_GENERATION"] == "3"
    assert environment["PET_NNODES"] == "2"
    assert environment["PET_NODE_RANK"] == "1"
    assert environment["PET_NPROC_PER_NODE"] == "1"
    assert environment["PET_MASTER_ADDR"] == "digits-g3-0.digits-workers.team-a.svc"
    assert environment["PET_MASTER_PORT"] == "29500"
    assert environment["DATAHALL_POD_NAME"] == pod["metadata"]["name"] == pod["spec"]["hostname"]
    assert environment["DATAHALL_REPORT_URL"].endswith("/v1/namespaces/team-a/trainingjobs/digits/reports")
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(environment["DATAHALL_TOKEN_FILE"]).parent) in mounts
    assert {"/mnt/pvc/data", "/mnt/pvc/models"} <= mounts
    assert container["terminationMessagePath"] == str(termination.path())


def test_a_gang_of_one_meets_over_loopback():
    pod = worker_pod(job(workers=1), generation=1, place=Placement(rank=0, node="n"), settings=SETTINGS)
    names = {entry["name"] for entry in pod["spec"]["containers"][0]["env"]}
    assert not {"PET_MASTER_ADDR", "PET_MASTER_PORT"} & names


ERRORS = [
    (errors.BadInput("no such data"), Cause.BAD_INPUT),
    (errors.ArtifactError("damaged"), Cause.BAD_INPUT),
    (errors.PeerLost("rank 1 went away"), Cause.PEER_LOST),
    (errors.Fenced("generation 2 has begun"), Cause.PEER_LOST),
    (errors.Interrupted("SIGTERM"), Cause.INTERRUPTED),
    (ValueError("x"), Cause.USER_CODE),
]


@pytest.mark.parametrize(("error", "cause"), ERRORS, ids=lambda value: type(value).__name__)
def test_every_end_of_the_trainer_is_understood(error, cause, tmp_path, monkeypatch):
    """Exit code and termination message, as the kubelet hands them on."""
    path = tmp_path / "termination-log"
    monkeypatch.setenv("DATAHALL_TERMINATION_LOG", str(path))
    termination.failed(error)
    said = path.read_text()
    assert len(said.encode()) <= 4000
    world = running(workers=1)
    code = error.exit_code if isinstance(error, errors.TrainerError) else 1
    world.end(0, code, said)
    end = causes.worker_end(world.views()[0])
    assert end.cause is cause
    assert end.message == errors.one_line(error)
    assert json.loads(said)["cause"] == str(cause)


def test_the_exit_codes_are_the_same():
    assert errors.BadInput.exit_code == causes.EXIT_BAD_INPUT
    assert errors.PeerLost.exit_code == causes.EXIT_PEER_LOST
    assert errors.Interrupted.exit_code == causes.SIGTERM_EXIT


def test_a_success_of_the_trainer_is_understood(tmp_path, monkeypatch):
    path = tmp_path / "termination-log"
    monkeypatch.setenv("DATAHALL_TERMINATION_LOG", str(path))
    uri = "pvc://models/digits/versions/0123456789abcdef"
    checkpoint = {"step": 600, "uri": "pvc://models/c", "bytes": 9, "time": "2026-11-22T15:00:00Z"}
    termination.succeeded(uri=uri, digest=DIGEST, progress=PROGRESS, checkpoint=checkpoint)
    world = running(workers=1)
    world.end(0, 0, path.read_text())
    world.settle()
    status = world.status
    assert (status.state, status.output.uri, status.output.digest) == ("Succeeded", uri, DIGEST)
    assert status.output.metrics == PROGRESS["metrics"]
    assert status.last_checkpoint.step == 600


async def test_the_trainers_report_is_taken(tmp_path):
    world: World = running(workers=1)
    jobs, pods = Table(job_view), Table(pod_view)
    jobs.put(world.raw)
    pods.put(world.pods["digits-g1-0"])

    class Client:
        async def create(self, _, body):
            assert body["spec"]["token"] == "the-token"
            extra = {
                "authentication.kubernetes.io/pod-name": ["digits-g1-0"],
                "authentication.kubernetes.io/pod-uid": [world.views()[0].uid],
            }
            user = {"username": "system:serviceaccount:team-a:default", "extra": extra}
            return {"status": {"authenticated": True, "audiences": ["datahall.dev"], "user": user}}

    reports = Reports(Client(), jobs=jobs, pods=pods, news=lambda *_: None)
    answers: list[int] = []

    async def leader(request: web.Request) -> web.Response:
        await reports.take(
            namespace="team-a",
            name="digits",
            authorization=request.headers["Authorization"],
            body=await request.read(),
        )
        answers.append(204)
        return web.Response(status=204)

    async def standby(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/leader")

    application = web.Application()
    application.router.add_post("/leader", leader)
    application.router.add_post("/standby", standby)
    token = tmp_path / "token"
    token.write_text("the-token\n")
    async with TestServer(application) as server:
        reporter = Reporter(str(server.make_url("/standby")), str(token), uid=UID, generation=1)
        checkpoint = {"step": 100, "uri": "pvc://models/c", "bytes": 1, "time": "2026-11-22T15:00:00Z"}
        reporter.send(PROGRESS, checkpoint, urgent=True)
        await asyncio.to_thread(reporter.close)
    assert answers == [204]
    report = reports.of(UID)
    assert report.progress.metrics == PROGRESS["metrics"]
    assert report.progress.eta_seconds == 77
    assert report.checkpoint.step == 100
