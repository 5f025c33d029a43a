"""The spool on a real disk: bounds, order, once each, durable before it answers, and clear words when damaged."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from services.gateway.spool import table
from services.gateway.spool.item import ROW_BYTES, spool_item
from services.shared.contracts.feedback import decode_feedback
from services.shared.domain.errors import Busy, Conflict, Misconfigured, PermissionDenied, Unavailable
from services.shared.domain.feedback import Comment
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import make_feedback, make_thumb
from tests.support.spool import WAIT_S, FaultyDisk, names, open_spool, put, stored, thumb_item


def test_what_is_put_comes_back_in_order_with_its_bytes_also_after_a_restart(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        assert put(spool, "f3", "f1", "f2") == [1, 2, 3]
    with open_spool(tmp_path) as spool:
        assert spool.items == 3 and names(spool) == ["f3", "f1", "f2"]
        assert decode_feedback(stored(spool)[1].item.event) == make_thumb("f1")
        assert spool.has_waiting("default", make_thumb("f1").rollout_id)


def test_the_same_again_is_stored_once_and_another_statement_under_its_id_is_a_conflict(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        assert put(spool, "f1", "f1", up=True) == [1, 1]
        with pytest.raises(Conflict, match="f1"):
            put(spool, "f1", up=False)
        assert spool.items == 1
        assert put(spool, "f1", rater="somebody else") > [1] and spool.items == 2


def test_positions_are_never_used_twice(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        (first,) = put(spool, "f1")
        assert spool.remove([first]).result(WAIT_S) == 1
        assert spool.remove([first]).result(WAIT_S) == 0
        assert put(spool, "f2") == [first + 1]


@pytest.mark.parametrize("bounds", [(2, 10_000_000), (1_000, 2 * (ROW_BYTES + 400))])
def test_full_is_said_at_once_counted_and_ends_when_something_leaves(tmp_path: Path, bounds: tuple[int, int]) -> None:
    metrics = Metrics()
    with open_spool(tmp_path, metrics=metrics, max_items=bounds[0], max_bytes=bounds[1]) as spool:
        first, _ = put(spool, "f1", "f2")
        with pytest.raises(Unavailable) as refused:
            spool.put(thumb_item("f3"))
        assert refused.value.reason == "SPOOL_FULL" and refused.value.retry_after
        assert metrics.value("thumbloop_gateway_spool_full_total") == 1
        spool.remove([first]).result(WAIT_S)
        put(spool, "f3")
        assert names(spool) == ["f2", "f3"]


def test_full_survives_a_restart(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        put(spool, "f1", "f2")
    with open_spool(tmp_path, max_items=2) as spool:
        assert not spool.has_room
        with pytest.raises(Unavailable):
            spool.put(thumb_item("f3"))


def test_many_at_a_time_share_a_commit(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with open_spool(tmp_path, disk=disk) as spool:
        disk.connection.may_commit.clear()
        first = spool.put(thumb_item("f0"))
        assert disk.connection.committing.wait(WAIT_S)
        rest = [spool.put(thumb_item(f"f{number}")) for number in range(1, 200)]
        disk.connection.may_commit.set()
        assert [first.result(WAIT_S), *(one.result(WAIT_S) for one in rest)] == list(range(1, 201))
        assert disk.connection.commits == 2


def test_nothing_is_answered_before_the_commit_returns(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with open_spool(tmp_path, disk=disk) as spool:
        disk.connection.may_commit.clear()
        placed = spool.put(thumb_item("f1"))
        assert disk.connection.committing.wait(WAIT_S)
        assert not placed.done()
        disk.connection.may_commit.set()
        assert placed.result(WAIT_S) == 1


def test_a_disk_that_fails_answers_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    disk, metrics = FaultyDisk(), Metrics()
    with open_spool(tmp_path, disk=disk, metrics=metrics) as spool:
        disk.connection.failing = True
        with pytest.raises(Unavailable) as refused:
            put(spool, "f1")
        assert refused.value.reason == "SPOOL_FAILED" and refused.value.retry_after
        assert spool.items == 0 and not spool.has_waiting("default", make_thumb("f1").rollout_id)
        disk.connection.failing = False
        put(spool, "f1")
        assert names(spool) == ["f1"]


def test_a_disk_without_space_refuses_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    disk = FaultyDisk()
    with open_spool(tmp_path, disk=disk) as spool:
        (pages,) = disk.connection.execute("PRAGMA page_count").fetchone()
        disk.connection.execute(f"PRAGMA max_page_count={pages + 2}")
        kept = []
        with pytest.raises(Unavailable, match="disk"):
            for number in range(200):
                kept += put(spool, f"f{number}")
        assert kept and spool.items == len(kept)
        disk.connection.execute("PRAGMA max_page_count=1000000")
        put(spool, "another")
        assert len(names(spool)) == len(kept) + 1


def test_waiting_is_by_rollout_and_ends_when_sent_or_gone(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        item = thumb_item("f1")
        spool.put(item, sent=True).result(WAIT_S)
        assert not spool.has_waiting("default", item.key.rollout_id)
        spool.mark_waiting(1, item.key)
        spool.mark_waiting(1, item.key)
        assert spool.has_waiting("default", item.key.rollout_id)
        assert not spool.has_waiting("another", item.key.rollout_id)
        (second,) = put(spool, "f2")
        spool.mark_sent(1, item.key)
        assert spool.has_waiting("default", item.key.rollout_id)
        spool.remove([second]).result(WAIT_S)
        assert not spool.has_waiting("default", item.key.rollout_id)


def test_refused_items_stay_on_disk_out_of_the_way(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        put(spool, "f1", "f2")
        assert spool.refuse(1, stored(spool)[0].item.key, "EVENT_TOO_LARGE").result(WAIT_S)
        assert names(spool) == ["f2"] and spool.items == 2
    with open_spool(tmp_path) as spool:
        assert names(spool) == ["f2"] and spool.items == 2
        found = spool.find(tenant="default", rater_id="rater-1", feedback_id="f1").result(WAIT_S)
        assert found is not None and found.refused_reason == "EVENT_TOO_LARGE"


def test_the_age_is_that_of_what_kafka_may_take(tmp_path: Path) -> None:
    metrics, now = Metrics(), [1_000.0]
    with open_spool(tmp_path, metrics=metrics, clock=lambda: datetime.fromtimestamp(now[0], UTC)) as spool:
        put(spool, "refused")
        now[0] = 1_060.0
        put(spool, "f1")
        now[0] = 1_070.0
        assert spool.refuse(1, stored(spool)[0].item.key, "EVENT_TOO_LARGE").result(WAIT_S)
        spool.note()
        assert metrics.value("thumbloop_gateway_spool_oldest_seconds") == 10
        spool.remove([2]).result(WAIT_S)
        spool.note()
        assert metrics.value("thumbloop_gateway_spool_oldest_seconds") == 0 and spool.items == 1
        assert not spool.anything_waits


def test_forgetting_deletes_what_a_person_said_and_what_was_said_of_their_answers(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        words = make_feedback("f1", rater="alice", body=Comment(text="words of hers"), rollout="her-answer")
        spool.put(spool_item(words)).result(WAIT_S)
        put(spool, "f2", rater="alice", rollout="her-answer")
        put(spool, "f3", rater="bob", rollout="of-alice")
        put(spool, "f4", rater="bob", rollout="of-bob")
        raters = [f"r{number}" for number in range(1_200)] + ["alice"]
        assert spool.delete_for(tenant="another", rater_ids=raters, rollout_ids=[]).result(WAIT_S) == 0
        gone = spool.delete_for(tenant="default", rater_ids=raters, rollout_ids=["of-alice"]).result(WAIT_S)
        assert gone == 3 and spool.items == 1 and names(spool) == ["f4"]
        assert not spool.has_waiting("default", "of-alice")
        with closing(sqlite3.connect(tmp_path / table.FILE_NAME)) as connection:
            (tombstones,) = connection.execute("SELECT count(*) FROM tombstones WHERE rater_id = 'alice'").fetchone()
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"of-alice" not in held and b"her-answer" not in held and b"of hers" not in held and b"of-bob" in held
    # The pseudonym itself stays, in the tombstones of the two tenants alone.
    assert tombstones == 2 and held.count(b"alice") == tombstones


def test_forgetting_is_tried_again_while_somebody_reads_the_file(tmp_path: Path) -> None:
    """A backup holds the file's log, in which the words still stand."""
    disk = FaultyDisk()
    with open_spool(tmp_path, disk=disk) as spool:
        words = make_feedback("f1", rater="alice", body=Comment(text="words of hers"), rollout="her-answer")
        spool.put(spool_item(words)).result(WAIT_S)
        with closing(sqlite3.connect(tmp_path / table.FILE_NAME, isolation_level=None)) as backup:
            backup.execute("BEGIN")
            backup.execute("SELECT count(*) FROM items").fetchone()
            for _ in range(2):
                with pytest.raises(Busy, match="read"):
                    spool.delete_for(tenant="default", rater_ids=["alice"], rollout_ids=[]).result(WAIT_S)
            assert spool.items == 0 and not spool.has_waiting("default", "her-answer")
            put(spool, "f2", rater="bob")  # everybody else is answered
            backup.execute("COMMIT")
        assert spool.delete_for(tenant="default", rater_ids=["alice"], rollout_ids=[]).result(WAIT_S) == 0
        assert b"of hers" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        (patience_ms,) = disk.connection.execute("PRAGMA busy_timeout").fetchone()
        assert patience_ms == 5_000  # only the emptying has less


