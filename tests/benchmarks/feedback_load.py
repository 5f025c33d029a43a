"""The load of `bench-feedback`, a process of its own: raw HTTP/1.1 over sockets, so that its cost stays small.

Requests are made beforehand, each with a token of its own. *Open loop*: each is sent at its time, whether or not the
ones before were answered, and its latency counts from that time; so a server that stalls cannot hide it. *Closed
loop*: each connection sends its next request when the last was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from services.gateway.tokens import FeedbackTokens
from services.shared.domain.feedback import FeedbackKind
from services.shared.ids import new_id, utc_now
from services.shared.secrets import KeyUse, load_or_create

HOST = "127.0.0.1"
MOST_CONNECTIONS = 1_000
END_TIMEOUT_S = 30.0
_ACCEPTED = b'"state":"accepted"'


def make_requests(secrets: Path, port: int, count: int) -> deque[bytes]:
    """Whole requests: a thumb each, of a rater and a rollout of its own."""
    keys = load_or_create(secrets, KeyUse.FEEDBACK_TOKEN, utc_now)
    tokens = FeedbackTokens(deployment="local", tenant="default", keys=keys, ttl=timedelta(hours=1), clock=utc_now)
    requests: deque[bytes] = deque()
    for number in range(count):
        token = tokens.issue(
            rater_id=f"rater-{number:026d}", rollout_id=new_id(), prompt_id="p" * 32, kinds=list(FeedbackKind)
        )
        body = json.dumps({"token": token, "kind": "thumb", "value": "up" if number % 2 else "down"}).encode()
        head = (
            f"POST /v1/feedback HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


class Connection(asyncio.Protocol):
    """One request at a time; calls `on_answer(connection, since, answer)` for each one."""

    def __init__(self, on_answer: Callable[[Connection, float, str], None]) -> None:
        self._on_answer = on_answer
        self._transport: asyncio.Transport
        self._since = 0.0
        self._received = b""
        self.busy = False

    def connection_made(self, transport: Any) -> None:
        """Ready."""
        self._transport = transport

    def send(self, request: bytes, since: float) -> None:
        """Latency counts from `since`."""
        self.busy, self._since, self._received = True, since, b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """An answer is whole when its body is."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and len(body) >= _length(head):
            self.busy = False
            answer = "failed"
            if head.startswith(b"HTTP/1.1 200"):
                answer = "acknowledged" if _ACCEPTED in body else "spooled"
            self._on_answer(self, self._since, answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The request on it, if any, failed."""
        if self.busy:
            self.busy = False
            self._on_answer(self, self._since, "failed")

    def close(self) -> None:
        """Lets go."""
        self._transport.close()


def _length(head: bytes) -> int:
    lower = head.lower()
    begin = lower.index(b"content-length:") + len(b"content-length:")
    return int(lower[begin:].split(b"\r\n", 1)[0])


class Load:
    """Counts and times answers on many connections."""

    def __init__(self, port: int, requests: deque[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._idle: deque[Connection] = deque()
        self._all: list[Connection] = []
        self.latencies_s: list[float] = []
        self.failed = 0
        self.spooled = 0
        self._open = 0
        self._closed_until = 0.0

    async def connect(self, count: int) -> None:
        """Opens connections."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, protocol = await loop.create_connection(lambda: Connection(self._answered), HOST, self._port)
            self._all.append(protocol)
            self._idle.append(protocol)

    async def at_rate(self, rate_per_s: float, seconds: float) -> dict[str, float]:
        """Open loop."""
        await self.connect(min(MOST_CONNECTIONS, max(16, int(rate_per_s / 4))))
        begin = time.monotonic() + 0.1
        late = 0
        for number in range(int(rate_per_s * seconds)):
            due = begin + number / rate_per_s
            wait = due - time.monotonic()
            if wait > 0.0005:
                await asyncio.sleep(wait)
            elif number % 32 == 0:
                await asyncio.sleep(0)
            if not self._idle:
                if len(self._all) >= MOST_CONNECTIONS:
                    late += 1
                    while not self._idle:
                        await asyncio.sleep(0.001)
                else:
                    await self.connect(1)
            self._send(self._idle.popleft(), due)
        await self._end()
        return self._result(time.monotonic() - begin) | {"late": late}

    async def closed(self, connections: int, seconds: float) -> dict[str, float]:
        """Closed loop."""
        await self.connect(connections)
        begin = time.monotonic()
        self._closed_until = begin + seconds
        while self._idle:
            self._send(self._idle.popleft(), time.monotonic())
        await asyncio.sleep(seconds)
        await self._end()
        return self._result(max(seconds, time.monotonic() - begin))

    def _send(self, connection: Connection, since: float) -> None:
        self._open += 1
        connection.send(self._requests.popleft(), since)

    def _answered(self, connection: Connection, since: float, answer: str) -> None:
        now = time.monotonic()
        self._open -= 1
        if answer == "acknowledged":
            self.latencies_s.append(now - since)
        elif answer == "spooled":
            self.spooled += 1
        else:
            self.failed += 1
        if now < self._closed_until and self._requests:
            self._send(connection, now)
        else:
            self._idle.append(connection)

    async def _end(self) -> None:
        async with asyncio.timeout(END_TIMEOUT_S):
            while self._open:
                await asyncio.sleep(0.005)
        for connection in self._all:
            connection.close()

    def _result(self, seconds: float) -> dict[str, float]:
        ordered = sorted(self.latencies_s)
        return {
            "acknowledged": len(ordered),
            "failed": self.failed,
            "spooled": self.spooled,
            "per_s": len(ordered) / seconds,
            "p50_ms": 1000 * ordered[len(ordered) // 2] if ordered else -1,
            "p99_ms": 1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] if ordered else -1,
            "left": len(self._requests),
        }


def main() -> None:
    """Says `ready`, waits for a line, runs, prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secrets", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0, help="0: closed loop")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    chosen = parser.parse_args()
    requests = make_requests(chosen.secrets, chosen.port, chosen.requests)
    print("ready", flush=True)
    input()
    load = Load(chosen.port, requests)
    cpu = time.process_time()
    if chosen.rate:
        result = asyncio.run(load.at_rate(chosen.rate, chosen.seconds))
    else:
        result = asyncio.run(load.closed(chosen.connections, chosen.seconds))
    print(json.dumps(result | {"load_cpu_s": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main()
