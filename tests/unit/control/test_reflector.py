"""A table follows its kind without a gap: scripted in virtual time, and once against an API server over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from datahall.control.reflector import BACK_OFF_LONGEST_SECONDS, Reflector
from datahall.control.sources import Source
from datahall.control.storage_views import ClaimView, claim_view
from datahall.control.store import Table
from datahall.kube import (
    ForbiddenError,
    KubeClient,
    ResourceExpiredError,
    UnavailableError,
    WatchEvent,
)
from datahall.kube import client as kube_client
from datahall.kube.login import Login
from datahall.kube.resources import PERSISTENT_VOLUME_CLAIMS as CLAIMS

Json = dict[str, Any]


def claim(name: str, version: int, uid: str = "") -> Json:
    return {
        "metadata": {
            "namespace": "n",
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
        }
    }


def added(name: str, version: int) -> WatchEvent:
    return WatchEvent("ADDED", claim(name, version))


def deleted(name: str, version: int) -> WatchEvent:
    return WatchEvent("DELETED", claim(name, version))


def bookmark(version: int) -> WatchEvent:
    return WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


class ScriptedKube:
    """Plays answers: a list is (version, objects), a watch is a list of events, pauses and at last, maybe, an error."""

    def __init__(self, *script: Any) -> None:
        self.script = deque(script)
        self.calls: list[tuple[str, str]] = []
        self.times: list[float] = []

    def _note(self, verb: str, version: str = "") -> None:
        self.calls.append((verb, version))
        self.times.append(asyncio.get_running_loop().time())

    async def list(self, resource: Any, **options: Any) -> Json:
        self._note("list")
        answer = self.script.popleft()
        if isinstance(answer, Exception):
            raise answer
        version, items = answer
        return {"metadata": {"resourceVersion": str(version)}, "items": items}

    async def watch(
        self, resource: Any, *, resource_version: str, **options: Any
    ) -> AsyncIterator[WatchEvent]:
        self._note("watch", resource_version)
        if not self.script:
            await asyncio.Event().wait()
        for step in self.script.popleft():
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield step


def reflector(client: Any, *, selector: str = "") -> tuple[Reflector, Table[ClaimView], list[int]]:
    table: Table[ClaimView] = Table(claim_view)
    signs: list[int] = []
    made = Reflector(client, Source(CLAIMS, table, selector), on_event=lambda: signs.append(1))
    return made, table, signs


async def play(*script: Any, seconds: float = 1.0) -> tuple[ScriptedKube, Table[ClaimView], list[int]]:
    client = ScriptedKube(*script)
    made, table, signs = reflector(client)
    await made.fill()
    running = asyncio.create_task(made.run())
    await asyncio.sleep(seconds)
    assert not running.done(), running
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    return client, table, signs


def names(table: Table[ClaimView]) -> dict[str, int]:
    return {view.name: view.version for view in table}


@pytest.mark.looptime
async def test_a_list_and_the_changes_after_it():
    changed = WatchEvent("MODIFIED", claim("a", 13))
    client, table, signs = await play(
        (10, [claim("a", 3), claim("b", 4)]), [added("c", 11), deleted("b", 12), changed, 60.0]
    )
    assert names(table) == {"a": 13, "c": 11}
    assert client.calls == [("list", ""), ("watch", "10")]
    assert len(signs) == 3


@pytest.mark.looptime
async def test_a_watch_that_ended_goes_on_from_the_last_version_without_a_list():
    client, table, _ = await play((10, []), [added("a", 11)], [added("b", 12), deleted("a", 15)])
    assert client.calls == [("list", ""), ("watch", "10"), ("watch", "11"), ("watch", "15")]
    assert names(table) == {"b": 12}


@pytest.mark.looptime
async def test_bookmarks_move_the_version_and_nothing_else():
    client, table, signs = await play((10, [claim("a", 3)]), [bookmark(500)])
    assert client.calls[-1] == ("watch", "500")
    assert names(table) == {"a": 3}
    assert len(signs) == 1, "but they are a sign of life"


@pytest.mark.looptime
async def test_a_watch_that_broke_goes_on_where_it_was():
    client, table, _ = await play(
        (10, []), [added("a", 11), UnavailableError("cut")], [added("b", 12)], seconds=5
    )
    assert client.calls[:3] == [("list", ""), ("watch", "10"), ("watch", "11")]
    assert names(table) == {"a": 11, "b": 12}


@pytest.mark.looptime
@pytest.mark.parametrize("error", [ResourceExpiredError("too old"), ForbiddenError("not any more")])
async def test_where_the_version_is_too_old_everything_is_listed_anew(error):
    client, table, _ = await play(
        (10, [claim("a", 3), claim("b", 4)]),
        [added("c", 11), error],
        (90, [claim("b", 4), claim("d", 80)]),
        [added("e", 91)],
        seconds=5,
    )
    assert [verb for verb, _ in client.calls[:4]] == ["list", "watch", "list", "watch"]
    assert client.calls[3] == ("watch", "90")
    assert names(table) == {"b": 4, "d": 80, "e": 91}, "what vanished meanwhile is gone"


@pytest.mark.looptime
async def test_an_expired_version_is_no_failure_to_be_waited_out():
    client, _, _ = await play((10, []), [ResourceExpiredError("old")], (20, []), [60.0])
    assert client.times == [0, 0, 0, 0]


@pytest.mark.looptime
async def test_a_list_that_fails_is_tried_until_it_works():
    client, table, _ = await play(
        (10, [claim("a", 3)]),
        [ResourceExpiredError("old")],
        UnavailableError("away"),
        UnavailableError("away"),
        (20, [claim("b", 15)]),
        [60.0],
        seconds=10,
    )
    assert [verb for verb, _ in client.calls] == ["list", "watch", "list", "list", "list", "watch"]
    assert names(table) == {"b": 15}


@pytest.mark.looptime
async def test_failures_are_waited_out_longer_each_time_and_a_good_watch_starts_anew():
    away = [[UnavailableError("away")] for _ in range(14)]
    client, _, _ = await play(
        (10, []), *away, [added("a", 11)], [UnavailableError("away")], [60.0], seconds=300
    )
    watches = client.times[1:]
    gaps = [later - earlier for earlier, later in itertools.pairwise(watches)]
    for number, gap in enumerate(gaps[:14]):
        longest = min(0.2 * 2.0 ** (number + 1), BACK_OFF_LONGEST_SECONDS)
        assert longest / 2 <= gap <= longest
    assert gaps[14] == 0, "the watch that worked ended: the next follows at once"
    assert 0.2 <= gaps[15] <= 0.4


@pytest.mark.looptime
async def test_an_api_server_that_is_away_for_a_day_does_not_end_the_operator():
    away = [[UnavailableError("away")] for _ in range(1100)]
    _client, table, _ = await play((10, []), *away, [added("a", 11)], [60.0], seconds=86_400)
    assert names(table) == {"a": 11}


@pytest.mark.looptime
async def test_watches_that_end_at_once_and_bring_nothing_are_not_asked_for_without_a_pause():
    client, _, _ = await play((10, []), *[[] for _ in range(100_000)], seconds=60)
    assert len(client.calls) < 500


@pytest.mark.looptime
async def test_versions_that_expire_as_soon_as_they_are_listed_are_not_listed_without_a_pause():
    expiring = [step for n in range(1000) for step in ((n, []), [ResourceExpiredError("old")])]
    client, _, _ = await play((10, []), [ResourceExpiredError("old")], *expiring, seconds=60)
    assert len(client.calls) < 100


@pytest.mark.looptime
async def test_a_list_that_cannot_be_had_at_the_start_is_the_callers():
    made, _, _ = reflector(ScriptedKube(ForbiddenError("no")))
    with pytest.raises(ForbiddenError):
        await made.fill()


# ---- over HTTP


def line(type_: str, body: Json) -> bytes:
    return json.dumps({"type": type_, "object": body}).encode() + b"\n"


async def test_over_http_lists_pages_watches_silence_and_expiry(monkeypatch):
    """The whole way: paged list, long line, silence, a cut, 410, list again."""
    monkeypatch.setattr(kube_client, "SILENCE_SECONDS", -299.8)  # of 300 seconds: 0.2
    asked: list[tuple[str, str]] = []
    done = asyncio.Event()
    long = claim("long", 12)
    long["metadata"]["annotations"] = {"x": "y" * 200_000}

    async def answer(request: web.Request) -> web.StreamResponse:
        query = request.query
        assert query["labelSelector"] == "mine"
        if "watch" not in query:
            asked.append(("list", query.get("continue", "")))
            if len([verb for verb, _ in asked if verb == "list"]) > 2:
                return web.json_response({"metadata": {"resourceVersion": "90"}, "items": [claim("c", 80)]})
            if "continue" in query:
                return web.json_response({"metadata": {"resourceVersion": "10"}, "items": [claim("b", 4)]})
            return web.json_response(
                {"metadata": {"resourceVersion": "10", "continue": "next"}, "items": [claim("a", 3)]}
            )
        version = query["resourceVersion"]
        asked.append(("watch", version))
        response = web.StreamResponse()
        await response.prepare(request)
        if version == "10":
            await response.write(line("ADDED", long))
            await asyncio.sleep(5)  # and not another word
        elif version == "12":
            await response.write(line("DELETED", claim("a", 13)))
            await response.write(b'{"type": "ADD')
            assert request.transport is not None
            request.transport.abort()
        elif version == "13":
            await response.write(line("ERROR", {"code": 410, "message": "too old"}))
        else:
            await response.write(line("MODIFIED", claim("c", 91)))
            done.set()
            await asyncio.sleep(5)
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def nobody() -> None:
        return None

    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with KubeClient(Login(url, None, nobody, "n")) as client:
        made, table, _ = reflector(client, selector="mine")
        await made.fill()
        assert names(table) == {"a": 3, "b": 4}
        running = asyncio.create_task(made.run())
        await asyncio.wait_for(done.wait(), 10)
        while table.get("n", "c").version != 91:  # noqa: ASYNC110 - the event is in the table a moment later
            await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    await runner.cleanup()
    assert asked == [
        ("list", ""),
        ("list", "next"),
        ("watch", "10"),
        ("watch", "12"),
        ("watch", "13"),
        ("list", ""),
        ("watch", "90"),
    ]
    assert names(table) == {"c": 91}
