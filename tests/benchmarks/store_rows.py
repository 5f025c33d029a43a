"""Rows for the store's benchmark: one real experience, and as many like it as are wanted.

The pattern is what the demo's median user leaves: a prompt of 55 tokens, a response of 24, one score with its reference
log-probs, and for two of five experiences a thumb. Its rows come from the code that ingest uses. The database itself
makes the others out of a series of numbers: same bytes, other ids, times and versions. Rollout ids grow with time as
UUIDv7 do; feedback ids and raters are spread evenly, ten rollouts a rater; each version draws `PER_VERSION` rollouts,
and only the newest `OPEN` experiences are still open.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Table, case, insert, literal, literal_column, select, text
from sqlalchemy.sql.elements import ColumnElement

from services.learner.ingest.store_feedback import store_feedback
from services.learner.ingest.store_rollouts import store_rollouts
from services.learner.ingest.store_scores import store_scores
from services.shared.domain.feedback import Feedback, Thumb
from services.shared.domain.release import ReleaseKind, version_id
from services.shared.domain.rollout import ChatMessage, Role, Rollout
from services.shared.domain.score import Score
from services.shared.store import tables
from services.shared.store.database import Database
from services.shared.store.upsert import insert_missing
from tests.support.facts import at, make_feedback, make_rollout, make_score

PER_VERSION = 20_000
OPEN = 20_000
MS_APART = 100
RATED_OF_FIVE = 2

LOADED = (
    tables.rollouts,
    tables.rollout_versions,
    tables.experiences,
    tables.scores,
    tables.reference_passes,
    tables.feedback,
    tables.feedback_slots,
)
_FEEDBACK = (tables.feedback, tables.feedback_slots)


def version_of(number: int) -> str:
    """The policy that drew experience `number`. (Its digest is the same in all, for SQL's sake.)"""
    return version_id(
        ReleaseKind.POLICY, epoch=1, number=number // PER_VERSION, content_sha256=hashlib.sha256(b"").hexdigest()
    )


def make_facts(number: int) -> tuple[Rollout, Score, Feedback]:
    """The events of experience `number`, as real rooms would send them."""
    seconds = number * MS_APART / 1000
    name = str(uuid.UUID(int=(int(at(seconds).timestamp() * 1000) << 80) | (0x7 << 76) | _spread(number, 62) | 2 << 62))
    rater = hashlib.md5(str(number // 10).encode(), usedforsecurity=False).hexdigest()
    rollout = make_rollout(name, seconds=seconds, versions=[(version_of(number), 24)], rater=rater, raw_log_probs=True)
    rollout = replace(
        rollout,
        meta=replace(rollout.meta, event_id=str(uuid.UUID(int=_spread(number, 128)))),
        conversation_id=hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(),
        prompt_id=rater[::-1],
        messages=(ChatMessage(role=Role.USER, content="How should I make a monthly budget? " * 2),),
        prompt_token_ids=tuple(range(1000, 1055)),
        response_text="To create a monthly budget, start by identifying all your expenses, including the daily ones.",
    )
    score = make_score(rollout, seconds=seconds + 2)
    score = replace(
        score, features=b"", meta=replace(score.meta, event_id=str(uuid.UUID(int=_spread(number + 7, 128))))
    )
    thumb = make_feedback(
        str(uuid.UUID(int=_spread(number + 11, 128))),
        rollout=name,
        rater=rater,
        body=Thumb(up=number % 2 == 0),
        seconds=seconds + 5,
    )
    return rollout, score, replace(thumb, prompt_id=rater[::-1], token_key_id="k8b43eea3")


def _spread(number: int, bits: int) -> int:
    digest = hashlib.sha256(str(number).encode()).digest()
    return int.from_bytes(digest, "big") % (1 << bits)


def load(
    database: Database, begin: int, end: int, *, mark: Callable[[Connection, int], None], step: int = 50_000
) -> Iterator[int]:
    """Adds experiences `begin` to `end` - 1; `mark` is told in each transaction how many there are, and so is the
    caller after it."""
    patterns = _patterns(database, end)
    for first in range(begin, end, step):
        last = min(first + step, end)
        with database.write() as connection:
            for table, columns in patterns.items():
                series = select(*columns.values()).select_from(text(_series(connection, first, last)))
                if table in _FEEDBACK:
                    series = series.where(literal_column(f"n % 5 < {RATED_OF_FIVE}"))
                connection.execute(insert(table).from_select(list(columns), series))
            mark(connection, last)
        yield last
    with database.write() as connection:
        insert_missing(connection, tables.releases, [_release(number) for number in range(end // PER_VERSION + 8)])


def _patterns(database: Database, count: int) -> dict[Table, dict[str, ColumnElement[Any]]]:
    """By table, what its columns hold; learned from an experience that ingest writes, and that is undone."""
    with database.write() as connection:
        rollout, score, thumb = make_facts(-10)
        store_rollouts(connection, [rollout])
        store_scores(connection, [score])
        store_feedback(connection, [thumb])
        patterns = {table: _columns(connection, table, rollout.rollout_id, count) for table in LOADED}
        connection.rollback()
    return patterns


def _columns(connection: Connection, table: Table, pattern: str, count: int) -> dict[str, ColumnElement[Any]]:
    """For each column what it holds in experience `n`: the pattern's value, or an expression."""
    row = connection.execute(select(table).where(table.c.rollout_id == pattern)).one()
    told = _expressions(connection.dialect.name == "postgresql")
    columns: dict[str, ColumnElement[Any]] = {}
    for column in table.columns:
        value = getattr(row, column.name)
        expression = told.get(f"{table.name}.{column.name}", told.get(column.name))
        if expression is not None and value is not None:
            columns[column.name] = literal_column(expression, type_=column.type)
        else:
            columns[column.name] = literal(value, type_=column.type)
    open_ones = case((literal_column(f"n >= {count - OPEN}"), literal("open")), else_=literal("stale"))
    if table is tables.experiences:
        columns["state"] = open_ones
        columns["rated"] = literal_column(f"n % 5 < {RATED_OF_FIVE}")
    return columns


def _expressions(is_postgresql: bool) -> dict[str, str]:
    def hexed(value: str, width: int) -> str:
        return f"lpad(to_hex({value}), {width}, '0')" if is_postgresql else f"printf('%0{width}x', {value})"

    def mixed(value: str, salt: int) -> str:
        return f"((({value}) + {salt}) * 2654435761 % 4294967296)"

    def digest(value: str) -> str:
        return " || ".join(hexed(mixed(value, salt), 8) for salt in (1, 20_011, 40_009, 60_013))

    def random_id(salt: int) -> str:
        tail = " || '-a' || ".join((hexed("n % 4096", 3), hexed(f"{mixed('n', salt)} % 4096", 3)))
        return (
            f"{hexed(mixed('n', salt), 8)} || '-0000-4' || {tail} || '-' || {hexed('n * 65521 % 281474976710656', 12)}"
        )

    begun_ms = int(at(0).timestamp() * 1000)
    time_ms = f"({begun_ms} + n * {MS_APART})"
    version = _version_pattern(is_postgresql)
    rollout_id = (
        f"{hexed(f'{time_ms} / 65536', 8)} || '-' || {hexed(f'{time_ms} % 65536', 4)} || '-7' ||"
        f" {hexed('n % 4096', 3)} || '-8' || {hexed(mixed('n', 5) + ' % 4096', 3)} || '-' ||"
        f" {hexed(mixed('n', 9), 12)}"
    )
    times = {
        name: f"({time_ms} + {after}) * 1000"
        for name, after in (
            ("request_time", 0),
            ("first_token_time", 100),
            ("end_time", 1000),
            ("event_time", 2000),
            ("accept_time", 5000),
        )
    }
    return times | {
        "rollout_id": rollout_id,
        "group_id": rollout_id,
        "event_id": random_id(3),
        "feedback_id": random_id(77),
        "conversation_id": digest("n"),
        "rater_id": digest("n / 10"),
        "revision": f"({time_ms} + 5000)",
        "starting_version": version,
        "oldest_version": version,
        "policy_version": version,
        "spans": f"""'[["' || {version} || '",0,24,"fresh",' || ({times["first_token_time"]}) || ']]'""",
        "oldest_version_number": f"n / {PER_VERSION}",
        "up": "n % 2 = 0",
    }


def _version_pattern(is_postgresql: bool) -> str:
    before, after = version_of(0).split("000000")
    number = f"n / {PER_VERSION}"
    padded = f"lpad(({number})::text, 6, '0')" if is_postgresql else f"printf('%06d', {number})"
    return f"'{before}' || {padded} || '{after}'"


def _series(connection: Connection, begin: int, end: int) -> str:
    if connection.dialect.name == "postgresql":
        return f"generate_series({begin}::bigint, {end - 1}::bigint) AS series(n)"
    counted = f"SELECT {begin} UNION ALL SELECT n + 1 FROM c WHERE n < {end - 1}"
    return f"(WITH RECURSIVE c(n) AS ({counted}) SELECT n FROM c) AS series"


def _release(number: int) -> dict[str, Any]:
    version = version_of(number * PER_VERSION)
    return {
        "version": version,
        "kind": "policy",
        "epoch": 1,
        "number": number,
        "parent_version": version_of((number - 1) * PER_VERSION) if number else "",
        "state": "published",
        "checkpoint_path": f"policy/1/{version}",
        "manifest_sha256": "c" * 64,
        "base_model_digest": "b" * 64,
        "reward_model_version": "",
        "experiences": 0,
        "commit_time": at(0) + timedelta(seconds=number),
        "metrics": {},
        "gate_verdict": [],
    }
