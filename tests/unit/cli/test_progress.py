"""How a wait is told: lines for a pipe, a bar for a terminal."""

from __future__ import annotations

import io

import pytest

from datahall.api.inferenceservice import InferenceService
from datahall.api.trainingjob import TrainingJob
from datahall.cli.progress import BarReporter, PlainReporter, progress_line, reporter
from tests.unit.sdk import samples


def job(**status: object) -> TrainingJob:
    return TrainingJob.from_json(samples.job(**status))


def at_step(step: int) -> TrainingJob:
    return job(**samples.running(progress={**samples.PROGRESS, "step": step}))


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({}, "Pending: the operator has not looked at it yet; if this lasts, is the operator running?"),
        (samples.queued(), f"Queued: {samples.WAITS}"),
        (samples.running(), "step 120/625  19 %  loss 0.211  validation accuracy 0.962  eta 77 s"),
        (samples.running(progress={"step": 3}), "step 3"),
        (samples.running(progress=None), "Running: 2 of 2 workers run"),
        (samples.succeeded(), "Succeeded: trained in 3m"),
        ({"state": "Restarting", "conditions": [samples.condition("Restarting")]}, "Restarting"),
    ],
)
def test_progress_line(status: samples.Json, line: str) -> None:
    assert progress_line(job(**status)) == line


def test_progress_line_of_a_service() -> None:
    service = InferenceService.from_json(samples.service(**samples.ready()))
    assert progress_line(service) == "Ready: 2 of 2 replicas serve"


def test_plain_lines_come_every_few_seconds_and_at_each_change_of_state() -> None:
    now = [0.0]
    stream = io.StringIO()
    with PlainReporter(stream, lambda: now[0]) as report:
        for second, each in [
            (0, job()),
            (1, job(**samples.queued())),
            (2, job(**samples.queued())),
            (9, job(**samples.queued())),
            (10, at_step(1)),
            (11, at_step(2)),
            (14, at_step(3)),
            (15, at_step(4)),
            (16, at_step(5)),
            (17, at_step(6)),
        ]:
            now[0] = second
            report(each)
    told = [line.split("  ")[0].split(":")[0] for line in stream.getvalue().splitlines()]
    assert told == ["Pending", "Queued", "step 1/625", "step 4/625", "step 6/625"]


def test_a_pipe_gets_lines() -> None:
    assert isinstance(reporter(lambda: 0.0, io.StringIO()), PlainReporter)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_who_wants_no_colour_gets_lines(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert isinstance(reporter(lambda: 0.0, Terminal()), BarReporter)
    monkeypatch.setenv(name, value)
    assert isinstance(reporter(lambda: 0.0, Terminal()), PlainReporter)


def test_the_bar_draws_and_gives_the_terminal_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    with reporter(lambda: 0.0, terminal) as report:
        report(job(**samples.queued()))
        report(job(**samples.running()))
    drawn = terminal.getvalue()
    assert "step 120/625  19 %  loss 0.211" in drawn
    assert drawn.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"
