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


def processes_of_the_run(data_dir: Path) -> list[psutil.Process]:
    """Broker and services, with all that they started; other tests' brokers live on."""

    def belongs(child: psutil.Process) -> bool:
        try:
            words = child.cmdline()
        except psutil.Error:  # it has ended meanwhile
            return False
        return "services.cli" in words or any(str(data_dir) in word for word in words)

    found = [child for child in psutil.Process(os.getpid()).children() if belongs(child)]
    return found + [grandchild for child in found for grandchild in child.children(recursive=True)]


@pytest.mark.kafka
async def test_stop_leaves_no_process_and_no_port(scripted_loop: Supervisor, tmp_path: Path) -> None:
    children = processes_of_the_run(tmp_path)
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
