"""Brings a store's tables to the version that this code needs (alembic), without a command line or an ini file.

Learners that start at once migrate once: the first holds a lock until it has committed, the others then find nothing
to do. On SQLite that is the one writer's lock, on PostgreSQL an advisory lock of the store.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from services.shared.store.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 0x7468756D  # "thum"; advisory locks are numbers that the users of one database agree on


def migrate(database: Database, *, to: str = "head") -> None:
    """Upgrades to the newest migration (or `to` one) in one transaction; a store that is there already is left as it
    is. Raises Unavailable where another learner's migration takes longer than a lock is waited for."""
    with database.write() as connection:
        if database.is_postgresql:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, to)
