"""Brings a store's tables to the version that this code needs (alembic), without a command line or an ini file."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from services.shared.store.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(database: Database) -> None:
    """Upgrades to the newest migration in one transaction; a store that is there already is left as it is."""
    with database.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
