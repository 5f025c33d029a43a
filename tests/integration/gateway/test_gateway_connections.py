"""Many open connections.

Plan: open 200 connections, one request on each, and leave them open; then ask on a new one, and once more on the first.
Pass: every request is answered while all the others stay open. (The HTTP server's own default stops at 128.)
"""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send

from services.embedded.ports import free_port
from services.gateway.server import HttpServer

CONNECTIONS = 200
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
TIMEOUT_S = 30.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest application."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def ask(connection: Connection) -> bytes:
    reader, writer = connection
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return await reader.readexactly(5)


async def test_hundreds_of_open_connections_are_all_answered() -> None:
    port = free_port()
    server = HttpServer(hello, host="127.0.0.1", port=port)
    await server.start()
    opened: list[Connection] = []
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for _ in range(CONNECTIONS):
                opened.append(await asyncio.open_connection("127.0.0.1", port))
            assert set(await asyncio.gather(*map(ask, opened))) == {b"hello"}
            opened.append(await asyncio.open_connection("127.0.0.1", port))
            assert await ask(opened[-1]) == b"hello"
            assert await ask(opened[0]) == b"hello"
    finally:
        for _, writer in opened:
            writer.close()
        await server.stop(5.0)
