"""What the trainer says, live and at its end, is what the operator understands."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from datahall.api.reasons import Cause
from datahall.api.trainingjob import LastCheckpoint
from datahall.control.reports import LARGEST_REPORT_BYTES, Reports, _Body
from datahall.control.store import Table
from datahall.control.training import causes
from datahall.control.training.progress import output_of, read_progress
from datahall.control.views import PodView, job_view, pod_view
from datahall_server import termination as server_termination
from datahall_trainer import errors, termination
from datahall_trainer.checkpoint import Saved
from datahall_trainer.errors import BadInput
from datahall_trainer.progress import Progress
from datahall_trainer.report import Reporter
from tests.contract import document
from tests.unit.control.world import PROGRESS, UID, World, running

NOW = datetime.datetime(2026, 11, 22, 16, tzinfo=datetime.UTC)
DIGEST = "sha256:" + "0123456789abcdef" * 4
URI = "pvc://models/digits/versions/0123456789abcdef"


def progress(steps: int = 120) -> Progress:
    made = Progress(total_steps=625, epochs=5, steps_per_epoch=125, batch_size=64, device="cpu")
    made.start(0)
    for _ in range(steps):
        made.advance(0.25)
    if steps:
        made.validation = {"validation_accuracy": 0.962, "validation_loss": 0.1}
    return made


def checkpoint() -> dict[str, Any]:
    uri = "pvc://models/digits/.checkpoints/u/step-00000100"
    return Saved(step=100, uri=uri, bytes=1234567, time=1_795_000_000.5).to_message()


def body_sent(progress_: dict[str, Any], checkpoint_: dict[str, Any] | None) -> bytes:
    """What the reporter would post."""
    sent: list[bytes] = []
    reporter = Reporter("http://operator/", None, uid="u", generation=3)
    reporter._post = sent.append  # type: ignore[method-assign]
    reporter.send(progress_, checkpoint_, urgent=True)
    reporter.close()
    assert len(sent) == 1
    return sent[0]


@pytest.mark.parametrize("steps", [0, 1, 120, 625])
@pytest.mark.parametrize("saved", [True, False])
def test_a_report_is_understood(steps, saved):
    raw = body_sent(progress(steps).to_message(), checkpoint() if saved else None)
    assert len(raw) < LARGEST_REPORT_BYTES
    report = _Body.model_validate(orjson.loads(raw))
    assert (report.uid, report.generation) == ("u", 3)
    read = read_progress(report.progress, NOW)
    assert (read.step, read.total_steps, read.percent) == (steps, 625, 100 * steps // 625)
    assert read.time == "2026-11-22T16:00:00Z"
    assert (report.checkpoint is not None) == saved
    if report.checkpoint:
        assert (report.checkpoint.step, report.checkpoint.bytes) == (100, 1234567)


def test_nothing_that_the_trainer_says_is_lost_on_the_way():
    said = progress().to_message()
    read = read_progress(said, NOW).to_json()
    assert said.items() <= read.items()
    assert LastCheckpoint.model_validate(checkpoint()).to_json() == checkpoint()


def test_the_report_that_the_contract_shows_is_one_and_the_trainers_has_its_fields():
    shown = document.json_after("### Trainer -> operator: report")
    report = _Body.model_validate(shown)
    read_progress(report.progress, NOW)
    sent = orjson.loads(body_sent(progress().to_message(), checkpoint()))
    assert set(sent) == set(shown)
    assert set(sent["progress"]) == set(shown["progress"])
    assert set(sent["checkpoint"]) == set(shown["checkpoint"])


async def test_a_report_that_a_standby_sends_on_is_taken_by_the_leader(tmp_path):
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
        reporter.send(PROGRESS, checkpoint(), urgent=True)
        await asyncio.to_thread(reporter.close)
    assert answers == [204]
    report = reports.of(UID)
    assert report.progress.metrics == PROGRESS["metrics"]
    assert report.progress.eta_seconds == 77
    assert report.checkpoint.step == 100


@pytest.fixture
def message(tmp_path, monkeypatch):
    path = tmp_path / "termination-log"
    monkeypatch.setenv("DATAHALL_TERMINATION_LOG", str(path))
    return path


def pod(message: str, *, exit_code: int) -> PodView:
    terminated = {"exitCode": exit_code, "reason": "Completed" if exit_code == 0 else "Error"}
    return pod_view(
        {
            "metadata": {
                "name": "digits-g1-0",
                "namespace": "team-a",
                "uid": "u",
                "resourceVersion": "1",
                "creationTimestamp": "2026-11-22T16:00:00Z",
            },
            "status": {
                "phase": "Failed" if exit_code else "Succeeded",
                "containerStatuses": [{"state": {"terminated": terminated | {"message": message}}}],
            },
        }
    )


def test_a_finished_model_is_understood(message):
    termination.succeeded(
        uri=URI, digest=DIGEST, progress=progress(625).to_message(), checkpoint=checkpoint()
    )
    said = causes.termination(pod(message.read_text(), exit_code=0))
    assert said["result"] == "Succeeded"
    output = output_of(said)
    assert (output.uri, output.digest) == (URI, DIGEST)
    assert output.metrics["validation_accuracy"] == 0.962
    assert read_progress(said["progress"], NOW).percent == 100
    assert LastCheckpoint.model_validate(said["checkpoint"]).step == 100


def test_a_job_whose_trainer_finished_has_succeeded_with_its_model(message):
    termination.succeeded(uri=URI, digest=DIGEST, progress=PROGRESS, checkpoint=checkpoint())
    world = running(workers=1)
    world.end(0, 0, message.read_text())
    world.settle()
    status = world.status
    assert (status.state, status.output.uri, status.output.digest) == ("Succeeded", URI, DIGEST)
    assert status.output.metrics == PROGRESS["metrics"]
    assert status.last_checkpoint.step == 100


def test_a_model_without_a_checkpoint_is_understood(message):
    termination.succeeded(uri=URI, digest=DIGEST, progress=progress(0).to_message(), checkpoint=None)
    assert output_of(causes.termination(pod(message.read_text(), exit_code=0))).digest == DIGEST


@pytest.mark.parametrize(
    "text",
    ["data.train: pvc://data/digits/x.png: cannot identify image file", "ü" * 5000, "\U0001f600" * 5000],
)
def test_a_failure_is_understood_and_fits_where_the_kubelet_keeps_it(message, text):
    termination.failed(BadInput(text))
    raw = message.read_bytes()
    assert len(raw) <= 4096
    end = causes.worker_end(pod(raw.decode(), exit_code=BadInput.exit_code))
    assert end.cause == "BadInput"
    assert end.message == text[: len(end.message)]
    assert json.loads(raw)["cause"] == "BadInput"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errors.BadInput("no such data"), Cause.BAD_INPUT),
        (errors.ArtifactError("damaged"), Cause.BAD_INPUT),
        (errors.PeerLost("rank 1 went away"), Cause.PEER_LOST),
        (errors.Fenced("generation 2 has begun"), Cause.PEER_LOST),
        (errors.Interrupted("SIGTERM"), Cause.INTERRUPTED),
        (ValueError("x"), Cause.USER_CODE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_end_of_the_trainer_is_understood_as_its_cause(message, error, cause):
    """Exit code and message in the pod of a running gang, as the kubelet hands them on."""
    termination.failed(error)
    said = message.read_text()
    assert len(said.encode()) <= 4000
    world = running(workers=1)
    world.end(0, error.exit_code if isinstance(error, errors.TrainerError) else 1, said)
    end = causes.worker_end(world.views()[0])
    assert end.cause is cause
    assert end.message == errors.one_line(error)
    assert json.loads(said)["cause"] == str(cause)


@pytest.mark.parametrize("text", ["model.uri: no manifest.json", "ü" * 5000])
def test_a_server_that_cannot_start_is_understood(message, text):
    server_termination.write(cause="BadInput", message=text)
    raw = message.read_bytes()
    assert len(raw) <= 4096
    end = causes.worker_end(pod(raw.decode(), exit_code=server_termination.EXIT_BAD_INPUT))
    assert end.cause == json.loads(raw)["cause"] == "BadInput"
    if len(text) < 1000:
        assert end.message == text
    else:
        assert len(end.message) > 1000
        assert text.startswith(end.message.removesuffix("..."))


def test_the_failure_that_the_contract_shows_is_understood():
    shown = document.TEXT[
        document.TEXT.index('{"result": "Failed", "cause": "BadInput", "message": "data.train') :
    ]
    value, _ = json.JSONDecoder().raw_decode(shown)
    end = causes.worker_end(pod(json.dumps(value), exit_code=65))
    assert end.cause == "BadInput"
    assert end.log_lines == ("...", "...")
