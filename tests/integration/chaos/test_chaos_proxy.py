"""The proxy does what it is told to a connection, so that a fault in the log was a fault on the wire.

Plan: an echo server behind the proxy; a client sends through it while the network is whole, slow, cut and reset.
Pass: whole and slow pass every byte, slow takes its time; a cut passes none until healed and then all; a reset is
seen as one; afterwards new connections work.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from services.embedded.ports import free_ports
from tests.benchmarks.chaos.proxy import TcpProxy

WORD = b"said once\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    writer.close()


@pytest.fixture
async def proxied() -> AsyncIterator[tuple[TcpProxy, int]]:
    """The proxy and its port, an echo server behind it."""
    port, target = free_ports(2)
    proxy = TcpProxy(port=port, target_port=target)
    proxy.start()
    async with await asyncio.start_server(echo, "127.0.0.1", target):
        yield proxy, port
        proxy.stop()


async def test_the_network_is_whole_slow_cut_and_reset(proxied: tuple[TcpProxy, int]) -> None:
    proxy, port = proxied
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def heard() -> bytes:
        writer.write(WORD)
        return await asyncio.wait_for(reader.readline(), 30.0)

    assert await heard() == WORD
    proxy.slow(0.1)
    began = time.monotonic()
    assert await heard() == WORD
    assert time.monotonic() - began >= 0.2  # there and back: a lower bound, which no load of the machine breaks
    proxy.heal()
    proxy.cut()
    waiting = asyncio.create_task(heard())
    done, _ = await asyncio.wait([waiting], timeout=0.5)
    assert not done
    proxy.heal()
    assert await waiting == WORD
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        assert await asyncio.wait_for(reader.readline(), 30.0) != b""
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await heard() == WORD
    writer.close()
    assert proxy.carried == 2
