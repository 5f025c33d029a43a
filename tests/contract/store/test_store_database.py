"""The store itself: durability settings, migrations, leases."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select

from services.shared.domain.errors import Fenced, Misconfigured, Unavailable
from services.shared.store.database import POOL, Database, open_database
from services.shared.store.leases import Leases, check_epoch
from services.shared.store.migrate import migrate
from services.shared.store.tables import flags, metadata
from tests.support.facts import START
from tests.support.learner_store import ManualClock, open_test_database
from tests.support.postgres import PostgresServer
from tests.support.stores import PostgresStores, Stores


def test_sqlite_commits_survive_a_power_cut(tmp_path: Path) -> None:
    database = open_test_database(tmp_path)
    with database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
        "secure_delete": 2,
    }
    database.close()


def test_postgresql_reads_a_snapshot_and_waits_for_locks_no_longer_than_sqlite(postgres: PostgresServer) -> None:
    stores = PostgresStores(postgres)
    with stores.open().read() as connection:
        shown = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("lock_timeout", "transaction_isolation", "transaction_read_only")
        }
    assert shown == {
        "lock_timeout": "30s",
        "transaction_isolation": "repeatable read",
        "transaction_read_only": "on",
    }
    stores.close()


def test_postgresql_notices_a_server_that_vanished(postgres: PostgresServer) -> None:
    stores = PostgresStores(postgres)
    connection = stores.open().engine.raw_connection()
    parameters = connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]  # psycopg's
    connection.close()
    wanted = {
        "connect_timeout": "10",
        "keepalives": "1",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "30000",
    }
    assert parameters.items() >= wanted.items()
    stores.close()


def test_a_free_connection_that_does_not_come_is_told_as_unavailable(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("pool_size", 1), ("max_overflow", 0), ("pool_timeout", 0.01)):
        monkeypatch.setitem(POOL, name, value)
    database = stores.open()
    with database.read() as connection:
        connection.execute(select(flags)).all()
        for transaction in (database.read, database.write):
            with pytest.raises(Unavailable) as told, transaction():
                pass
            assert (told.value.reason, told.value.retry_after) == ("STORE_UNAVAILABLE", 0.5)
    with database.read() as connection:
        assert connection.execute(select(flags)).all() == []


def test_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    migrate(database)  # a second time changes nothing
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    row = {"name": "x", "value": "1", "reason": "", "change_time": START}
    with pytest.raises(RuntimeError, match="kill"), database.write() as connection:
        connection.execute(insert(flags).values(row))
        raise RuntimeError("kill")
    with database.read() as connection:
        assert connection.execute(select(flags)).all() == []


@pytest.mark.parametrize("url", ["sqlite://", "nonsense", "oracle-of-delphi://x"])
def test_a_wrong_url_says_how_to_mend_it(url: str) -> None:
    with pytest.raises(Misconfigured):
        open_database(url)


def test_the_password_is_not_told() -> None:
    with pytest.raises(Misconfigured) as told:
        open_database("nodb://user:geheim@host/name")
    assert "geheim" not in str(told.value)


def test_a_writer_waits_for_another_instead_of_failing(tmp_path: Path) -> None:
    database = open_test_database(tmp_path)
    entered, go = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write() as connection:
            connection.execute(insert(flags).values(name="a", value="", reason="", change_time=START))
            entered.set()
            go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(10)
    threading.Timer(0.1, go.set).start()
    with database.write() as connection:
        connection.execute(insert(flags).values(name="b", value="", reason="", change_time=START))
        assert set(connection.scalars(select(flags.c.name))) == {"a", "b"}
    holder.join(10)
    database.close()


class TestLeases:
    def test_each_holder_has_a_greater_epoch_and_fences_the_one_before(
        self, database: Database, clock: ManualClock
    ) -> None:
        one = Leases(database, clock=clock, holder="one", ttl_s=10)
        two = Leases(database, clock=clock, holder="two", ttl_s=10)
        assert one.take("x") == 1
        with pytest.raises(Unavailable) as held:
            two.take("x")
        assert held.value.retry_after == 10
        clock.advance(10)
        assert two.take("x") == 2
        with pytest.raises(Fenced):
            one.renew("x", 1)
        with pytest.raises(Fenced), database.write() as connection:
            check_epoch(connection, "x", 1)

    def test_a_restarted_holder_takes_its_own_at_once(self, database: Database, clock: ManualClock) -> None:
        leases = Leases(database, clock=clock, holder="one", ttl_s=10)
        assert [leases.take("x"), leases.take("x")] == [1, 2]

    def test_renewing_keeps_and_giving_back_frees(self, database: Database, clock: ManualClock) -> None:
        one = Leases(database, clock=clock, holder="one", ttl_s=10)
        two = Leases(database, clock=clock, holder="two", ttl_s=10)
        epoch = one.take("x")
        clock.advance(9)
        one.renew("x", epoch)
        clock.advance(9)
        with pytest.raises(Unavailable):
            two.take("x")
        one.give_back("x", epoch)
        assert two.take("x") == epoch + 1
        one.give_back("x", epoch)  # late: changes nothing
        two.renew("x", epoch + 1)
