"""Asking a served model: through the API server's Service proxy, or straight at a URL."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from datahall.kube import KubeClient, KubeError, UnavailableError
from datahall.kube.resources import SERVICES
from datahall.sdk.errors import MisuseError, PredictError
from datahall.sdk.kinds import Json

PATH = "/v1/classify"

Input = str | bytes | os.PathLike[str]
"""A text, the bytes of an image file, or the path of an image file."""


@dataclass(frozen=True, slots=True)
class Class:
    """One class that the model offers.

    Attributes:
        label: its name.
        score: the model's belief in it, a fraction of 1.
    """

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one input.

    Attributes:
        classes: best first; empty if no class reaches the service's threshold.
    """

    classes: tuple[Class, ...]

    @property
    def label(self) -> str | None:
        """The best class, None if there is none."""
        return self.classes[0].label if self.classes else None

    @property
    def score(self) -> float | None:
        """The score of the best class, None if there is none."""
        return self.classes[0].score if self.classes else None


@dataclass(frozen=True, slots=True)
class Predictions:
    """The answers to one request, in the order of its inputs.

    Attributes:
        model: the InferenceService that answered.
        digest: the digest of the model that answered, "" if the server does not say.
        results: one per input.
    """

    model: str
    digest: str
    results: tuple[Prediction, ...]


def encode(inputs: Sequence[Input]) -> Json:
    """The body of the request: texts as they are, images in base64.

    Raises:
        MisuseError: no input, a lone string instead of a list, or a file that cannot be read.
    """
    if isinstance(inputs, str | bytes | os.PathLike):
        raise MisuseError("inputs must be a list of texts or images, not a single one")
    if not inputs:
        raise MisuseError("there is nothing to predict: inputs is empty")
    return {"inputs": [_encode_one(each) for each in inputs]}


async def by_proxy(
    kube: KubeClient, name: str, inputs: Sequence[Input], *, namespace: str, timeout_seconds: float
) -> Predictions:
    """Ask through the API server, which reaches the Service from wherever the caller is.

    Raises:
        PredictError: the server refused, failed or was late.
        KubeError: the API server refused or is out of reach.
    """
    path = SERVICES.path(namespace=namespace, name=f"{name}:80", subresource="proxy") + PATH
    try:
        answer = await kube.request(
            "POST",
            path,
            verb="create",
            resource="services/proxy",
            body=encode(inputs),
            timeout_seconds=timeout_seconds,
        )
    except UnavailableError as error:
        if error.status == 0 and isinstance(error.__cause__, TimeoutError):
            raise PredictError(
                f"{name} did not answer within {timeout_seconds:g} s", kind="timeout"
            ) from error
        if error.status == 0:
            raise
        raise _refused(name, error.status, error.body) from error
    except KubeError as error:
        if _is_status(error.body) or not error.body:
            raise  # the API server's own answer, such as a Service that does not exist
        raise _refused(name, error.status, error.body) from error
    return _decode(name, answer)


async def by_url(url: str, name: str, inputs: Sequence[Input], *, timeout_seconds: float) -> Predictions:
    """Ask a server directly.

    Raises:
        PredictError: it refused, failed, was late or cannot be reached.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    target = url.rstrip("/")
    target += "" if target.endswith(PATH) else PATH
    headers = {"Content-Type": "application/json"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(target, data=orjson.dumps(encode(inputs)), headers=headers) as response,
        ):
            raw, status = await response.read(), response.status
    except TimeoutError as error:
        raise PredictError(f"{target} did not answer within {timeout_seconds:g} s", kind="timeout") from error
    except (aiohttp.ClientError, ValueError, OSError) as error:
        raise PredictError(f"{target} cannot be reached: {error}") from error
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = raw.decode(errors="replace")
    if status >= 400:
        raise _refused(name, status, body)
    return _decode(name, body)


def _encode_one(given: Input) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, bytes):
        return base64.b64encode(given).decode("ascii")
    path = Path(given)
    try:
        return base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise MisuseError(f"{path}: {error.strerror}") from error


def _decode(name: str, body: Any) -> Predictions:
    try:
        results = tuple(
            Prediction(tuple(Class(str(each["label"]), float(each["score"])) for each in result["classes"]))
            for result in body["results"]
        )
        return Predictions(str(body.get("model", name)), str(body.get("digest") or ""), results)
    except (KeyError, TypeError, ValueError) as error:
        raise PredictError(f"{name} answered with something that is no classification") from error


def _refused(name: str, status: int, body: Any) -> PredictError:
    """The server says `{"error": {"type", "message", "param"}}` or `{"error": "..."}`, the API server a Status."""
    said = body.get("error", body) if isinstance(body, dict) else body
    kind = ""
    if isinstance(said, dict):
        kind = str(said.get("type") or said.get("kind") or "") if not _is_status(said) else ""
        param = said.get("param")
        said = said.get("message", said)
        said = f"{param}: {said}" if param else said
    text = str(said).strip()[:500]
    if _is_status(body) and "no endpoints available" in text:
        return PredictError(f"{name} has no replica that is ready", status=status, kind="not_ready")
    return PredictError(f"{name} answered {status}: {text}", status=status, kind=kind)


def _is_status(body: Any) -> bool:
    return isinstance(body, dict) and body.get("kind") == "Status"
