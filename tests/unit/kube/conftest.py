"""An API server in this process that answers as a test tells it, spoken to over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from datahall.kube import KubeClient
from datahall.kube.login import Login

# Python 3.11 makes an event loop for whoever asks in the main thread, as the looptime plugin does even for tests
# without one, and nobody closes that one. Said once that there is none, it makes none.
asyncio.set_event_loop(None)


class Api:
    """`answer` gets each request; all requests are remembered with their bodies."""

    def __init__(self) -> None:
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self._nothing
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.url = ""

    async def _nothing(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        return await self.answer(request)

    def says(self, status: int, body: object = None, **headers: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status, headers=headers)

        self.answer = answer

    def streams(self, *chunks: bytes, cut: bool = False) -> None:
        """Answer with a stream of these chunks, and end it in order or in mid-air."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for chunk in chunks:
                await response.write(chunk)
                await asyncio.sleep(0.005)
            if cut:
                assert request.transport is not None
                request.transport.abort()
            return response

        self.answer = answer


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    application = web.Application(client_max_size=8 * 1024 * 1024)
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def bearer() -> str:
    return "Bearer t0ken"


@pytest.fixture
async def client(api: Api) -> AsyncIterator[KubeClient]:
    async with KubeClient(Login(api.url, None, bearer, "team-a"), timeout_seconds=5) as made:
        yield made
