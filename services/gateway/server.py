"""An HTTP server inside this process: no forked worker that could outlive it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from granian.constants import Interfaces
from granian.server.embed import Server

from services.shared.domain.errors import Misconfigured

START_TIMEOUT_S = 10.0
MOST_CONNECTIONS = 4_096
"""Open at a time, idle ones included. The server takes no further one until another closes: its own default of 128
would leave everybody after the 128th browser without an answer. What runs at a time is bounded elsewhere."""
BACKLOG = 1_024
"""Connections that wait to be taken."""


class HttpServer:
    """Serves one ASGI application on one port. `start`, then `drain`, then `stop`; each at most once."""

    def __init__(self, app: Any, *, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._server = Server(
            app,
            address=host,
            port=port,
            interface=Interfaces.ASGINL,
            websockets=False,
            log_enabled=False,
            backlog=BACKLOG,
            backpressure=MOST_CONNECTIONS,
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the port takes connections. Raises Misconfigured if it is taken."""
        _check_free(self._host, self._port)
        self._task = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await _accepts(self._host, self._port):
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)  # granian tells nobody when it listens

    async def stop(self, timeout_s: float) -> None:
        """Closes the port; connections that are still busy after the timeout are cut."""
        if self._task is None:
            return
        self._server.stop()  # type: ignore[no-untyped-call]  # granian leaves its return value out
        await asyncio.wait({self._task}, timeout=timeout_s)
        self._task.cancel()


def _check_free(host: str, port: int) -> None:
    """The server would share its port with another process in silence (SO_REUSEPORT): each would get half of it all."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Misconfigured(
                f"The gateway cannot listen on {host}:{port}: {error.strerror}. Stop what uses the port, or set "
                "THUMBLOOP_GATEWAY__PORT and THUMBLOOP_GATEWAY__CONTROL_PORT to free ones."
            ) from error


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
