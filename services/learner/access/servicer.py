"""The methods of LearnerService that are about keys: converts, asks the table in a thread, converts back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from thumbloop.learner.v1 import learner_pb2

from services.learner.access.key_table import ApiKeyTable, KeyOrder, KeyRow
from services.shared.access.method_guard import KeyCaller
from services.shared.access.wire import (
    scopes_from_proto,
    scopes_to_proto,
    snapshot_to_proto,
    time_from_proto,
    timestamp,
)
from services.shared.domain.errors import InvalidInput
from services.shared.rpc import current_caller


class AccessMethods:
    """A part of the servicer: `LearnerServicer` inherits it. Errors become statuses in the server's interceptor."""

    def __init__(
        self, *, keys: ApiKeyTable, on_keys_changed: Callable[[], None], on_replica: Callable[[str], None]
    ) -> None:
        """`on_keys_changed` hears of every key that was made or revoked, `on_replica` of each that asks for them."""
        self._keys = keys
        self._on_keys_changed = on_keys_changed
        self._on_replica = on_replica

    async def CreateApiKey(
        self, request: learner_pb2.CreateApiKeyRequest, context: Any
    ) -> learner_pb2.CreateApiKeyResponse:
        """See the proto."""
        expires = time_from_proto(request.expire_time, "expire_time") if request.HasField("expire_time") else None
        order = KeyOrder(
            key_id=request.key_id,
            tenant=request.tenant,
            name=request.name,
            scopes=scopes_from_proto(request.scopes),
            secret_digest=request.secret_digest,
            expire_time=expires,
        )
        row = await asyncio.to_thread(self._keys.create, order)
        self._on_keys_changed()
        return learner_pb2.CreateApiKeyResponse(key=_to_proto(row))

    async def RevokeApiKey(
        self, request: learner_pb2.RevokeApiKeyRequest, context: Any
    ) -> learner_pb2.RevokeApiKeyResponse:
        """See the proto. A key revokes keys of its own tenant alone."""
        if not request.key_id:
            raise InvalidInput("key_id is empty; it is required.", field="key_id")
        caller = current_caller.get()
        tenant = caller.principal.tenant if isinstance(caller, KeyCaller) else None
        row = await asyncio.to_thread(self._keys.revoke, request.key_id, tenant=tenant)
        self._on_keys_changed()
        return learner_pb2.RevokeApiKeyResponse(key=_to_proto(row))

    async def ListApiKeys(
        self, request: learner_pb2.ListApiKeysRequest, context: Any
    ) -> learner_pb2.ListApiKeysResponse:
        """See the proto."""
        rows = await asyncio.to_thread(self._keys.keys, tenant=request.tenant)
        return learner_pb2.ListApiKeysResponse(keys=[_to_proto(row) for row in rows])

    async def GetAccessSnapshot(
        self, request: learner_pb2.GetAccessSnapshotRequest, context: Any
    ) -> learner_pb2.GetAccessSnapshotResponse:
        """See the proto."""
        self._on_replica(request.replica_id)
        snapshot = await asyncio.to_thread(self._keys.snapshot)
        return snapshot_to_proto(snapshot, known_digest=request.known_digest)


def _to_proto(row: KeyRow) -> learner_pb2.ApiKey:
    message = learner_pb2.ApiKey(
        key_id=row.key_id,
        tenant=row.tenant,
        name=row.name,
        scopes=scopes_to_proto(row.scopes),
        create_time=timestamp(row.create_time),
    )
    if row.expire_time is not None:
        message.expire_time.CopyFrom(timestamp(row.expire_time))
    if row.revoke_time is not None:
        message.revoke_time.CopyFrom(timestamp(row.revoke_time))
    return message