def test_nothing_is_put_of_somebody_whom_the_disk_has_let_go(tmp_path: Path) -> None:
    disk, forgotten = FaultyDisk(), ForgottenRaters()
    with open_spool(tmp_path, disk=disk, forgotten=forgotten) as spool:
        disk.connection.may_commit.clear()
        first = spool.put(thumb_item("before", rater="alice"))
        assert disk.connection.committing.wait(WAIT_S)
        forgotten.add("default", "alice")
        gone = spool.delete_for(tenant="default", rater_ids=["alice"], rollout_ids=[])
        # Their request was let in before the order: it comes to the disk after it.
        late = spool.put(thumb_item("late", rater="alice"))
        others = spool.put(thumb_item("others", rater="bob"))
        disk.connection.may_commit.set()
        assert (first.result(WAIT_S), gone.result(WAIT_S)) == (1, 1)
        with pytest.raises(PermissionDenied) as refused:
            late.result(WAIT_S)
        assert refused.value.reason == "PERSON_FORGOTTEN" and others.result(WAIT_S) > 1
        assert names(spool) == ["others"] and spool.items == 1


def test_who_was_forgotten_is_known_after_a_restart(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.delete_for(tenant="default", rater_ids=["alice"], rollout_ids=[]).result(WAIT_S)
        spool.delete_for(tenant="default", rater_ids=["alice"], rollout_ids=["r1"]).result(WAIT_S)
    forgotten = ForgottenRaters()
    with open_spool(tmp_path, forgotten=forgotten):
        assert forgotten.has("default", "alice")
        assert not forgotten.has("default", "bob") and not forgotten.has("another", "alice")


def test_a_rater_finds_their_own_alone(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        put(spool, "f1", rater="alice")
        found = spool.find(tenant="default", rater_id="alice", feedback_id="f1").result(WAIT_S)
        assert found is not None and decode_feedback(found.item.event) == make_thumb("f1", rater="alice")
        whoever = spool.find(tenant="default", rater_id="", feedback_id="f1").result(WAIT_S)
        assert whoever == found
        for tenant, rater, name in (
            ("x", "alice", "f1"),
            ("x", "", "f1"),
            ("default", "bob", "f1"),
            ("default", "alice", "f2"),
        ):
            assert spool.find(tenant=tenant, rater_id=rater, feedback_id=name).result(WAIT_S) is None


def test_figures_say_what_lies_there_and_how_long(tmp_path: Path) -> None:
    metrics, now = Metrics(), [1_000.0]
    with open_spool(tmp_path, metrics=metrics, clock=lambda: datetime.fromtimestamp(now[0], UTC)) as spool:
        put(spool, "f1", "f2")
        now[0] = 1_060.0
        spool.note()
        assert metrics.value("thumbloop_gateway_spool_items") == 2
        assert metrics.value("thumbloop_gateway_spool_bytes") == 2 * thumb_item("f1").size
        assert metrics.value("thumbloop_gateway_spool_oldest_seconds") == 60
        spool.remove([1, 2]).result(WAIT_S)
        spool.note()
        assert metrics.value("thumbloop_gateway_spool_bytes") == 0
        assert metrics.value("thumbloop_gateway_spool_oldest_seconds") == 0


def test_a_second_owner_is_told_clearly_and_may_come_after_the_first(tmp_path: Path) -> None:
    with open_spool(tmp_path), pytest.raises(Misconfigured, match=f"process {os.getpid()}") as refused:
        open_spool(tmp_path)
    assert refused.value.reason == "SPOOL_OWNED" and "THUMBLOOP_GATEWAY__SPOOL__DIRECTORY" in refused.value.message
    open_spool(tmp_path).close()


@pytest.mark.parametrize("damage", ["header", "middle"])
def test_a_damaged_file_is_told_clearly_and_kept(tmp_path: Path, damage: str) -> None:
    with open_spool(tmp_path) as spool:
        put(spool, *(f"f{number}" for number in range(100)))
    path = tmp_path / table.FILE_NAME
    whole = bytearray(path.read_bytes())
    begin = 0 if damage == "header" else len(whole) // 2
    whole[begin : begin + 4096] = b"\xff" * 4096
    path.write_bytes(whole)
    with pytest.raises(Misconfigured, match="recover") as refused:
        open_spool(tmp_path)
    assert refused.value.reason == "SPOOL_DAMAGED" and str(path) in refused.value.message
    assert path.read_bytes() == whole


def test_a_file_of_a_later_release_is_not_touched(tmp_path: Path) -> None:
    open_spool(tmp_path).close()
    with sqlite3.connect(tmp_path / table.FILE_NAME) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(Misconfigured, match="later release"):
        open_spool(tmp_path)


def test_a_folder_that_cannot_be_used_is_told_clearly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="THUMBLOOP_GATEWAY__SPOOL__ENABLED"):
        open_spool(tmp_path / "file")


def test_closed_it_takes_nothing(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.close()
    spool.close()
    with pytest.raises(Unavailable, match="closed"):
        put(spool, "f1")


def _put_for_ever(folder: Path, told: Connection) -> None:
    with open_spool(folder, max_items=100_000) as spool:
        for number in range(100_000):
            put(spool, f"f{number}")
            told.send(number)


def test_what_was_answered_outlives_kill_9(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_put_for_ever, args=(tmp_path, its))
    process.start()
    try:
        while mine.poll(WAIT_S * 3) and mine.recv() < 50:
            pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(WAIT_S)
        answered = 50
        while mine.poll(0):
            answered = mine.recv()
    except EOFError:
        pass
    finally:
        process.kill()
        process.join(WAIT_S)
        its.close()
        mine.close()
    with open_spool(tmp_path, max_items=100_000) as spool:
        found = names(spool)
    assert found == [f"f{number}" for number in range(len(found))]
    assert len(found) in (answered + 1, answered + 2)
