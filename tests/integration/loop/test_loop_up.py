"""`thumbloop up` by its terminal: Ctrl-C while it starts, and once it stands.

Plan: start the command with scripted rooms, read what it says up to a line, send SIGINT.
Pass: it ends with 0 well before any deadline of a start, having said that nothing is left, and nothing is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOMS = {
    "THUMBLOOP_GENERATOR__ENGINE": "scripted",
    "THUMBLOOP_REWARD__SCORER": "scripted",
    "THUMBLOOP_LEARNER__TRAINER": "scripted",
}
ENDS_WITHIN_S = 90.0


@pytest.mark.parametrize("line", ["starting the embedded broker", "starting learner", "Thumbloop is up."])
def test_ctrl_c_is_heard_at_any_time(line: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.cli", "up", "--data-dir", str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | ROOMS | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout is not None
        said = [next(text for text in process.stdout if line in text)]
        rooms = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        code = process.wait(ENDS_WITHIN_S)
        said += process.stdout.readlines()
    finally:
        process.kill()
        process.wait()
    assert code == 0, said
    assert "nothing is left running" in said[-1]
    assert "Thumbloop is up." not in "".join(said[1:])
    assert [room for room in rooms if room.is_running() and room.status() != psutil.STATUS_ZOMBIE] == []
