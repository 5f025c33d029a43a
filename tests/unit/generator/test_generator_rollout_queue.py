from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services.generator.rollout_queue import RolloutQueue
from services.shared.contracts.rollouts import encode_rollout
from tests.support.facts import TENANT, make_rollout
from tests.support.forgetting_world import ALICE, BOB, HERS, HIS

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


def test_what_is_deleted_for_a_person_is_gone_from_the_disk(tmp_path: Path) -> None:
    """Also what Kafka had taken before: the log of the file still held it."""
    text = "Water it when dry."
    queue = RolloutQueue(tmp_path / "rollouts.db")
    for name, rater in ((HERS[0], ALICE), (HERS[1], ALICE), (HIS[0], BOB)):
        said = text if rater == ALICE else "Something else."
        queue.put(name, encode_rollout(make_rollout(name, rater=rater, text=said)))
    queue.remove([HERS[0]])
    assert text.encode() in on_disk(tmp_path)
    assert queue.delete_for(tenant=TENANT, rater_id=ALICE, rollout_ids=HERS) == [HERS[1]]
    assert text.encode() not in on_disk(tmp_path)
    assert [name for name, _ in queue.oldest(10)] == [HIS[0]]
    queue.close()


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())
