"""Entry point of alembic; `services.shared.store.migrate` hands the connection over."""

from __future__ import annotations

from alembic import context

from services.shared.store.tables import metadata


def run() -> None:
    """Runs the migrations on the given connection, in its transaction."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        render_as_batch=True,
        transactional_ddl=False,
    )
    context.run_migrations()


run()
