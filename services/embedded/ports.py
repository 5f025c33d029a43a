"""Ports of this machine."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator, Sequence

LOOPBACK = "127.0.0.1"
PORTS = range(15_000, 32_000)
"""Below the range that Linux gives to connections (32768 and up): no connection takes one that waits for its server."""
_candidates: Iterator[int]


def choose_from(ports: Sequence[int]) -> None:
    """`free_port` takes its own from these from now on, in an order of its own. Processes that start many servers side
    by side and must not meet choose different ones."""
    global _candidates
    _candidates = itertools.cycle(random.sample(ports, k=len(ports)))


choose_from(PORTS)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now. Another process may take it before you do."""
    return next(port for port in _candidates if is_free(port))


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    return [free_port() for _ in range(count)]


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
