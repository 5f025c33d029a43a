"""Callers for tests: credentials of a data folder, keys, and servers that let everyone in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from services.shared.access import LiveKey, NewKey, Principal, Scope, ServiceCredential, mint_key
from services.shared.access.bearer import bearer
from services.shared.ids import utc_now


class OpenGuard:
    """A `CallGuard` for tests that are not about access."""

    def admit(self, method: str, authorization: str) -> None:
        """Everyone may do everything."""


@dataclass(frozen=True)
class KeyCredential:
    """A client that holds an API key (or whatever text)."""

    text: str

    def authorization(self) -> str:
        return bearer(self.text)


def credential_of(data_dir: Path) -> ServiceCredential:
    """What the rooms that keep their data in this folder prove themselves with."""
    return ServiceCredential(data_dir / "secrets", clock=utc_now)


def live_key(
    *scopes: Scope,
    tenant: str = "default",
    name: str = "test",
    expire_time: datetime | None = None,
    minted: NewKey | None = None,
) -> tuple[NewKey, LiveKey]:
    """A new key, and what rooms know of it."""
    minted = minted or mint_key()
    principal = Principal(key_id=minted.key_id, tenant=tenant, name=name, scopes=frozenset(scopes))
    return minted, LiveKey(principal=principal, secret_digest=minted.secret_digest, expire_time=expire_time)


def without(keys: Iterable[LiveKey], key_id: str) -> list[LiveKey]:
    """The others: as after a revocation."""
    return [key for key in keys if key.principal.key_id != key_id]
