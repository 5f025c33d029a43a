"""A server that accepts connections and answers nothing, as one does that starts, or a proxy without a backend."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_server() -> Iterator[socket.socket]:
    """It listens; the system accepts for it. Its connections may be taken by `accept`, within 60 s."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        yield listening


def address(listening: socket.socket) -> str:
    """HOST:PORT."""
    host, port = listening.getsockname()
    return f"{host}:{port}"
