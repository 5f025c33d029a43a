"""Requests whose body never comes to its end.

Plan: on one connection send two whole requests, then half a one and nothing more, its body declared and in chunks.
Pass: the whole ones are answered; half a body gets a 408 in the API's shape, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Receive, Scope, Send

from services.embedded.ports import free_port
from services.gateway.middleware import BodyLimit
from services.gateway.server import HttpServer

BODY_TIMEOUT_S = 3.0
TIMEOUT_S = 30.0
CHUNK = b"5\r\nhello\r\n"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers when it has the whole body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    ("declared", "half", "rest"),
    [
        ("Content-Length: 10", b"hello", b"hello"),
        ("Content-Length: 10", b"", b"hellohello"),
        ("Transfer-Encoding: chunked", CHUNK, CHUNK + b"0\r\n\r\n"),
    ],
    ids=["half", "nothing", "chunks"],
)
async def test_half_a_body_does_not_hold_a_connection_for_good(declared: str, half: bytes, rest: bytes) -> None:
    head = f"POST / HTTP/1.1\r\nHost: test\r\n{declared}\r\n\r\n".encode()
    port = free_port()
    server = HttpServer(BodyLimit(echo, max_bytes=100, timeout_s=BODY_TIMEOUT_S), host="127.0.0.1", port=port)
    await server.start()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(2):
                writer.write(head + half + rest)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(10) == b"hellohello"
            writer.write(head + half)
            answer = await reader.read()  # to the end: the server closes the connection
            writer.close()
    finally:
        await server.stop(5.0)
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_timeout"
