"""A run that is told to stop leaves nothing behind.

Plan: start the scripted loop, note the ids of its processes, let users chat, stop.
Pass: every service exits with 0, no noted process group has a member left, every port can be bound again.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from services.embedded.ports import is_free
from services.embedded.supervisor import Supervisor
from tests.support.loop import crowd_of, eventually


def processes_of_the_run() -> list[psutil.Process]:
    """Broker and services, with all that they started. The guardian, which ends with this process, is not one."""
    children = psutil.Process(os.getpid()).children(recursive=True)
    return [child for child in children if not any("guardian" in word for word in child.cmdline())]


@pytest.mark.kafka
async def test_stop_leaves_no_process_and_no_port(scripted_loop: Supervisor, tmp_path: Path) -> None:
    children = processes_of_the_run()
    assert len(children) >= 4
    crowd, journal = crowd_of(scripted_loop.plan, tmp_path / "journal.jsonl")
    users = asyncio.create_task(crowd.run())
    await eventually(lambda: journal.counts.answers >= 10, within_s=60, what="ten answers")
    crowd.stop()
    await users
    codes = await asyncio.to_thread(scripted_loop.stop)
    assert codes == dict.fromkeys(codes, 0)
    assert journal.counts.refused == 0
    assert journal.counts.cut == 0
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    rooms = {name: port for name, port in scripted_loop.plan.ports.items() if name != "kafka"}
    assert [name for name, port in rooms.items() if not is_free(port)] == []
