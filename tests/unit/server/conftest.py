"""Servers to test: in this process with the real model for most, as real processes where processes matter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from datahall_server.batching import BatchLimits
from datahall_server.config import Limits, ServerConfig
from datahall_server.dispatch import Dispatcher
from datahall_server.engine.classifier import Classifier
from datahall_server.engine.client import BatchResult
from datahall_server.engine.protocol import Instance
from datahall_server.http import app
from datahall_server.lifecycle import Lifecycle
from datahall_server.metrics import Metrics
from tests.unit.server import artifacts

START_SECONDS = 60

# On Python 3.11 the first `get_event_loop` of the main thread, which the looptime plugin calls even for tests without
# a loop, makes one that nobody closes. After this it finds none, and says so.
asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A claim `models` with the three tiny models, where `uris.resolve` looks."""
    root = tmp_path_factory.mktemp("pvc")
    patch = pytest.MonkeyPatch()
    patch.setenv("DATAHALL_PVC_ROOT", str(root))
    yield root
    patch.undo()


@dataclass(frozen=True)
class Model:
    uri: str
    digest: str
    directory: Path


def _model(claims: Path, name: str, write: Callable[[Path], tuple[Path, str]]) -> Model:
    directory, digest = write(claims / "models" / name / "versions")
    return Model(f"pvc://models/{directory.relative_to(claims / 'models')}", digest, directory)


@pytest.fixture(scope="session")
def image_model(claims: Path) -> Model:
    return _model(claims, "shapes", artifacts.image_model)


@pytest.fixture(scope="session")
def text_model(claims: Path) -> Model:
    return _model(claims, "films", artifacts.text_model)


@pytest.fixture(scope="session")
def nan_model(claims: Path) -> Model:
    return _model(claims, "broken", artifacts.nan_model)


def config(served: Model, /, **changes: Any) -> ServerConfig:
    wire = {
        "name": "shapes",
        "namespace": "team-a",
        "model": {"uri": served.uri, "digest": served.digest},
        "batching": {"maxBatchSize": 8, "maxDelayMilliseconds": 2, "maxQueue": 16},
        "timeoutSeconds": 10.0,
        "postprocess": {"topK": 2, "threshold": 0.0},
        "port": 0,
    }
    return msgspec.convert({**wire, **changes}, ServerConfig)


class LocalEngine:
    """The real model in this process; `hold` stops it, so that a test can fill the queue."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.open = asyncio.Event()
        self.open.set()
        self.batches: list[int] = []

    def hold(self) -> None:
        self.open.clear()

    def release(self) -> None:
        self.open.set()

    async def compute(self, instances: Sequence[Instance]) -> BatchResult:
        await self.open.wait()
        self.batches.append(len(instances))
        scores, problems = await asyncio.to_thread(self.classifier.compute, instances)
        return BatchResult(scores, problems, 0.001)


@dataclass
class InProcess:
    """A server without its processes: the ASGI application, its dispatcher and the model."""

    client: httpx.AsyncClient
    engine: LocalEngine
    dispatcher: Dispatcher
    lifecycle: Lifecycle
    metrics: Metrics
    model: Model

    async def classify(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(
            "/v1/classify", content=content, headers={"content-type": "application/json"} | headers
        )

    async def infer(self, body: Any, path: str = "/v2/models/shapes/infer", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(
            path, content=content, headers={"content-type": "application/json"} | headers
        )


_classifiers: dict[str, Classifier] = {}


def classifier_of(model: Model) -> Classifier:
    if model.uri not in _classifiers:
        _classifiers[model.uri] = Classifier.load(config(model), Limits())
    return _classifiers[model.uri]


@contextlib.asynccontextmanager
async def serving(model: Model, *, limits: Limits | None = None, **changes: Any) -> AsyncIterator[InProcess]:
    limits, settings, metrics = limits or Limits(), config(model, **changes), Metrics()
    lifecycle = Lifecycle(model_uri=model.uri, metrics=metrics)
    classifier = classifier_of(model)
    classifier._limits = limits
    engine = LocalEngine(classifier)
    batching = settings.batching
    dispatcher = Dispatcher(
        engine=engine,
        limits=BatchLimits(
            max_batch_size=batching.max_batch_size,
            max_delay_seconds=batching.max_delay_milliseconds / 1000,
            max_queue=batching.max_queue,
        ),
        timeout_seconds=settings.timeout_seconds,
        metrics=metrics,
    )
    room = app.Room(
        config=settings, limits=limits, lifecycle=lifecycle, dispatcher=dispatcher, metrics=metrics
    )
    lifecycle.loaded(replace_digest(classifier, model))
    feeding = asyncio.create_task(dispatcher.run())
    transport = httpx.ASGITransport(app=app.build(room), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield InProcess(client, engine, dispatcher, lifecycle, metrics, model)
    feeding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await feeding


def replace_digest(classifier: Classifier, model: Model) -> Any:
    return msgspec.structs.replace(classifier.info, digest=model.digest)


@pytest.fixture
async def images(image_model: Model) -> AsyncIterator[InProcess]:
    async with serving(image_model) as server:
        yield server


@pytest.fixture
async def texts(text_model: Model) -> AsyncIterator[InProcess]:
    async with serving(text_model) as server:
        yield server


class Process:
    """`python -m datahall_server` as the kubelet would start it."""

    def __init__(
        self, model: Model, directory: Path, *, environment: dict[str, str] | None = None, **changes: Any
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        settings = config(model, **{"port": self.port, **changes})
        directory.mkdir(parents=True, exist_ok=True)
        self.termination = directory / "termination-log"
        self.log = directory / "log"
        self._output = self.log.open("wb")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "datahall_server"],
            stderr=self._output,
            cwd=directory,
            env={
                **os.environ,
                "DATAHALL_SERVER_CONFIG": msgspec.json.encode(settings).decode(),
                "DATAHALL_TERMINATION_LOG": str(self.termination),
                "DATAHALL_DRAIN_SECONDS": "1",
                "DATAHALL_THREADS": "1",
                **(environment or {}),
            },
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def wait_ready(self) -> Process:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.popen.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/ready").status_code == 200:
                    return self
            time.sleep(0.1)
        raise AssertionError(f"not ready:\n{self.log.read_text()}")

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def engine_pid(self) -> int:
        return next(event["pid"] for event in self.events() if event["event"] == "engine ready")

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._output.close()


@dataclass(frozen=True)
class Processes:
    """All real processes, started together: what takes time in each is importing torch."""

    main: Process
    doomed: Process
    wrong_digest: Process


@pytest.fixture(scope="session")
def processes(image_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    directory = tmp_path_factory.mktemp("processes")
    wrong = replace(image_model, digest="sha256:" + "0" * 64)
    all_of_them = Processes(
        main=Process(
            image_model, directory / "main", batching={"maxBatchSize": 8, "maxDelayMilliseconds": 20}
        ),
        doomed=Process(image_model, directory / "doomed"),
        wrong_digest=Process(wrong, directory / "wrong_digest"),
    )
    yield all_of_them
    for process in (all_of_them.main, all_of_them.doomed, all_of_them.wrong_digest):
        process.close()
