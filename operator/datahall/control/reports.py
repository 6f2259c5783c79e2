"""What trainers say while they train: checked, kept in memory, and handed to the next look at the job.

A report is only a courtesy: what counts is in the pod's termination message. So nothing here is durable, and a report
is refused rather than believed: the token must be of a pod (TokenReview), and that pod must be rank 0 of the job's
present generation.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from datahall.api.trainingjob import LastCheckpoint
from datahall.control import labels
from datahall.control.store import Table
from datahall.control.training.pods import TOKEN_AUDIENCE
from datahall.control.training.progress import read_progress
from datahall.control.training.seen import Report
from datahall.control.views import JobView, PodView
from datahall.kube import KubeClient
from datahall.kube.resources import TOKEN_REVIEWS

REVIEW_KEPT_SECONDS = 60.0
REVIEWS_KEPT = 10_000
LARGEST_REPORT_BYTES = 65_536


class ReportRefusedError(Exception):
    """A report that is not taken: the HTTP status and the sentence that say why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    uid: str
    generation: int
    progress: dict[str, Any]
    checkpoint: LastCheckpoint | None = None


class Reports:
    """The newest report of each running job."""

    def __init__(
        self,
        client: KubeClient,
        *,
        jobs: Table[JobView],
        pods: Table[PodView],
        news: Callable[[str, str], None],
    ) -> None:
        """Set up.

        Args:
            client: asks the API server whose a token is.
            jobs: the jobs.
            pods: the pods.
            news: called with (namespace, name) of a job that has a new report.
        """
        self._client = client
        self._jobs = jobs
        self._pods = pods
        self._news = news
        self._reports: dict[str, Report] = {}
        self._reviews: OrderedDict[str, tuple[float, tuple[str, str]]] = OrderedDict()

    def of(self, uid: str) -> Report | None:
        """The newest report of a job."""
        return self._reports.get(uid)

    def forget(self, uid: str) -> None:
        """The job is over or gone."""
        self._reports.pop(uid, None)

    async def take(self, *, namespace: str, name: str, authorization: str, body: bytes) -> None:
        """Take in one report.

        Raises:
            ReportRefusedError: it is malformed, or not from rank 0 of the job's present generation.
            KubeError: the API server could not be asked whose the token is.
        """
        try:
            report = _Body.model_validate(orjson.loads(body))
            progress = read_progress(report.progress, datetime.datetime.now(datetime.UTC))
        except (orjson.JSONDecodeError, ValidationError) as error:
            raise ReportRefusedError(400, f"not a report: {error}") from error
        pod_name, pod_uid = await self._whose(namespace, authorization)
        view = self._jobs.get(namespace, name)
        job = view.job if view else None
        if job is None or job.metadata.uid != report.uid:
            raise ReportRefusedError(
                409, f"TrainingJob {namespace}/{name} with uid {report.uid} does not exist"
            )
        pod = self._pods.get(namespace, pod_name)
        of_job = pod is not None and pod.labels.get(labels.TRAINING_JOB) == name
        if pod is None or not of_job or pod.uid != pod_uid or pod.rank != 0:
            raise ReportRefusedError(403, f"pod {pod_name} is not worker 0 of TrainingJob {namespace}/{name}")
        if not (pod.generation == report.generation == job.status.generation):
            text = f"generation {report.generation} is over; the job is at {job.status.generation}"
            raise ReportRefusedError(409, text)
        self._reports[report.uid] = Report(report.generation, progress, report.checkpoint)
        self._news(namespace, name)

    async def _whose(self, namespace: str, authorization: str) -> tuple[str, str]:
        """Name and uid of the pod whose token this is."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or not token.isascii():
            raise ReportRefusedError(401, "a bearer token is needed")
        digest = hashlib.sha256(token.encode()).hexdigest()
        now = asyncio.get_running_loop().time()
        known = self._reviews.get(digest)
        if known is None or known[0] < now:
            known = (now + REVIEW_KEPT_SECONDS, await self._review(namespace, token))
            self._reviews[digest] = known
            if len(self._reviews) > REVIEWS_KEPT:
                self._reviews.popitem(last=False)
        return known[1]

    async def _review(self, namespace: str, token: str) -> tuple[str, str]:
        review = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
        }
        status = (await self._client.create(TOKEN_REVIEWS, review)).get("status") or {}
        user = status.get("user") or {}
        if not status.get("authenticated") or TOKEN_AUDIENCE not in (status.get("audiences") or ()):
            raise ReportRefusedError(401, "the token is not valid for this audience")
        if not str(user.get("username", "")).startswith(f"system:serviceaccount:{namespace}:"):
            raise ReportRefusedError(403, f"the token is not of a pod in namespace {namespace}")
        extra = user.get("extra") or {}
        try:
            return (
                extra["authentication.kubernetes.io/pod-name"][0],
                extra["authentication.kubernetes.io/pod-uid"][0],
            )
        except (KeyError, IndexError):
            raise ReportRefusedError(403, "the token is not bound to a pod") from None
