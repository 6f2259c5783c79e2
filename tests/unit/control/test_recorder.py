from __future__ import annotations

import asyncio

import pytest

from datahall.api.reasons import Reason
from datahall.control.actions import Announce
from datahall.control.recorder import WINDOW_SECONDS, Recorder
from datahall.kube import AlreadyExistsError, UnavailableError

pytestmark = pytest.mark.looptime


class Client:
    def __init__(self):
        self.events = {}
        self.patches = []
        self.down = False

    async def create(self, _, body, *, namespace):
        if self.down:
            raise UnavailableError("away")
        name = body["metadata"]["name"]
        if name in self.events:
            raise AlreadyExistsError("exists")
        self.events[name] = body | {"in": namespace}

    async def merge_patch(self, _, body, *, name, namespace, field_manager):
        self.patches.append((name, body["series"]["count"]))


def tell(recorder, message="m", *, uid="u", namespace="a"):
    recorder.tell("TrainingJob", namespace, "digits", uid, Announce(Reason.WORKER_FAILED, message))


async def test_news_becomes_an_event():
    client = Client()
    recorder = Recorder(client, instance="operator-0")
    tell(recorder)
    await recorder.drain()
    (event,) = client.events.values()
    assert (event["reason"], event["note"], event["type"]) == ("WorkerFailed", "m", "Warning")
    assert event["regarding"]["uid"] == "u"
    assert event["in"] == "a"


async def test_the_same_news_is_counted_and_other_news_is_told():
    client = Client()
    recorder = Recorder(client, instance="operator-0")
    for _ in range(3):
        tell(recorder)
        await recorder.drain()
    tell(recorder, "other")
    tell(recorder, uid="another object of the name")
    await recorder.drain()
    assert len(client.events) == 3
    assert [count for _, count in client.patches] == [2, 3]


async def test_a_restarted_operator_counts_on_its_earlier_event():
    client = Client()
    for _ in range(2):
        recorder = Recorder(client, instance="operator-0")
        tell(recorder)
        await recorder.drain()
    assert len(client.events) == 1
    assert [count for _, count in client.patches] == [2]


async def test_after_the_window_news_is_news_again():
    client = Client()
    recorder = Recorder(client, instance="operator-0")
    tell(recorder)
    await recorder.drain()
    client.events.clear()  # the API server keeps Events for an hour only
    await asyncio.sleep(WINDOW_SECONDS + 1)
    tell(recorder)
    await recorder.drain()
    assert len(client.events) == 1


async def test_trouble_with_events_stays_with_events():
    client = Client()
    client.down = True
    recorder = Recorder(client, instance="operator-0")
    tell(recorder, "x" * 3000)
    await recorder.drain()
    client.down = False
    tell(recorder, "y" * 3000)
    await recorder.drain()
    (event,) = client.events.values()
    assert len(event["note"]) == 1024


async def test_news_that_could_not_be_written_is_told_the_next_time():
    client = Client()
    recorder = Recorder(client, instance="operator-0")
    client.down = True
    tell(recorder)
    await recorder.drain()
    client.down = False
    tell(recorder)
    await recorder.drain()
    (event,) = client.events.values()
    assert event["note"] == "m"


async def test_news_of_a_queue_goes_to_the_default_namespace():
    client = Client()
    recorder = Recorder(client, instance="operator-0")
    tell(recorder, namespace="")
    await recorder.drain()
    (event,) = client.events.values()
    assert event["in"] == "default"
    assert "namespace" not in event["regarding"]
