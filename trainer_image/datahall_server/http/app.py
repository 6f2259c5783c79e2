"""The routes. Each handler reads, parses, classifies and answers; what goes wrong is raised, see `errors.py`."""

import asyncio
import logging
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .. import metrics
from ..config import Limits, ServerConfig
from ..dispatch import Dispatcher
from ..engine.protocol import ModelInfo
from ..errors import (
    EngineDiedError,
    MethodNotAllowedError,
    NotFoundError,
    NotReadyError,
    ServerError,
    UnsupportedContentError,
)
from ..lifecycle import Lifecycle, Phase
from ..tasks.classification import top_classes
from . import binary, classify, errors, oip
from .body import BodyReader, HeldBytes, media_type
from .gate import Gate

_log = logging.getLogger(__name__)

LOADING_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the handlers work with."""

    config: ServerConfig
    limits: Limits
    lifecycle: Lifecycle
    dispatcher: Dispatcher
    metrics: metrics.Metrics


def build(room: Room) -> Gate:
    """The ASGI application."""
    handlers = _Handlers(room)
    model = "/v2/models/{model}"
    version = model + "/versions/{version}"
    routes = [
        Route("/health", handlers.health),
        Route("/ready", handlers.ready),
        Route("/metrics", handlers.metrics),
        Route("/v1/classify", handlers.classify, methods=["POST"]),
        Route("/v2", handlers.server_metadata),
        Route("/v2/health/live", handlers.server_live),
        Route("/v2/health/ready", handlers.server_ready),
        *[Route(base, handlers.model_metadata) for base in (model, version)],
        *[Route(base + "/ready", handlers.model_ready) for base in (model, version)],
        *[Route(base + "/infer", handlers.infer, methods=["POST"]) for base in (model, version)],
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            ServerError: _answer_error,
            HTTPException: _answer_routing_error,
            Exception: _answer_defect,
        },
    )
    app.router.redirect_slashes = False
    return Gate(app, lifecycle=room.lifecycle, metrics=room.metrics)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServerError)
    return errors.respond(error, path=request.url.path)


async def _answer_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        answer = errors.respond(MethodNotAllowedError(f"{path} takes {allowed}, not {method}"), path=path)
        answer.headers["Allow"] = allowed
        return answer
    return errors.respond(NotFoundError(f"there is nothing at {path}"), path=path)


async def _answer_defect(request: Request, error: Exception) -> Response:
    """A defect of ours: say so without details; Starlette raises it again and so uvicorn logs the traceback."""
    _log.error("unexpected %s", type(error).__name__)
    return errors.respond(ServerError("an error inside the server; its log has more"), path=request.url.path)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


class _Handlers:
    """One method per route."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = HeldBytes(room.limits.max_held_bytes)

    # What the kubelet and Prometheus ask.

    async def health(self, _: Request) -> Response:
        """Liveness: false only when a restart is the remedy, and then the process is about to exit by itself."""
        alive = self._room.lifecycle.phase is not Phase.FAILED
        return _json(
            {"live": alive, "reason": "" if alive else self._room.lifecycle.reason}, 200 if alive else 503
        )

    async def ready(self, _: Request) -> Response:
        """Readiness: whether new requests should come here."""
        lifecycle = self._room.lifecycle
        return _json({"ready": lifecycle.ready, "reason": lifecycle.reason}, 200 if lifecycle.ready else 503)

    async def metrics(self, _: Request) -> Response:
        """Prometheus."""
        return Response(self._room.metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})

    # The plain way.

    async def classify(self, request: Request) -> Response:
        """`POST /v1/classify`."""
        deadline = self._deadline()
        model = self._model()
        with BodyReader(request, max_bytes=self._room.limits.max_body_bytes, held=self._held) as reader:
            body = await reader.read(deadline=deadline)
            kind = media_type(request)
            instances = classify.parse(body, media_type=kind, model=model, limits=self._room.limits)
            scores = await self._room.dispatcher.submit(
                instances, param="inputs", deadline=deadline, gone=lambda: _hang_up(request)
            )
        post = self._room.config.postprocess
        results = [
            classify.ClassifiedInput(
                top_classes(row, model.labels, top_k=post.top_k, threshold=post.threshold)
            )
            for row in scores
        ]
        return _json(classify.ClassifyResponse(self._room.config.name, model.digest, results))

    # Open Inference Protocol v2.

    async def server_metadata(self, _: Request) -> Response:
        """`GET /v2`."""
        return _json({"name": "datahall", "version": "0.1.0", "extensions": ["binary_tensor_data"]})

    async def server_live(self, _: Request) -> Response:
        """`GET /v2/health/live`."""
        alive = self._room.lifecycle.phase is not Phase.FAILED
        return _json({"live": alive}, 200 if alive else 503)

    async def server_ready(self, _: Request) -> Response:
        """`GET /v2/health/ready`."""
        ready = self._room.lifecycle.ready
        return _json({"ready": ready}, 200 if ready else 503)

    async def model_ready(self, request: Request) -> Response:
        """`GET /v2/models/M/ready`."""
        self._check_name(request)
        ready = self._room.lifecycle.ready
        if ready:
            self._check_version(request, self._model())
        return _json({"name": self._room.config.name, "ready": ready}, 200 if ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        """`GET /v2/models/M`."""
        model = self._named_model(request)
        return _json(oip.metadata(self._room.config.name, model, self._room.config.postprocess))

    async def infer(self, request: Request) -> Response:
        """`POST /v2/models/M/infer`."""
        deadline = self._deadline()
        model = self._named_model(request)
        json_length = request.headers.get(binary.HEADER)
        kind = media_type(request)
        if json_length is None and kind not in ("", "application/json"):
            raise UnsupportedContentError(
                f"Content-Type {kind} is not read: send application/json, or binary data with {binary.HEADER}"
            )
        with BodyReader(request, max_bytes=self._room.limits.max_body_bytes, held=self._held) as reader:
            body = await reader.read(deadline=deadline)
            inference = oip.parse(body, json_length=json_length, model=model, limits=self._room.limits)
            scores = await self._room.dispatcher.submit(
                inference.instances, param=inference.param, deadline=deadline, gone=lambda: _hang_up(request)
            )
        content, head_bytes = oip.respond(
            inference,
            scores,
            name=self._room.config.name,
            model=model,
            postprocess=self._room.config.postprocess,
        )
        if head_bytes is None:
            return Response(content, media_type="application/json")
        return Response(
            content, media_type="application/octet-stream", headers={binary.HEADER: str(head_bytes)}
        )

    # What they share.

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._room.config.timeout_seconds

    def _model(self) -> ModelInfo:
        """The model, or the reason why there is none to ask. A draining server still answers."""
        lifecycle = self._room.lifecycle
        if lifecycle.phase is Phase.FAILED:
            raise EngineDiedError(lifecycle.reason, retry_after_seconds=LOADING_RETRY_SECONDS)
        if lifecycle.model is None:
            raise NotReadyError(lifecycle.reason, retry_after_seconds=LOADING_RETRY_SECONDS)
        return lifecycle.model

    def _named_model(self, request: Request) -> ModelInfo:
        self._check_name(request)
        model = self._model()
        self._check_version(request, model)
        return model

    def _check_name(self, request: Request) -> None:
        name = request.path_params["model"]
        if name != self._room.config.name:
            raise NotFoundError(
                f"unknown model {name!r}; this server has {self._room.config.name!r}", param="model"
            )

    def _check_version(self, request: Request, model: ModelInfo) -> None:
        asked, served = request.path_params.get("version"), oip.version_of(model.digest)
        if asked is not None and asked != served:
            raise NotFoundError(f"unknown version {asked!r}; this server has {served!r}", param="version")


async def _hang_up(request: Request) -> None:
    """Completes when the client hangs up. To be awaited only after the whole body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
