"""Reports reach the operator where they can, and never hold up training where they cannot."""

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datahall_trainer import logs, termination
from datahall_trainer.errors import BadInput, Interrupted, PeerLost
from datahall_trainer.report import Reporter


class Operator:
    """An HTTP server that answers as told and remembers what it was sent."""

    def __init__(self):
        self.requests = []
        self.answer = lambda path: (204, {})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, self.headers["Authorization"], json.loads(body)))
                code, headers = outer.answer(self.path)
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if code >= 400:
                    self.wfile.write(b"this pod is not of the current generation")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def operator():
    server = Operator()
    yield server
    server.close()


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("secret-1\n")
    return path


def reporter(url, token=None):
    return Reporter(url, str(token) if token else None, uid="u", generation=3)


def test_a_report_is_as_the_contract_wants_it(operator, token):
    sender = reporter(operator.url + "/report", token)
    sender.send({"step": 1}, None)
    sender.close()
    assert operator.requests == [
        (
            "/report",
            "Bearer secret-1",
            {"uid": "u", "generation": 3, "progress": {"step": 1}, "checkpoint": None},
        )
    ]


def test_a_standby_sends_on_to_the_leader_with_method_body_and_token(operator, token):
    operator.answer = lambda path: (204, {}) if path == "/leader" else (307, {"Location": "/leader"})
    sender = reporter(operator.url + "/standby", token)
    sender.send({"step": 1}, None)
    sender.close()
    first, second = operator.requests
    assert (first[0], second[0]) == ("/standby", "/leader")
    assert first[1:] == second[1:]


def test_the_token_is_read_anew_each_time(operator, token):
    sender = reporter(operator.url, token)
    sender.send({"step": 1}, None, urgent=True)
    while len(operator.requests) < 1:
        time.sleep(0.01)
    token.write_text("secret-2")
    sender.send({"step": 2}, None, urgent=True)
    sender.close()
    assert [request[1] for request in operator.requests] == ["Bearer secret-1", "Bearer secret-2"]


def test_reports_are_at_most_every_two_seconds_but_for_urgent_ones(operator):
    sender = reporter(operator.url)
    for step in range(300):
        sender.send({"step": step}, None)
        time.sleep(0.002)
    sender.send({"step": 999}, {"step": 900}, urgent=True)
    sender.close()
    steps = [request[2]["progress"]["step"] for request in operator.requests]
    assert len(steps) <= 3
    assert steps[-1] == 999


@pytest.mark.parametrize("code", [403, 409, 500])
def test_a_refused_report_is_said_once_and_training_goes_on(operator, caplog, code):
    operator.answer = lambda path: (code, {})
    sender = reporter(operator.url)
    for step in range(3):
        sender.send({"step": step}, None, urgent=True)
        while len(operator.requests) <= step:
            time.sleep(0.01)
    sender.close()
    lines = [record.message for record in caplog.records if "cannot report progress" in record.message]
    assert len(lines) == 1
    assert f"HTTP {code} this pod is not of the current generation; training goes on" in lines[0]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "file:///etc/passwd", "http://127.0.0.1:notaport"])
def test_an_operator_that_cannot_be_reached_holds_up_nothing(url, caplog):
    sender = reporter(url)
    began = time.monotonic()
    for step in range(100):
        sender.send({"step": step}, None, urgent=True)
    assert time.monotonic() - began < 0.5
    sender.close()
    assert "cannot report progress" in caplog.text


def test_redirects_in_a_circle_end(operator, caplog):
    operator.answer = lambda path: (307, {"Location": "/round"})
    sender = reporter(operator.url)
    sender.send({"step": 1}, None)
    sender.close()
    assert len(operator.requests) == 6
    assert "more than 5 redirects" in caplog.text


def test_no_address_means_no_reports():
    sender = reporter(None)
    sender.send({"step": 1}, None)
    sender.close()


@pytest.fixture
def message(tmp_path, monkeypatch):
    path = tmp_path / "termination"
    monkeypatch.setenv("DATAHALL_TERMINATION_LOG", str(path))
    return path


@pytest.mark.parametrize(
    ("error", "cause", "text"),
    [
        (BadInput("data.train: no such\ndirectory"), "BadInput", "data.train: no such directory"),
        (PeerLost("gone"), "PeerLost", "gone"),
        (Interrupted("SIGTERM"), "Interrupted", "SIGTERM"),
        (KeyError("x"), "UserCode", "KeyError: 'x'"),
        (RuntimeError(), "UserCode", "RuntimeError"),
    ],
)
def test_a_failure_names_its_cause(message, error, cause, text):
    termination.failed(error)
    said = json.loads(message.read_text())
    assert (said["result"], said["cause"], said["message"]) == ("Failed", cause, text)


def test_a_message_fits_whatever_was_logged(message, monkeypatch):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.setup(0)
    try:
        for number in range(50):
            logging.getLogger("x").warning("line %d %s", number, "\u00e9" * 500)
        termination.failed(BadInput("\U0001f600" * 5000))
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert len(message.read_bytes()) <= 4000
    said = json.loads(message.read_text())
    assert said["message"].startswith("\U0001f600")
    termination.failed(BadInput("short"))
    said = json.loads(message.read_text())
    assert "line 49" in said["lastLogLines"][-1], "the newest lines are the ones that stay"
    assert len(message.read_bytes()) <= 4000


def test_a_message_that_cannot_be_written_is_no_second_failure(monkeypatch, caplog):
    monkeypatch.setenv("DATAHALL_TERMINATION_LOG", "/nowhere/message")
    termination.failed(BadInput("x"))
    assert "cannot write the termination message" in caplog.text
