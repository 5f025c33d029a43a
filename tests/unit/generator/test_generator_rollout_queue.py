from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services.generator.rollout_queue import RolloutQueue

WRITER = """
import os, signal, sys
from pathlib import Path
from services.generator.rollout_queue import RolloutQueue
queue = RolloutQueue(Path(sys.argv[1]))
for index in range(10):
    queue.put(f"r{index}", b"event %d" % index)
    print(index, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_put_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.db"
    done = subprocess.run([sys.executable, "-c", WRITER, str(path)], capture_output=True, timeout=60, check=False)
    assert done.returncode == -9
    queue = RolloutQueue(path)
    assert queue.count == len(done.stdout.split()) == 10
    assert queue.oldest(3) == [("r0", b"event 0"), ("r1", b"event 1"), ("r2", b"event 2")]
    queue.close()


def test_ids_are_kept_once_and_leave_when_removed(tmp_path: Path) -> None:
    queue = RolloutQueue(tmp_path / "deep" / "rollouts.db")
    for name in ("a", "b", "a"):
        queue.put(name, name.encode())
    queue.remove(["a", "unknown"])
    assert queue.oldest(10) == [("b", b"b")]
    queue.refuse("b", "TOO_LARGE")
    assert queue.count == 0 and queue.oldest(10) == []
    queue.close()
