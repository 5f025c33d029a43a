"""A TCP proxy that can cut, slow and reset, in a thread with an event loop of its own.

Clients must reach the server through it alone, so a broker behind it advertises the proxy's address. A well-kept
library does not serve here: what there is drops bytes out of a stream, which no network does to TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK = 65_536
START_TIMEOUT_S = 10.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST."""


class TcpProxy:
    """Forwards `port` to `target_port`, both on loopback. Its verbs may be called from any thread."""

    def __init__(self, *, port: int, target_port: int) -> None:
        self._port = port
        self._target_port = target_port
        self._latency_s = 0.0
        self._cut = False
        self._links: set[asyncio.StreamWriter] = set()
        self.carried = 0
        """Connections so far that reached the server."""
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        """Listens. Raises OSError."""
        self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        """Closes everything."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)
        self._loop.close()

    def shut(self) -> None:
        """Connections are refused and those that are there are reset: the server is dead. Until `open`."""
        self._call(self._shut())

    def open(self) -> None:
        """The server lives. Twice is once."""
        self._call(self._listen())

    def cut(self) -> None:
        """Nothing passes, as with a pulled cable: connections stay, new ones are not answered. Until `heal`."""
        self._cut = True

    def slow(self, latency_s: float) -> None:
        """Each chunk, in either direction, is held for so long. Until `heal`."""
        self._latency_s = latency_s

    def reset(self) -> None:
        """All connections get RST, once; new ones are welcome."""
        self._loop.call_soon_threadsafe(self._reset_all)

    def heal(self) -> None:
        """As a network should be. What waited behind a cut passes now, or is reset by its own end."""
        self._cut, self._latency_s = False, 0.0

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_S)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._reset_all()

    async def _close(self) -> None:
        await self._shut()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reset_all(self) -> None:
        for writer in list(self._links):
            raw: socket.socket | None = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self._links.add(to_client)
        to_server: asyncio.StreamWriter | None = None
        try:
            await self._pass_time()
            server, to_server = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._links.add(to_server)
            self.carried += 1
            await asyncio.gather(self._pump(client, to_server), self._pump(server, to_client))
        except OSError:
            pass  # Either end went away; the other learns it by its own connection's end.
        finally:
            for writer in (to_client, to_server):
                if writer is not None:
                    self._links.discard(writer)
                    writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(CHUNK):
            await self._pass_time()
            sink.write(chunk)
            await sink.drain()
        raise ConnectionAbortedError("one end has closed")  # Ends the other direction too.

    async def _pass_time(self) -> None:
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        while self._cut:
            await asyncio.sleep(0.05)
