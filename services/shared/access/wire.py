"""Scopes and snapshots as protobuf messages (`thumbloop.learner.v1`), both ways."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from thumbloop.learner.v1 import learner_pb2

from services.shared.access.scopes import Principal, Scope
from services.shared.access.snapshot import AccessSnapshot, LiveKey
from services.shared.domain.errors import InvalidInput

_TO_PROTO = {scope: learner_pb2.Scope.Value(f"SCOPE_{scope.name}") for scope in Scope}
_FROM_PROTO: dict[int, Scope] = {value: scope for scope, value in _TO_PROTO.items()}


def scopes_to_proto(scopes: Iterable[Scope]) -> list[learner_pb2.Scope.ValueType]:
    """In the order of the enum."""
    return [_TO_PROTO[scope] for scope in Scope if scope in set(scopes)]


def scopes_from_proto(values: Iterable[int]) -> frozenset[Scope]:
    """Raises InvalidInput for none, or for one that is not known here."""
    scopes = frozenset(_FROM_PROTO.get(value) for value in values)
    if not scopes or None in scopes:
        raise InvalidInput(
            f"scopes: name at least one of {', '.join(scope.name for scope in Scope)}, and nothing else.",
            field="scopes",
        )
    return frozenset(scope for scope in scopes if scope is not None)


def timestamp(time: datetime) -> Timestamp:
    """A UTC time."""
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def time_from_proto(stamp: Timestamp, field: str) -> datetime:
    """Raises InvalidInput for a time outside the years 1 to 9999."""
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{field} is no time ({error}).", field=field) from error


def snapshot_to_proto(snapshot: AccessSnapshot, *, known_digest: str) -> learner_pb2.GetAccessSnapshotResponse:
    """`unchanged`, without keys, for a caller who has this snapshot already."""
    if snapshot.digest == known_digest:
        return learner_pb2.GetAccessSnapshotResponse(digest=snapshot.digest, unchanged=True)
    keys = [_live_key_to_proto(key) for key in snapshot.keys.values()]
    return learner_pb2.GetAccessSnapshotResponse(digest=snapshot.digest, keys=keys)


def snapshot_from_proto(response: learner_pb2.GetAccessSnapshotResponse) -> AccessSnapshot:
    """The keys of a response that is not `unchanged`. A scope that is not known here is left out: it allows nothing."""
    return AccessSnapshot.of(_live_key_from_proto(key) for key in response.keys)


def _live_key_to_proto(key: LiveKey) -> learner_pb2.LiveApiKey:
    principal = key.principal
    message = learner_pb2.ApiKey(
        key_id=principal.key_id,
        tenant=principal.tenant,
        name=principal.name,
        scopes=scopes_to_proto(principal.scopes),
    )
    if key.expire_time is not None:
        message.expire_time.CopyFrom(timestamp(key.expire_time))
    return learner_pb2.LiveApiKey(key=message, secret_digest=key.secret_digest)


def _live_key_from_proto(message: learner_pb2.LiveApiKey) -> LiveKey:
    key = message.key
    scopes = frozenset(_FROM_PROTO[value] for value in key.scopes if value in _FROM_PROTO)
    return LiveKey(
        principal=Principal(key_id=key.key_id, tenant=key.tenant, name=key.name, scopes=scopes),
        secret_digest=message.secret_digest,
        expire_time=key.expire_time.ToDatetime(tzinfo=UTC) if key.HasField("expire_time") else None,
    )
