"""The Python client: `Client` for scripts and notebooks, `AsyncClient` with the same verbs for asynchronous code.

from datahall.sdk import Client

with Client(namespace="team-a") as client:
    client.submit("digits.yaml")
    job = client.wait("digits", on_progress=lambda job: print(job.status.progress))
    print(job.status.output.metrics["validation_accuracy"])
    client.wait("digits", kind="InferenceService")
    print(client.predict("digits", [Path("seven.png")]).results[0].label)
"""

from datahall.api.inferenceservice import InferenceService
from datahall.api.queue import Queue
from datahall.api.trainingjob import TrainingJob
from datahall.sdk.async_client import AsyncClient
from datahall.sdk.client import Client
from datahall.sdk.describing import Description, EventLine, PodLine
from datahall.sdk.errors import (
    DatahallError,
    DeniedError,
    JobFailed,
    MisuseError,
    NoLogsError,
    NotFoundError,
    NotInstalledError,
    PredictError,
    RejectedError,
    UnreachableError,
    UnreadableError,
    WaitTimeout,
)
from datahall.sdk.explaining import Explanation, explanation, state_of
from datahall.sdk.logs import LogLine
from datahall.sdk.manifests import read_manifests
from datahall.sdk.moving import PlannedMoves
from datahall.sdk.predicting import Class, Prediction, Predictions
from datahall.sdk.queueing import LineEntry, ModelUse, QueueLine, QueueStanding, Turn
from datahall.sdk.telling import EndStory, Help, NodeUse, RunStory, Story, WaitStory

__all__ = [
    "AsyncClient",
    "Class",
    "Client",
    "DatahallError",
    "DeniedError",
    "Description",
    "EndStory",
    "EventLine",
    "Explanation",
    "Help",
    "InferenceService",
    "JobFailed",
    "LineEntry",
    "LogLine",
    "MisuseError",
    "ModelUse",
    "NoLogsError",
    "NodeUse",
    "NotFoundError",
    "NotInstalledError",
    "PlannedMoves",
    "PodLine",
    "PredictError",
    "Prediction",
    "Predictions",
    "Queue",
    "QueueLine",
    "QueueStanding",
    "RejectedError",
    "RunStory",
    "Story",
    "TrainingJob",
    "Turn",
    "UnreachableError",
    "UnreadableError",
    "WaitStory",
    "WaitTimeout",
    "explanation",
    "read_manifests",
    "state_of",
]
