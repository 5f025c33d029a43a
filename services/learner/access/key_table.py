"""The table `api_keys`: made, revoked, listed, and given out as a snapshot. A key is never deleted: lists name it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, update

from services.shared.access.keys import DIGEST_PATTERN, KEY_ID_PATTERN
from services.shared.access.scopes import Principal, Scope
from services.shared.access.snapshot import AccessSnapshot, LiveKey
from services.shared.domain.errors import Conflict, InvalidInput, NotFound
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.tables import api_keys
from services.shared.store.upsert import insert_missing

MAX_CHARS = 100
"""Of a key's name and of a tenant's."""


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """A key as stored, without what proves it. `expire_time` None: never; `revoke_time` None: live."""

    key_id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None


@dataclass(frozen=True, kw_only=True)
class KeyOrder:
    """A key to be made."""

    key_id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    secret_digest: str
    expire_time: datetime | None


class ApiKeyTable:
    """Safe from any thread and any process; every call blocks."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(self, order: KeyOrder) -> KeyRow:
        """Makes a key; the same order again changes nothing and gives the key as it is.

        Raises InvalidInput, and Conflict where the id is another key's.
        """
        _check(order)
        wanted = {
            "key_id": order.key_id,
            "tenant": order.tenant,
            "name": order.name,
            "secret_digest": order.secret_digest,
            "scopes": sorted(order.scopes),
            "expire_time": order.expire_time,
        }
        with self._database.write() as connection:
            insert_missing(connection, api_keys, [{**wanted, "create_time": self._clock(), "revoke_time": None}])
            stored = connection.execute(select(api_keys).where(api_keys.c.key_id == order.key_id)).one()
        if any(stored._mapping[name] != value for name, value in wanted.items()):
            raise Conflict(
                f"key_id {order.key_id} was used for another key. Mint a new one for a new key.",
                reason="KEY_ID_REUSED",
                field="key_id",
            )
        return _key_row(stored)

    def revoke(self, key_id: str, *, tenant: str | None) -> KeyRow:
        """Ends a key, for ever; twice is once. `tenant` None: of any tenant. Raises NotFound."""
        mine = [api_keys.c.key_id == key_id]
        if tenant is not None:
            mine.append(api_keys.c.tenant == tenant)
        with self._database.write() as connection:
            live = update(api_keys).where(*mine, api_keys.c.revoke_time.is_(None))
            connection.execute(live.values(revoke_time=self._clock()))
            stored = connection.execute(select(api_keys).where(*mine)).one_or_none()
        if stored is None:
            raise NotFound(
                f"There is no key {key_id[:64]!a}. `thumbloop keys list` shows the ids of all.",
                reason="KEY_NOT_FOUND",
                field="key_id",
            )
        return _key_row(stored)

    def keys(self, *, tenant: str) -> list[KeyRow]:
        """Newest first, revoked ones too; `tenant` "": of all tenants."""
        query = select(api_keys).order_by(api_keys.c.create_time.desc(), api_keys.c.key_id)
        if tenant:
            query = query.where(api_keys.c.tenant == tenant)
        with self._database.read() as connection:
            return [_key_row(row) for row in connection.execute(query)]

    def snapshot(self) -> AccessSnapshot:
        """All keys that were not revoked."""
        with self._database.read() as connection:
            rows = connection.execute(select(api_keys).where(api_keys.c.revoke_time.is_(None))).all()
        return AccessSnapshot.of(_live_key(row) for row in rows)

    def fetch(self, known_digest: str) -> AccessSnapshot | None:
        """See `FetchSnapshot`."""
        snapshot = self.snapshot()
        return None if snapshot.digest == known_digest else snapshot


def _check(order: KeyOrder) -> None:
    if not KEY_ID_PATTERN.fullmatch(order.key_id):
        raise InvalidInput("key_id must be 12 lower-case letters and digits; mint one.", field="key_id")
    if not DIGEST_PATTERN.fullmatch(order.secret_digest):
        raise InvalidInput(
            "secret_digest must be the sha256 of the secret in 64 lower-case hex digits.", field="secret_digest"
        )
    for field, value in (("tenant", order.tenant), ("name", order.name)):
        if not 1 <= len(value) <= MAX_CHARS or not value.isprintable():
            raise InvalidInput(f"{field} must have 1 to {MAX_CHARS} printable characters.", field=field)
    if not order.scopes:
        raise InvalidInput("scopes is empty; name at least one.", field="scopes")


def _key_row(row: Row[Any]) -> KeyRow:
    return KeyRow(
        key_id=row.key_id,
        tenant=row.tenant,
        name=row.name,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        create_time=row.create_time,
        expire_time=row.expire_time,
        revoke_time=row.revoke_time,
    )


def _live_key(row: Row[Any]) -> LiveKey:
    scopes = frozenset(Scope(scope) for scope in row.scopes)
    principal = Principal(key_id=row.key_id, tenant=row.tenant, name=row.name, scopes=scopes)
    return LiveKey(principal=principal, secret_digest=row.secret_digest, expire_time=row.expire_time)
