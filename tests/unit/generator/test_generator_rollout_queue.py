from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from services.generator.rollout_queue import RolloutQueue
from services.shared.contracts.rollouts import encode_rollout
from services.shared.domain.errors import Busy
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
    assert queue.oldest(3) == [("r0", b"event 0", 0), ("r1", b"event 1", 0), ("r2", b"event 2", 0)]
    queue.close()


def test_ids_are_kept_once_and_leave_when_removed(tmp_path: Path) -> None:
    queue = RolloutQueue(tmp_path / "deep" / "rollouts.db")
    for name in ("a", "b", "a"):
        queue.put(name, name.encode())
    queue.remove(["a", "unknown"])
    assert queue.oldest(10) == [("b", b"b", 0)]
    queue.refuse("b", "TOO_LARGE")
    assert queue.count == 0 and queue.oldest(10) == []
    queue.close()


def test_what_is_kept_waits_no_more_and_outlives_a_restart(tmp_path: Path) -> None:
    with closing(RolloutQueue(tmp_path / "rollouts.db")) as queue:
        for name in ("a", "b", "c", "d"):
            queue.put(name, name.encode())
        queue.keep([("a", "acme"), ("b", "acme"), ("c", "acme"), ("unknown", "acme")], sent_time=100.0)
        assert (queue.count, queue.count_kept()) == (1, 3)
    with closing(RolloutQueue(tmp_path / "rollouts.db")) as queue:
        assert queue.oldest(9) == [("d", b"d", 0)]
        first, *others = queue.kept(9, after=0)
        assert first[1:] == ("a", "acme", 1, 1, 100.0)
        assert queue.kept(1, after=first.position) == others[:1]
        queue.send_again(["b", "unknown"])
        assert queue.oldest(9) == [("b", b"b", 1), ("d", b"d", 0)]
        queue.keep([("b", "acme")], sent_time=110.0)
        assert [one[1:] for one in queue.kept(9, after=first.position)] == [
            ("b", "acme", 2, 2, 110.0),
            ("c", "acme", 1, 1, 100.0),
        ]
        assert queue.remove_kept_beyond(1) == 2
        assert [kept.rollout_id for kept in queue.kept(9, after=0)] == ["c"]
        assert queue.send_all_again() == 1
        assert [one.rollout_id for one in queue.oldest(9)] == ["c", "d"]


def test_many_changes_are_one(tmp_path: Path) -> None:
    """Users' answers wait for the lock: a wait for the disk for each row would hold them up."""
    with closing(RolloutQueue(tmp_path / "rollouts.db")) as queue:
        names = [f"r{number}" for number in range(50)]
        for name in names:
            queue.put(name, b"event")
        changes: list[Callable[[], None]] = [
            lambda: queue.keep([(name, "acme") for name in names], sent_time=1.0),
            lambda: queue.send_again(names),
            lambda: queue.remove(names),
        ]
        for change in changes:
            before = log_size(tmp_path)
            change()
            # The log grows by the pages that were changed, once, whatever the number of rows.
            assert log_size(tmp_path) - before < 15 * 4_200
        assert queue.count == 0


def log_size(folder: Path) -> int:
    return (folder / "rollouts.db-wal").stat().st_size


def test_a_change_that_fails_leaves_nothing_half_done(tmp_path: Path) -> None:
    with closing(RolloutQueue(tmp_path / "rollouts.db")) as queue:
        queue.put("a", b"event")
        with pytest.raises(sqlite3.Error):
            queue.keep([("a", "acme"), ("b", object())], sent_time=1.0)  # type: ignore[list-item]
        assert [one.rollout_id for one in queue.oldest(9)] == ["a"]
        queue.put("b", b"event")
        assert queue.count == 2


def test_a_file_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "rollouts.db", isolation_level=None)) as earlier:
        earlier.execute(
            "CREATE TABLE rollouts (position INTEGER PRIMARY KEY AUTOINCREMENT, rollout_id TEXT NOT NULL UNIQUE,"
            " event BLOB NOT NULL, refused_reason TEXT NOT NULL DEFAULT '') STRICT"
        )
        earlier.execute("INSERT INTO rollouts (rollout_id, event) VALUES ('a', x'61')")
    for _ in range(2):
        with closing(RolloutQueue(tmp_path / "rollouts.db")) as queue:
            assert queue.oldest(9) == [("a", b"a", 0)]


def test_what_is_deleted_for_a_person_is_gone_from_the_disk(tmp_path: Path) -> None:
    """Also what Kafka had taken before: the log of the file still held it."""
    text = "Water it when dry."
    queue = RolloutQueue(tmp_path / "rollouts.db")
    for name, rater in ((HERS[0], ALICE), (HERS[1], ALICE), (HIS[0], BOB)):
        said = text if rater == ALICE else "Something else."
        queue.put(name, encode_rollout(make_rollout(name, rater=rater, text=said)))
    queue.keep([(HERS[1], TENANT), (HIS[0], TENANT)], sent_time=1.0)
    queue.remove([HERS[0]])
    assert text.encode() in on_disk(tmp_path)
    # By her pseudonym alone, kept ones included; the ids that the order names may be others.
    assert queue.delete_for(tenant=TENANT, rater_id=ALICE, rollout_ids=[HERS[0]]) == [HERS[1]]
    queue.clear_log()
    assert text.encode() not in on_disk(tmp_path)
    assert [kept.rollout_id for kept in queue.kept(10, after=0)] == [HIS[0]]
    queue.close()


def test_what_is_deleted_is_not_called_gone_while_somebody_reads_the_file(tmp_path: Path) -> None:
    """A backup holds the file's log, in which the text still stands."""
    path = tmp_path / "rollouts.db"
    with closing(RolloutQueue(path)) as queue, closing(sqlite3.connect(path, isolation_level=None)) as backup:
        queue.put(HERS[0], encode_rollout(make_rollout(HERS[0], rater=ALICE, text="Water it when dry.")))
        backup.execute("BEGIN")
        backup.execute("SELECT count(*) FROM rollouts").fetchone()
        queue.delete_for(tenant=TENANT, rater_id=ALICE, rollout_ids=[])
        for _ in range(2):
            with pytest.raises(Busy, match="read"):
                queue.clear_log()
        backup.execute("COMMIT")
        queue.clear_log()
        assert b"Water it" not in on_disk(tmp_path)


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_of_what_was_refused_the_newest_stay(tmp_path: Path) -> None:
    with closing(RolloutQueue(tmp_path / "rollouts.db")) as queue:
        for name in ("a", "b", "c"):
            queue.put(name, b"event", refused_reason="TOO_LARGE")
        queue.put("waits", b"event")
        queue.put("d", b"event")
        queue.refuse("d", "TOO_LARGE")
        assert queue.count_refused() == 4
        assert queue.remove_refused_beyond(2) == 2
        assert queue.remove_refused_beyond(2) == 0
        assert (queue.count_refused(), queue.count) == (2, 1)
    with closing(sqlite3.connect(tmp_path / "rollouts.db")) as file:
        assert [name for (name,) in file.execute("SELECT rollout_id FROM rollouts ORDER BY position")] == [
            "c",
            "waits",
            "d",
        ]
