"""The gateway as a process of its own.

Plan: start it where neither log nor generator nor learner is there, look at its probes, end it by SIGTERM and by
SIGKILL, and start two on one port. Pass: it is alive and says what it lacks; SIGTERM ends it with 0; after SIGKILL
nobody serves its port; the second on a port ends with a clear word.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from services.embedded.ports import free_ports
from tests.support.gateway import until

PROGRAM = (
    "from services.gateway.main import run; from services.shared.settings import load_settings; run(load_settings())"
)


@asynccontextmanager
async def process(folder: Path, port: int, control_port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {
        **os.environ,
        "THUMBLOOP_DEPLOYMENT__DATA_DIR": str(folder),
        "THUMBLOOP_ACCESS__ANONYMOUS_CHAT": "true",
        "THUMBLOOP_GATEWAY__SPOOL__ENABLED": "false",
        "THUMBLOOP_GATEWAY__PORT": str(port),
        "THUMBLOOP_GATEWAY__CONTROL_PORT": str(control_port),
        "THUMBLOOP_GATEWAY__GENERATOR_ADDRESS": "127.0.0.1:1",
        "THUMBLOOP_GATEWAY__LEARNER_ADDRESS": "127.0.0.1:1",
        "THUMBLOOP_BUS__BOOTSTRAP_SERVERS": "127.0.0.1:1",
    }
    with (folder / f"log-{control_port}").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, env=env, stderr=log, start_new_session=True
        )
    try:
        yield child
    finally:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()


async def started(gateway: asyncio.subprocess.Process, port: int) -> None:
    """Waits until it is alive."""

    async def up() -> bool:
        assert gateway.returncode is None, "the gateway ended at its start"
        return await alive(port)

    await until(up, what="the gateway to be alive", within_s=60)


async def alive(port: int) -> bool:
    async with httpx.AsyncClient() as http:
        try:
            return (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
        except httpx.TransportError:
            return False


async def test_alone_it_is_alive_and_says_what_it_lacks(tmp_path: Path) -> None:
    port, control_port = free_ports(2)
    async with process(tmp_path, port, control_port) as gateway, httpx.AsyncClient() as http:
        await started(gateway, port)
        ready = await http.get(f"http://127.0.0.1:{control_port}/readyz")
        assert ready.status_code == 503
        missing = " ".join(ready.json()["missing"])
        assert "log" in missing and "generator" in missing
        releases = await http.get(f"http://127.0.0.1:{port}/v1/releases")
        assert releases.json()["releases"] == [] and not releases.json()["learner"]["reachable"]
        gateway.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(gateway.wait(), 60) == 0


async def test_nothing_outlives_a_kill(tmp_path: Path) -> None:
    port, control_port = free_ports(2)
    async with process(tmp_path, port, control_port) as gateway:
        await started(gateway, port)
        gateway.kill()
        await asyncio.wait_for(gateway.wait(), 10)
        assert not await alive(port) and not await alive(control_port)


async def test_two_on_one_port_are_not_let(tmp_path: Path) -> None:
    port, control_port, other = free_ports(3)
    async with process(tmp_path, port, control_port) as gateway:
        await started(gateway, port)
        async with process(tmp_path, port, other) as second:
            assert await asyncio.wait_for(second.wait(), 60) != 0
            assert f"cannot listen on 127.0.0.1:{port}" in (tmp_path / f"log-{other}").read_text()
        assert await alive(port)
