"""All keys that were not revoked, as digests: what a room needs to check callers by itself.

Expired keys are in it too, so that their holders hear that they expired; each room compares the time itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any

from services.shared.access.keys import DIGEST_PATTERN, KEY_ID_PATTERN
from services.shared.access.scopes import Principal, Scope


@dataclass(frozen=True, kw_only=True)
class LiveKey:
    """A key and what proves it. `expire_time` None: never."""

    principal: Principal
    secret_digest: str
    expire_time: datetime | None

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return {
            "key_id": self.principal.key_id,
            "tenant": self.principal.tenant,
            "name": self.principal.name,
            "scopes": sorted(self.principal.scopes),
            "secret_digest": self.secret_digest,
            "expire_time": self.expire_time.isoformat() if self.expire_time else None,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LiveKey:
        """Raises ValueError, KeyError or TypeError for what is no key."""
        key_id, digest, tenant = str(document["key_id"]), str(document["secret_digest"]), str(document["tenant"])
        if not KEY_ID_PATTERN.fullmatch(key_id) or not DIGEST_PATTERN.fullmatch(digest) or not tenant:
            raise ValueError(f"{key_id!r} is no key id, or its digest or tenant is missing")
        expires = document["expire_time"]
        expire_time = None if expires is None else datetime.fromisoformat(expires)
        if expire_time is not None and expire_time.tzinfo is None:
            raise ValueError(f"the expire time of {key_id} has no time zone")
        scopes = frozenset(Scope(scope) for scope in document["scopes"])
        principal = Principal(key_id=key_id, tenant=tenant, name=str(document["name"]), scopes=scopes)
        return cls(principal=principal, secret_digest=digest, expire_time=expire_time)


@dataclass(frozen=True)
class AccessSnapshot:
    """Keys by id. Equal contents have equal digests."""

    keys: Mapping[str, LiveKey]

    @classmethod
    def of(cls, keys: Iterable[LiveKey]) -> AccessSnapshot:
        """A snapshot of these keys."""
        ordered = sorted(keys, key=lambda key: key.principal.key_id)
        return cls(MappingProxyType({key.principal.key_id: key for key in ordered}))

    @cached_property
    def digest(self) -> str:
        """Hex sha256 of the contents."""
        return hashlib.sha256(self._canonical().encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """As kept on disk: the keys, and a digest that tells a damaged copy."""
        return json.dumps({"digest": self.digest, "keys": self._documents()}, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> AccessSnapshot:
        """The inverse of `to_bytes`. Raises ValueError for anything else, a changed byte of a key included."""
        try:
            document = json.loads(data)
            snapshot = cls.of([LiveKey.from_json(entry) for entry in document["keys"]])
            digest = document["digest"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no access snapshot ({error!r})") from error
        if snapshot.digest != digest or snapshot._documents() != document["keys"]:
            raise ValueError("an access snapshot whose digest does not match its keys")
        return snapshot

    def _documents(self) -> list[dict[str, Any]]:
        return [key.to_json() for key in self.keys.values()]

    def _canonical(self) -> str:
        return json.dumps(self._documents(), sort_keys=True, separators=(",", ":"))
