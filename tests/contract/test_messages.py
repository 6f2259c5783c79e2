"""What the trainer says, live and at its end, is what the operator understands."""

from __future__ import annotations

import datetime
import json
from typing import Any

import orjson
import pytest

from datahall.api.trainingjob import LastCheckpoint
from datahall.control.reports import LARGEST_REPORT_BYTES, _Body
from datahall.control.training import causes, plan
from datahall.control.views import PodView, pod_view
from datahall_server import termination as server_termination
from datahall_trainer import termination
from datahall_trainer.checkpoint import Saved
from datahall_trainer.errors import BadInput
from datahall_trainer.progress import Progress
from datahall_trainer.report import Reporter
from tests.contract import document

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
    read = plan.read_progress(report.progress, NOW)
    assert (read.step, read.total_steps, read.percent) == (steps, 625, 100 * steps // 625)
    assert read.time == "2026-11-22T16:00:00Z"
    assert (report.checkpoint is not None) == saved
    if report.checkpoint:
        assert (report.checkpoint.step, report.checkpoint.bytes) == (100, 1234567)


def test_nothing_that_the_trainer_says_is_lost_on_the_way():
    said = progress().to_message()
    read = plan.read_progress(said, NOW).to_json()
    assert said.items() <= read.items()
    assert LastCheckpoint.model_validate(checkpoint()).to_json() == checkpoint()


def test_the_report_that_the_contract_shows_is_one_and_the_trainers_has_its_fields():
    shown = document.json_after("### Trainer -> operator: report")
    report = _Body.model_validate(shown)
    plan.read_progress(report.progress, NOW)
    sent = orjson.loads(body_sent(progress().to_message(), checkpoint()))
    assert set(sent) == set(shown)
    assert set(sent["progress"]) == set(shown["progress"])
    assert set(sent["checkpoint"]) == set(shown["checkpoint"])


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
    output = plan._output(said)
    assert (output.uri, output.digest) == (URI, DIGEST)
    assert output.metrics["validation_accuracy"] == 0.962
    assert plan.read_progress(said["progress"], NOW).percent == 100
    assert LastCheckpoint.model_validate(said["checkpoint"]).step == 100


def test_a_model_without_a_checkpoint_is_understood(message):
    termination.succeeded(uri=URI, digest=DIGEST, progress=progress(0).to_message(), checkpoint=None)
    assert plan._output(causes.termination(pod(message.read_text(), exit_code=0))).digest == DIGEST


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


@pytest.mark.parametrize("text", ["model.uri: no manifest.json", "ü" * 5000])
def test_a_server_that_cannot_start_is_understood(message, text):
    server_termination.write(cause="BadInput", message=text)
    raw = message.read_bytes()
    assert len(raw) <= 4096
    end = causes.worker_end(pod(raw.decode(), exit_code=server_termination.EXIT_BAD_INPUT))
    assert end.cause == "BadInput"
    assert end.message[:20] == text[:20]


def test_the_failure_that_the_contract_shows_is_understood():
    shown = document.TEXT[
        document.TEXT.index('{"result": "Failed", "cause": "BadInput", "message": "data.train') :
    ]
    value, _ = json.JSONDecoder().raw_decode(shown)
    end = causes.worker_end(pod(json.dumps(value), exit_code=65))
    assert end.cause == "BadInput"
    assert end.log_lines == ("...", "...")
