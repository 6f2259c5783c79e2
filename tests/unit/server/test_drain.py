"""Leaving: a connection that had reached the listener is served, however late the server comes to it."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from datahall_server.config import Limits
from datahall_server.drain import DrainingServer
from datahall_server.lifecycle import Lifecycle
from datahall_server.metrics import Metrics

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"served"})


async def test_connections_in_the_listeners_queue_are_served_before_it_closes() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = DrainingServer(app, lifecycle=Lifecycle(model_uri="m", metrics=Metrics()), limits=Limits())
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listener])
    answers: list[bytes] = []
    sent = threading.Barrier(5)

    def ask() -> None:
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(REQUEST)
            sent.wait()
            answer = b""
            while part := connection.recv(4096):
                answer += part
            answers.append(answer)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    # The event loop stands still meanwhile, so that nobody has accepted them when the shutdown begins.
    sent.wait()
    await server.shutdown(sockets=[listener])
    await asyncio.gather(*(asyncio.to_thread(client.join) for client in clients))
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in answers] == [b"served"] * 4
