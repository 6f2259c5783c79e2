"""How a follower mends its stream, and how long it waits between tries: in virtual time, without a network."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest

from datahall.kube import (
    ForbiddenError,
    ResourceExpiredError,
    TooManyRequestsError,
    UnavailableError,
    WatchEvent,
)
from datahall.kube.resources import TRAINING_JOBS
from datahall.sdk import watching
from datahall.sdk.watching import PATIENCE_SECONDS, delay_seconds, snapshots

pytestmark = pytest.mark.looptime


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


class ScriptedKube:
    """Plays answers: a list is a dictionary of objects, a watch is a list of events and at last, maybe, an error."""

    def __init__(self, *script: Any) -> None:
        self.script = deque(script)
        self.calls: list[tuple[str, str, float]] = []

    async def list(self, resource: Any, **options: Any) -> dict[str, Any]:
        self.calls.append(("list", "", asyncio.get_running_loop().time()))
        answer = self.script.popleft()
        if isinstance(answer, Exception):
            raise answer
        return {"metadata": {"resourceVersion": "10"}, "items": answer}

    async def watch(
        self, resource: Any, *, resource_version: str, **options: Any
    ) -> AsyncIterator[WatchEvent]:
        self.calls.append(("watch", resource_version, asyncio.get_running_loop().time()))
        if not self.script:
            await asyncio.Event().wait()
        answer = self.script.popleft()
        for item in [answer] if isinstance(answer, Exception) else answer:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, float):
                await asyncio.sleep(item)
            else:
                yield item


async def follow(kube: ScriptedKube, count: int) -> list[list[str]]:
    pictures: list[list[str]] = []
    async for picture in snapshots(kube, TRAINING_JOBS, namespace="a"):  # type: ignore[arg-type]
        pictures.append(sorted(picture))
        if len(pictures) == count:
            break
    return pictures


@pytest.fixture(autouse=True)
def _delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FIRST_DELAY_SECONDS", 0.5)


async def test_each_change_is_a_whole_picture() -> None:
    kube = ScriptedKube(
        [thing("a", 1)],
        [
            WatchEvent("ADDED", thing("b", 11)),
            WatchEvent("BOOKMARK", thing("", 12)),
            WatchEvent("DELETED", thing("a", 13)),
        ],
    )
    assert await follow(kube, 3) == [["a"], ["a", "b"], ["b"]]


async def test_a_broken_stream_goes_on_from_the_last_version() -> None:
    kube = ScriptedKube(
        [thing("a", 1)],
        [WatchEvent("BOOKMARK", thing("", 12)), UnavailableError("cut")],
        [WatchEvent("ADDED", thing("b", 13))],
    )
    assert await follow(kube, 2) == [["a"], ["a", "b"]]
    assert [call[:2] for call in kube.calls] == [("list", ""), ("watch", "10"), ("watch", "12")]


async def test_a_deletion_while_the_version_expired_is_not_missed() -> None:
    kube = ScriptedKube([thing("a", 1), thing("b", 2)], ResourceExpiredError("old"), [thing("b", 2)])
    assert await follow(kube, 2) == [["a", "b"], ["b"]]


async def test_delays_double_and_end_with_the_first_event() -> None:
    cut = UnavailableError("away")
    kube = ScriptedKube([], cut, cut, cut, cut, [WatchEvent("ADDED", thing("b", 13)), cut], [])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await follow(kube, 3)
    times = [time for verb, _, time in kube.calls if verb == "watch"]
    gaps = [round(after - before, 3) for before, after in itertools.pairwise(times)]
    assert gaps[:6] == [0.0, 0.5, 1.0, 2.0, 0.0, 0.5]


async def test_a_server_that_asks_for_time_gets_it() -> None:
    kube = ScriptedKube(
        [], TooManyRequestsError("busy", retry_after_seconds=7), [WatchEvent("ADDED", thing("b", 13))]
    )
    await follow(kube, 2)
    assert kube.calls[-1][2] - kube.calls[0][2] == pytest.approx(7)


async def test_a_server_that_hangs_up_at_once_is_not_hammered() -> None:
    kube = ScriptedKube([], *[[] for _ in range(10)], [WatchEvent("ADDED", thing("b", 13))])
    await follow(kube, 2)
    assert kube.calls[-1][2] - kube.calls[0][2] > 30


async def test_a_stream_that_ends_in_order_is_reopened_at_once() -> None:
    kube = ScriptedKube([], [300.0], [300.0], [WatchEvent("ADDED", thing("b", 13))])
    await follow(kube, 2)
    assert kube.calls[-1][2] - kube.calls[0][2] == pytest.approx(600)


async def test_patience_ends() -> None:
    kube = ScriptedKube([], *[UnavailableError("away") for _ in range(1000)])
    with pytest.raises(UnavailableError):
        await follow(kube, 2)
    waited = kube.calls[-1][2] - kube.calls[0][2]
    assert PATIENCE_SECONDS < waited < PATIENCE_SECONDS + 10


@pytest.mark.parametrize("error", [UnavailableError("away"), ForbiddenError("no")])
async def test_the_first_list_is_not_repeated(error: Exception) -> None:
    kube = ScriptedKube(error)
    with pytest.raises(type(error)):
        await follow(kube, 1)
    assert len(kube.calls) == 1


async def test_a_refusal_is_final() -> None:
    with pytest.raises(ForbiddenError):
        await follow(ScriptedKube([], ForbiddenError("no")), 2)


def test_delay_seconds() -> None:
    assert [delay_seconds(failures) for failures in range(8)] == [0, 0, 0.5, 1, 2, 4, 8, 8]
