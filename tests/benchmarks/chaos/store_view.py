"""What the learner's store and its checkpoints hold, read with code of our own: the verdict trusts no query of the
services.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

READ_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class FeedbackRow:
    """A row of `feedback`, or of `feedback_slots`: there it says who holds the slot."""

    rollout_id: str
    rater_id: str
    kind: str
    feedback_id: str
    revision: int
    retracted: bool
    digest: str

    @property
    def precedence(self) -> tuple[int, bool, str, str]:
        """In a slot the greatest wins; ids decide between equals."""
        return (self.revision, self.retracted, self.digest, self.feedback_id)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy release, with the rollouts that it was trained on: as its candidate says, and as its manifest does."""

    version: str
    parent_version: str
    published: bool
    batch: tuple[str, ...]
    manifest: tuple[str, ...] | None
    """None: there is none on disk that can be read."""


@dataclass(frozen=True, kw_only=True)
class StoreView:
    """All that the verdict asks of the store."""

    feedback: list[FeedbackRow]
    slots: list[FeedbackRow]
    rollouts: frozenset[str]
    policies: list[Policy]
    policy_uses: list[tuple[str, str]]
    """(version, rollout id), distinct."""
    reward_model_uses: list[tuple[str, str]]
    """(version, feedback id), as often as it is there."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """How far the loop has come."""

    feedback: int
    published: int
    """Policies, release 0 among them."""
    trained: int
    """Distinct experiences in batches of policies."""


NAMES = "rollout_id, rater_id, kind, feedback_id, revision, retracted, digest"


def read_store(path: Path, checkpoints: Path) -> StoreView:
    """Everything. `checkpoints`: the folder that releases lie below. Raises sqlite3.Error."""
    with _opened(path) as database:
        batches = {
            version: tuple(json.loads(rollout_ids))
            for version, rollout_ids in database.execute("SELECT version, rollout_ids FROM candidates")
        }
        return StoreView(
            feedback=_feedback_rows(database, "feedback"),
            slots=_feedback_rows(database, "feedback_slots"),
            rollouts=frozenset(row[0] for row in database.execute("SELECT rollout_id FROM rollouts")),
            policies=[
                Policy(
                    version=version,
                    parent_version=parent,
                    published=bool(published),
                    batch=batches.get(version, ()),
                    manifest=_manifest_ids(checkpoints / place / "manifest.json"),
                )
                for version, parent, published, place in database.execute(
                    "SELECT version, parent_version, publish_time IS NOT NULL, checkpoint_path FROM releases"
                    " WHERE kind = 'policy'"
                )
            ],
            policy_uses=list(
                database.execute("SELECT DISTINCT version, rollout_id FROM uses WHERE kind = 'policy'").fetchall()
            ),
            reward_model_uses=list(
                database.execute(
                    "SELECT version, feedback_id FROM uses WHERE kind = 'reward_model' AND feedback_id <> ''"
                ).fetchall()
            ),
        )


def read_totals(path: Path) -> Totals:
    """Counts alone, while services write. Raises sqlite3.Error."""
    with _opened(path) as database:
        return Totals(
            feedback=_one(database, "SELECT count(*) FROM feedback"),
            published=_one(
                database, "SELECT count(*) FROM releases WHERE kind = 'policy' AND publish_time IS NOT NULL"
            ),
            trained=_one(
                database,
                "SELECT count(DISTINCT uses.rollout_id) FROM uses JOIN releases ON releases.version = uses.version"
                " WHERE uses.kind = 'policy' AND releases.publish_time IS NOT NULL",
            ),
        )


def _manifest_ids(path: Path) -> tuple[str, ...] | None:
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8"))["rollout_ids"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _feedback_rows(database: sqlite3.Connection, table: str) -> list[FeedbackRow]:
    names = NAMES.split(", ")
    return [
        FeedbackRow(**{**dict(zip(names, row, strict=True)), "retracted": bool(row[names.index("retracted")])})
        for row in database.execute(f"SELECT {NAMES} FROM {table}")
    ]


def _one(database: sqlite3.Connection, query: str) -> int:
    return int(database.execute(query).fetchone()[0])


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Reads only; what a killed writer left is recovered on the way, as any reader would."""
    if not path.is_file():
        raise sqlite3.OperationalError(f"{path} is not there (yet)")
    with closing(sqlite3.connect(path, timeout=READ_TIMEOUT_S)) as database:
        database.execute("PRAGMA query_only = 1")
        yield database
